// Receives snapshots over a WebSocket. Numbers are drawn by result.js; when anything else has changed (the question, the
// state, what is visible), <main> is fetched and replaced, so that a big screen stays in full screen. A snapshot older
// than the one shown is ignored. A lost connection is opened again, with exponential backoff and jitter.
"use strict";

const SILENCE = 40_000; // ms after which the connection is closed; the server sends at least every 15 s
const SPREAD = document.getElementById("full") ? 0 : 1000; // ms in which pages fetch, so that not all do at once
const CLOSE_DELETED = 4404; // close code of result/hub.py
let attempts = 0;
let shown = $("result").dataset; // of the page
let revision = Number(shown.revision);
let replacing = 0; // the timer or the fetch that replaces the page
let newest = null; // the snapshot that came last
let wanted = ""; // what it is about

// What the page is about, as page_context.py writes it: with another, numbers cannot be drawn into it.
function aboutOf({ poll, version, total: sum, options, session }) {
  const keys = options ? options.map(({ key }) => key).join(" ") : "";
  const place = session ? `${session.position ?? ""}/${session.polls} ${session.title}` : "";
  return `${poll ?? ""} ${version} ${sum === null || sum === undefined ? "hidden" : "shown"} ${keys} ${place}`;
}

function replaceSoon(milliseconds) {
  if (!replacing) replacing = setTimeout(replace, milliseconds);
}

async function replace() {
  const sent = Date.now();
  try {
    const response = await fetch(location.href, { signal: AbortSignal.timeout(5000) });
    noteServerTime(response, sent);
    if (response.status >= 500 || response.status === 429) throw new Error("later");
    const next = new DOMParser().parseFromString(await response.text(), "text/html");
    if (!next.getElementById("result")) { // the poll was deleted
      location.reload();
      return;
    }
    document.querySelector("main").replaceWith(next.querySelector("main"));
    document.title = next.title;
    shown = $("result").dataset;
    revision = Number(shown.revision);
    bind();
    replacing = 0;
    if (wanted && shown.about !== wanted) replaceSoon(500);
    else if (newest?.revision > revision) receive(newest);
    else if (newest) showStateOf(newest);
  } catch {
    replacing = setTimeout(replace, 1000 + 1000 * Math.random());
  }
}

function receive(snapshot) {
  newest = snapshot;
  wanted = aboutOf(snapshot);
  if (snapshot.poll === shown.poll && snapshot.revision < revision) { // a replica that lags, or a restored database
    showState(words.behind, "warn");
    return;
  }
  if (wanted !== shown.about) {
    if (!frozen()) replaceSoon(SPREAD * Math.random());
    return;
  }
  revision = snapshot.revision ?? 0;
  showStateOf(snapshot);
  latest = snapshot;
  if (!drawing) drawing = requestAnimationFrame(draw);
}

function connect() {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${shown.ws}`);
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
    if (code === CLOSE_DELETED) {
      setTimeout(() => location.reload(), 1000 + 2000 * Math.random());
      return;
    }
    attempts = openedAt && Date.now() - openedAt > 5000 ? 0 : attempts + 1;
    showState(words.lost, "warn");
    setTimeout(connect, Math.random() * Math.min(10_000, 1000 * 2 ** attempts));
  };
}

document.documentElement.addEventListener("frozen", () => { if (!frozen() && wanted && wanted !== shown.about) replaceSoon(0); });
connect();
