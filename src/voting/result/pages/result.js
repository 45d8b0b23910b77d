// Follows the result over a WebSocket. Each message is one whole snapshot; one that is older than what is shown is
// ignored, so the numbers never jump back. A lost connection is made again with growing, jittered waits.
"use strict";

const tally = document.getElementById("tally");
const state = document.getElementById("state");
const spoken = document.getElementById("spoken");
const number = new Intl.NumberFormat();
const SILENCE = 40_000; // the server sends at least every 15 s
let revision = Number(tally.dataset.revision); // of what is shown
let tries = 0;
let latest = null; // the snapshot to draw in the next animation frame
let spokenAt = 0;

const votes = (count) => `${number.format(count)} ${count === 1 ? "vote" : "votes"}`;
const clock = (iso) => new Date(iso).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

function condition(text, warn) {
  if (state.textContent !== text) state.textContent = text;
  state.classList.toggle("warn", warn);
}

function describe(snapshot) {
  if (snapshot.stale_since) condition(`Last known result, from ${clock(snapshot.stale_since)}`, true);
  else if (snapshot.paused_since) condition(`Counting paused since ${clock(snapshot.paused_since)}`, true);
  else if (snapshot.waiting > 0) condition(`Live, ${number.format(snapshot.waiting)} waiting to be counted`, false);
  else condition("Live", false);
}

function draw() {
  const snapshot = latest;
  latest = null;
  const rows = new Map([...tally.children].map((row) => [row.dataset.key, row]));
  const same = snapshot.options.every((o) => rows.get(o.key)?.querySelector(".label").textContent === o.label);
  if (!same || rows.size !== snapshot.options.length) {
    location.reload(); // the poll itself has changed
    return;
  }
  for (const option of snapshot.options) {
    const row = rows.get(option.key);
    const share = snapshot.total ? (100 * option.votes) / snapshot.total : 0;
    row.querySelector(".share").textContent = `${share.toFixed(1)} %`;
    row.querySelector(".votes").textContent = votes(option.votes);
    row.querySelector("progress").value = share;
  }
  document.getElementById("total").textContent = votes(snapshot.total);
  if (Date.now() - spokenAt > 5000) {
    spokenAt = Date.now();
    spoken.textContent = snapshot.options.map((o) => `${o.label}: ${votes(o.votes)}`).join(", ");
  }
}

function connect() {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${tally.dataset.ws}`);
  let opened = 0;
  let silence = setTimeout(() => socket.close(), SILENCE);
  socket.onopen = () => { opened = Date.now(); };
  socket.onmessage = (message) => {
    clearTimeout(silence);
    silence = setTimeout(() => socket.close(), SILENCE);
    const snapshot = JSON.parse(message.data);
    if (snapshot.revision < revision) return;
    revision = snapshot.revision;
    describe(snapshot);
    if (!latest) requestAnimationFrame(draw);
    latest = snapshot;
  };
  socket.onclose = () => {
    clearTimeout(silence);
    tries = opened && Date.now() - opened > 5000 ? 0 : tries + 1;
    condition("Connection lost, reconnecting …", true);
    setTimeout(connect, Math.random() * Math.min(10_000, 1000 * 2 ** tries));
  };
}

connect();
