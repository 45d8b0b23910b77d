// Numbers as the server writes them, and the lengths of bars.
"use strict";

const language = document.documentElement.lang;
const digits = { numberingSystem: "latn", useGrouping: "always" }; // as the server writes them
const number = new Intl.NumberFormat(language, digits);
const percent = new Intl.NumberFormat(language, { ...digits, style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const decimal = new Intl.NumberFormat(language, { ...digits, minimumFractionDigits: 2, maximumFractionDigits: 2 });

// Percentages with one decimal that add up to 100.0, by the largest remainder, as polls/tally.py calculates them.
function shares(counts) {
  const sum = counts.reduce((all, count) => all + count, 0);
  if (!sum) return counts.map(() => 0);
  const tenths = counts.map((count) => Math.floor((1000 * count) / sum));
  const rest = (index) => (1000 * counts[index]) % sum;
  const order = [...counts.keys()].sort((one, other) => rest(other) - rest(one) || one - other);
  const missing = 1000 - tenths.reduce((all, tenth) => all + tenth, 0);
  for (const index of order.slice(0, missing)) tenths[index] += 1;
  return tenths.map((tenth) => tenth / 10);
}

// The length of each bar in percent, as `bar_lengths` in polls/tally.py calculates it.
function lengths({ kind, options, total: voters }) {
  if (kind === "multiple") return options.map(({ votes }) => (voters ? Math.round((1000 * votes) / voters) / 10 : 0));
  if (kind !== "ranking") return shares(options.map(({ votes }) => votes));
  const most = Math.max(1, voters * (options.length - 1));
  return options.map(({ points }) => Math.round((1000 * points) / most) / 10);
}
