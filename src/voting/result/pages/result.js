// Draws snapshots into the page. feed.js receives them, and numbers.js writes their numbers.
"use strict";

const plural = new Intl.PluralRules(language);
const hours = new Intl.DateTimeFormat(language, { numberingSystem: "latn", hour: "2-digit", minute: "2-digit" });
let words = {};
let rows = new Map(); // key -> bar
let latest = null; // the snapshot to draw in the next animation frame
let drawing = 0; // the requested animation frame
let rates = []; // votes in each second of the last minute
let total = 0; // of the last snapshot
let lastTotal = null; // a second ago

const $ = (id) => document.getElementById(id);
const frozen = () => document.documentElement.classList.contains("frozen"); // by present.js
const counted = (forms, count) => (forms[plural.select(count)] ?? forms.other).replace("{n}", number.format(count));
const since = (sentence, iso) => sentence.replace("{time}", hours.format(new Date(iso)));
const text = (element, value) => { if (element && element.textContent !== value) element.textContent = value; };

// Find the parts of the page, which was loaded or replaced.
function bind() {
  words = JSON.parse($("result").dataset.words);
  rows = new Map([...($("tally")?.children ?? [])].map((row) => [row.dataset.key, row]));
  rates = $("pace")?.dataset.rates.split(" ").map(Number) ?? [];
  lastTotal = null;
  latest = null;
  tick();
}

function showState(message, kind) {
  text($("state"), message);
  $("state").className = `state ${kind}`;
}

function showStateOf(snapshot) {
  if (snapshot.stale_since) showState(since(words.stale, snapshot.stale_since), "warn");
  else if (snapshot.paused_since) showState(since(words.paused, snapshot.paused_since), "warn");
  else if (snapshot.state === "closed") showState(words.closing, "");
  else if (snapshot.state === "final" && snapshot.total !== null) showState(words.final, "");
  else if (snapshot.waiting > 0) showState(`${words.live} · ${counted(words.waiting, snapshot.waiting)}`, "live");
  else showState(words.live, "live");
}

function draw() {
  drawing = 0;
  if (!latest || frozen()) return;
  const snapshot = latest;
  latest = null;
  if (snapshot.total === null || !snapshot.poll) return;
  const isRanking = snapshot.kind === "ranking";
  const parts = lengths(snapshot);
  snapshot.options.forEach((option, index) => {
    const row = rows.get(option.key);
    const share = percent.format(parts[index] / 100);
    text(row.querySelector(".share"), isRanking ? counted(words.points, option.points) : share);
    text(row.querySelector(".votes"), counted(isRanking ? words.first : words.votes, option.votes));
    row.querySelector("progress").value = parts[index];
    if (isRanking) row.querySelector(".crown").hidden = snapshot.winner !== option.key;
    const cells = document.querySelectorAll(`[data-option="${option.key}"] td`); // the big screen has none
    if (cells.length) {
      text(cells[0], number.format(isRanking ? option.points : option.votes));
      text(cells[1], isRanking ? number.format(option.votes) : share);
    }
  });
  if (isRanking && $("runoff")) drawRunoff(snapshot);
  if (snapshot.kind === "rating") text($("mean"), snapshot.mean === null ? "–" : decimal.format(snapshot.mean));
  text($("total"), counted(snapshot.kind === "single" ? words.votes : words.voters, snapshot.total));
  total = snapshot.total;
  lastTotal ??= total;
}

function cell(name, content, small = "") {
  const element = document.createElement(name);
  element.textContent = content;
  if (small) {
    const more = document.createElement(name === "th" ? "strong" : "small");
    more.textContent = small;
    element.append(" ", more);
  }
  return element;
}

function drawRunoff({ options, runoff, winner }) {
  const [head, body] = [$("runoff").tHead.rows[0], $("runoff").tBodies[0]];
  const columns = runoff.map((_, index) => cell("th", $("runoff").dataset.round.replace("{n}", number.format(index + 1))));
  for (const column of columns) column.scope = "col";
  head.replaceChildren(head.cells[0], ...columns);
  body.replaceChildren(...options.map(({ key, label }) => {
    const line = document.createElement("tr");
    line.className = key === winner ? "winner" : "";
    const name = cell("th", label, key === winner ? words.winner : "");
    name.scope = "row";
    name.dir = "auto";
    line.append(name, ...runoff.map(({ votes, eliminated }) => (
      key in votes ? cell("td", number.format(votes[key]), eliminated === key ? words.out : "") : cell("td", ""))));
    return line;
  }));
  const rest = $("runoff").tFoot.rows[0];
  rest.replaceChildren(rest.cells[0], ...runoff.map(({ exhausted }) => cell("td", number.format(exhausted))));
}

// Append the votes of the last second to the chart.
function recordRate() {
  if (lastTotal === null || frozen() || !$("pace")) return;
  rates.shift();
  rates.push(Math.max(0, total - lastTotal));
  lastTotal = total;
  const most = Math.max(1, ...rates);
  rates.forEach((rate, index) => {
    const height = (20 * rate) / most;
    $("pace").children[index].setAttribute("y", 20 - height);
    $("pace").children[index].setAttribute("height", height);
  });
  text($("pace-now"), number.format(rates.at(-1)));
  text($("pace-most"), number.format(Math.max(...rates)));
}

// Show when the poll opens or closes. That it has done so, the server says.
function tick() {
  const due = 1000 * Number($("phase")?.dataset.due);
  if (!due || !isServerTimeKnown()) return;
  text($("phase"), dueText(due, words.due));
  $("phase").classList.toggle("soon", $("phase").classList.contains("open") && secondsUntil(due) <= 15);
}

// Announce the whole state to screen readers; they speak only if the text has changed.
function speak() {
  const counts = [...rows.values()].map((row) => `${row.querySelector(".label").textContent}: ${row.querySelector(".votes").textContent}`);
  text($("spoken"), `${$("state").textContent}. ${counts.join(", ")}`);
}

document.documentElement.addEventListener("frozen", draw);
setInterval(speak, 5000);
setInterval(recordRate, 1000);
setInterval(tick, 250);
bind();
if ($("phase")?.dataset.due) readServerTime(location.pathname);
