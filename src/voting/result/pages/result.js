// Follows the result over a WebSocket. Each message is one whole snapshot; the counts of one that is older than what
// is shown are ignored, so the numbers never jump back. A lost connection is made again with growing, jittered waits.
"use strict";

const tally = document.getElementById("tally");
const state = document.getElementById("state");
const spoken = document.getElementById("spoken");
const rows = new Map([...tally.children].map((row) => [row.dataset.key, row]));
const language = document.documentElement.lang; // of the words on the page, so of its numbers too
const words = JSON.parse(tally.dataset.words);
const digits = { numberingSystem: "latn", useGrouping: "always" }; // as the server writes them
const number = new Intl.NumberFormat(language, digits);
const percent = new Intl.NumberFormat(language, { ...digits, style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const plural = new Intl.PluralRules(language);
const hours = new Intl.DateTimeFormat(language, { numberingSystem: "latn", hour: "2-digit", minute: "2-digit" });
const SILENCE = 40_000; // the server sends at least every 15 s
const SPEAK = 5_000;
const POLL_DELETED = 4404; // the close code
let revision = Number(tally.dataset.revision); // of what is shown
let tries = 0;
let latest = null; // the snapshot to draw in the next animation frame
let leaving = false;
let drawing = 0;
const frozen = () => document.documentElement.classList.contains("frozen"); // the big screen can do that
const pace = document.getElementById("pace");
const rates = pace.dataset.rates.split(" ").map(Number); // votes in each second of the last minute
let total = 0; // as of the last snapshot, and a second ago
let before = null;

const counted = (forms, count) => (forms[plural.select(count)] ?? forms.other).replace("{n}", number.format(count));
const since = (sentence, iso) => sentence.replace("{time}", hours.format(new Date(iso)));
const text = (element, value) => { if (element.textContent !== value) element.textContent = value; };

function condition(words, kind) {
  text(state, words);
  state.className = `state ${kind}`;
}

function describe(snapshot) {
  if (snapshot.stale_since) condition(since(words.stale, snapshot.stale_since), "warn");
  else if (snapshot.paused_since) condition(since(words.paused, snapshot.paused_since), "warn");
  else if (snapshot.waiting > 0) condition(`${words.live} · ${counted(words.waiting, snapshot.waiting)}`, "live");
  else condition(words.live, "live");
}

// Whether the page was made for another poll than the one that the snapshot shows.
function outdated({ question, options }) {
  return question !== document.getElementById("question").textContent || options.length !== rows.size
    || options.some(({ key, label }) => rows.get(key)?.querySelector(".label").textContent !== label);
}

// Percentages with one decimal that add up to 100.0, by the largest remainder, as the server reckons them.
function shares(counts) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (!total) return counts.map(() => 0);
  const tenths = counts.map((count) => Math.floor((1000 * count) / total));
  const rest = (index) => (1000 * counts[index]) % total;
  const order = [...counts.keys()].sort((one, other) => rest(other) - rest(one) || one - other);
  const missing = 1000 - tenths.reduce((sum, tenth) => sum + tenth, 0);
  for (const index of order.slice(0, missing)) tenths[index] += 1;
  return tenths.map((tenth) => tenth / 10);
}

function reloadSoon() {
  leaving = true;
  setTimeout(() => location.reload(), 1000 + 2000 * Math.random()); // not every page in the hall at once
}

function draw() {
  drawing = 0;
  if (leaving || !latest || frozen()) return;
  const snapshot = latest;
  latest = null;
  if (outdated(snapshot)) {
    reloadSoon();
    return;
  }
  const parts = shares(snapshot.options.map((option) => option.votes));
  snapshot.options.forEach((option, index) => {
    const row = rows.get(option.key);
    text(row.querySelector(".share"), percent.format(parts[index] / 100));
    text(row.querySelector(".votes"), counted(words.votes, option.votes));
    row.querySelector("progress").value = parts[index];
    const cells = document.querySelectorAll(`[data-option="${option.key}"] td`); // the big screen has no table
    if (cells.length) {
      text(cells[0], number.format(option.votes));
      text(cells[1], percent.format(parts[index] / 100));
    }
  });
  text(document.getElementById("total"), counted(words.votes, snapshot.total));
  total = snapshot.total;
  before ??= total;
}

// A second has passed: the chart moves on.
function tick() {
  if (before === null || frozen()) return;
  rates.shift();
  rates.push(Math.max(0, total - before));
  before = total;
  const most = Math.max(1, ...rates);
  rates.forEach((rate, index) => {
    const height = (20 * rate) / most;
    pace.children[index].setAttribute("y", 20 - height);
    pace.children[index].setAttribute("height", height);
  });
  text(document.getElementById("pace-now"), number.format(rates.at(-1)));
  text(document.getElementById("pace-most"), number.format(Math.max(...rates)));
}

// What a screen reader says: the whole state of affairs, when it changed, and not more often than people can listen.
function speak() {
  const counts = [...rows.values()].map((row) => `${row.querySelector(".label").textContent}: ${row.querySelector(".votes").textContent}`);
  text(spoken, `${state.textContent}. ${counts.join(", ")}`);
}

function take(snapshot) {
  if (snapshot.revision < revision) { // a replica that lags, or a database that was restored
    condition(words.behind, "warn");
    return;
  }
  revision = snapshot.revision;
  describe(snapshot);
  latest = snapshot;
  if (!drawing) drawing = requestAnimationFrame(draw);
}

function connect() {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${tally.dataset.ws}`);
  let opened = 0;
  let silence = setTimeout(() => socket.close(), SILENCE);
  socket.onopen = () => { opened = Date.now(); };
  socket.onmessage = (message) => {
    clearTimeout(silence);
    silence = setTimeout(() => socket.close(), SILENCE);
    take(JSON.parse(message.data));
  };
  socket.onclose = ({ code }) => {
    clearTimeout(silence);
    if (code === POLL_DELETED) {
      reloadSoon();
      return;
    }
    tries = opened && Date.now() - opened > 5000 ? 0 : tries + 1;
    condition(words.lost, "warn");
    setTimeout(connect, Math.random() * Math.min(10_000, 1000 * 2 ** tries));
  };
}

document.documentElement.addEventListener("frozen", draw);
connect();
setInterval(speak, SPEAK);
setInterval(tick, 1000);
