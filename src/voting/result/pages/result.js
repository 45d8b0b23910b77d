// Shows the snapshots that arrive over a WebSocket. A snapshot older than the one shown is ignored, so numbers are never
// replaced by older ones. A lost connection is opened again, with exponential backoff and jitter.
"use strict";

const tally = document.getElementById("tally");
const state = document.getElementById("state");
const spoken = document.getElementById("spoken");
const rows = new Map([...tally.children].map((row) => [row.dataset.key, row]));
const language = document.documentElement.lang;
const words = JSON.parse(tally.dataset.words);
const digits = { numberingSystem: "latn", useGrouping: "always" }; // as the server writes them
const number = new Intl.NumberFormat(language, digits);
const percent = new Intl.NumberFormat(language, { ...digits, style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const plural = new Intl.PluralRules(language);
const hours = new Intl.DateTimeFormat(language, { numberingSystem: "latn", hour: "2-digit", minute: "2-digit" });
const SILENCE = 40_000; // ms after which the connection is closed; the server sends at least every 15 s
const SPEAK = 5_000; // ms between two announcements to screen readers
const CLOSE_POLL_DELETED = 4404; // close code of result/hub.py
let revision = Number(tally.dataset.revision); // of the snapshot that is shown
let attempts = 0;
let latest = null; // the snapshot to draw in the next animation frame
let reloading = false;
let drawing = 0; // the requested animation frame
const frozen = () => document.documentElement.classList.contains("frozen"); // by present.js
const pace = document.getElementById("pace");
const rates = pace.dataset.rates.split(" ").map(Number); // votes in each second of the last minute
let total = 0; // of the last snapshot
let lastTotal = null; // a second ago

const counted = (forms, count) => (forms[plural.select(count)] ?? forms.other).replace("{n}", number.format(count));
const since = (sentence, iso) => sentence.replace("{time}", hours.format(new Date(iso)));
const text = (element, value) => { if (element.textContent !== value) element.textContent = value; };

function showState(message, kind) {
  text(state, message);
  state.className = `state ${kind}`;
}

function showStateOf(snapshot) {
  if (snapshot.stale_since) showState(since(words.stale, snapshot.stale_since), "warn");
  else if (snapshot.paused_since) showState(since(words.paused, snapshot.paused_since), "warn");
  else if (snapshot.waiting > 0) showState(`${words.live} · ${counted(words.waiting, snapshot.waiting)}`, "live");
  else showState(words.live, "live");
}

// Whether the question or the options of the snapshot differ from those on the page.
function outdated({ question, options }) {
  return question !== document.getElementById("question").textContent || options.length !== rows.size
    || options.some(({ key, label }) => rows.get(key)?.querySelector(".label").textContent !== label);
}

// Percentages with one decimal that add up to 100.0, by the largest remainder, as endpoints.py calculates them.
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
  reloading = true;
  setTimeout(() => location.reload(), 1000 + 2000 * Math.random()); // spread over time, not all pages at once
}

function draw() {
  drawing = 0;
  if (reloading || !latest || frozen()) return;
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
    const cells = document.querySelectorAll(`[data-option="${option.key}"] td`); // the big screen has none
    if (cells.length) {
      text(cells[0], number.format(option.votes));
      text(cells[1], percent.format(parts[index] / 100));
    }
  });
  text(document.getElementById("total"), counted(words.votes, snapshot.total));
  total = snapshot.total;
  lastTotal ??= total;
}

// Append the votes of the last second to the chart.
function recordRate() {
  if (lastTotal === null || frozen()) return;
  rates.shift();
  rates.push(Math.max(0, total - lastTotal));
  lastTotal = total;
  const most = Math.max(1, ...rates);
  rates.forEach((rate, index) => {
    const height = (20 * rate) / most;
    pace.children[index].setAttribute("y", 20 - height);
    pace.children[index].setAttribute("height", height);
  });
  text(document.getElementById("pace-now"), number.format(rates.at(-1)));
  text(document.getElementById("pace-most"), number.format(Math.max(...rates)));
}

// Announce the whole state to screen readers; they speak only if the text has changed.
function speak() {
  const counts = [...rows.values()].map((row) => `${row.querySelector(".label").textContent}: ${row.querySelector(".votes").textContent}`);
  text(spoken, `${state.textContent}. ${counts.join(", ")}`);
}

function receive(snapshot) {
  if (snapshot.revision < revision) { // a replica that lags, or a database that was restored
    showState(words.behind, "warn");
    return;
  }
  revision = snapshot.revision;
  showStateOf(snapshot);
  latest = snapshot;
  if (!drawing) drawing = requestAnimationFrame(draw);
}

function connect() {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${tally.dataset.ws}`);
  let openedAt = 0;
  let silence = setTimeout(() => socket.close(), SILENCE);
  socket.onopen = () => { openedAt = Date.now(); };
  socket.onmessage = (message) => {
    clearTimeout(silence);
    silence = setTimeout(() => socket.close(), SILENCE);
    receive(JSON.parse(message.data));
  };
  socket.onclose = ({ code }) => {
    clearTimeout(silence);
    if (code === CLOSE_POLL_DELETED) {
      reloadSoon();
      return;
    }
    attempts = openedAt && Date.now() - openedAt > 5000 ? 0 : attempts + 1;
    showState(words.lost, "warn");
    setTimeout(connect, Math.random() * Math.min(10_000, 1000 * 2 ** attempts));
  };
}

document.documentElement.addEventListener("frozen", draw);
connect();
setInterval(speak, SPEAK);
setInterval(recordRate, 1000);
