// Keeps the page in step with the poll, or with the session's current poll. The result service sends a frame over a
// WebSocket when something changes. What it says is shown at once in words; then the page is fetched again, and its
// element `page` is replaced. The vote service may hear of a change some milliseconds later, so the page is fetched until
// it is as new as the frame. Without a WebSocket the page is fetched every five seconds.
"use strict";

const SILENCE = 40_000; // ms after which the connection is closed; the server sends at least every 15 s
const POLL = 5_000; // ms between two fetches without a connection
const SPREAD = 150; // ms over which the pages of an audience are fetched
const CLOSE_DELETED = 4404; // close code of result/hub.py
let socket = null;
let lost = 0; // connections that could not be opened, one after the other
let wanted = null; // the last frame that is newer than the page
let fetches = 0; // since that frame
let fetching = false;
let fetchAgain = false;
let fetchTimer = 0;
let asked = 0; // the due time for which the page was fetched last
let spoken = 0; // the due time of which the last seconds were announced

function notice(text) {
  byId("notice").classList.toggle("unseen", !text);
  if (text || byId("notice").textContent) byId("notice").textContent = text;
}

// Say in words, for screen readers, what the page shows now.
function announce() {
  byId("notice").textContent = `${texts[page.dataset.state] ?? ""} ${byId("question").textContent}`;
}

const isCurrent = ({ poll, version }) => (poll ?? "") === page.dataset.poll && version <= Number(page.dataset.version);

function receive(frame) {
  if (isCurrent(frame)) {
    if (wanted) notice("");
    wanted = null;
    return;
  }
  wanted = frame;
  fetches = 0;
  if ((frame.poll ?? "") !== page.dataset.poll) notice(texts.next);
  else if (phaseOf(frame.state) !== phaseOf(page.dataset.state) || frame.round !== Number(page.dataset.round)) {
    notice(texts[frame.state]);
    if (frame.state !== "open") for (const each of page.querySelectorAll("fieldset, .send button")) each.disabled = true;
  }
  refreshIn(SPREAD * Math.random());
}

function refreshIn(milliseconds) {
  clearTimeout(fetchTimer);
  fetchTimer = setTimeout(refresh, milliseconds);
}

async function refresh() {
  fetchAgain = fetching;
  if (fetching) return;
  fetching = true;
  const next = await fetchPage();
  fetching = false;
  if (next) show(next);
  if (fetchAgain) refreshIn(0);
  else if (wanted && !isCurrent(wanted)) refreshIn(Math.min(POLL, 50 * 2 ** fetches++) * (0.5 + Math.random()));
  else if (wanted) {
    wanted = null;
    byId("notice").classList.add("unseen");
  }
}

// Return the new element `page`; null if there was no answer.
async function fetchPage() {
  const sent = Date.now();
  try {
    const response = await fetch(page.dataset.here, { headers: { Accept: "text/html" }, cache: "no-store", signal: AbortSignal.timeout(5000) });
    noteServerTime(response, sent);
    if (response.status === 404) location.assign(page.dataset.here); // deleted
    if (!response.ok) return null;
    const next = new DOMParser().parseFromString(await response.text(), "text/html").getElementById("page");
    for (const each of next.querySelectorAll("noscript")) each.remove(); // the parser runs without scripts
    return next;
  } catch {
    return null;
  }
}

// Show a fetched page. If it asks the same and takes votes as before, only what may have changed is replaced, so that
// nothing is lost of what is being chosen.
function show(next) {
  const [before, after] = [page.dataset, next.dataset];
  const ballotOf = (element) => element.querySelector("[name=ballot]")?.value;
  const isAsBefore = ["poll", "round", "access"].every((name) => before[name] === after[name]) && phaseOf(before.state) === phaseOf(after.state);
  if (isAsBefore && ballotOf(page) === ballotOf(next)) {
    if (before.version !== after.version) update(next);
    return;
  }
  const hadFocus = page.contains(document.activeElement);
  const isOther = before.poll !== after.poll;
  page.replaceWith(next);
  document.title = byId("question").textContent;
  showBallot();
  showDue();
  announce();
  if (hadFocus) {
    byId("question").tabIndex = -1;
    byId("question").focus({ preventScroll: true });
  }
  if (isOther) window.scrollTo(0, 0);
}

function update(next) {
  for (const id of ["due", "after", "check", "question"]) {
    if (byId(id) && next.querySelector(`#${id}`)) byId(id).replaceWith(next.querySelector(`#${id}`));
  }
  page.querySelector(".kicker")?.replaceWith(next.querySelector(".kicker") ?? "");
  delete page.dataset.due;
  Object.assign(page.dataset, next.dataset);
  const accepted = stored();
  showResultLink(accepted?.ticket);
  showBallotsLink(accepted?.tracker);
  showDue();
}

// Show when the poll opens or closes.
function showDue() {
  const due = 1000 * Number(page.dataset.due);
  if (!due || !byId("due") || !isServerTimeKnown()) return;
  const seconds = secondsUntil(due);
  const text = dueText(due, texts.due);
  if (byId("due").textContent !== text) byId("due").textContent = text;
  byId("due").classList.toggle("soon", page.dataset.state === "open" && seconds <= 15);
  if (seconds <= 10 && seconds > 0 && spoken !== due) {
    spoken = due;
    byId("notice").textContent = text;
  }
  if (seconds <= 0 && serverTime() - asked > 2000) {
    asked = serverTime();
    refreshIn(SPREAD * Math.random());
  }
}

function connect() {
  const { result, port, socket: path } = page.dataset;
  const base = result.replace(/\/+$/, "") || `${location.protocol}//${location.hostname}:${port}`;
  let openedAt = 0;
  let silence = 0;
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(() => socket.close(), SILENCE);
  };
  try {
    socket = new WebSocket(base.replace(/^http/, "ws") + path);
  } catch {
    return; // not allowed here, as from a page that came over HTTPS: the page is fetched instead
  }
  heard();
  socket.onopen = () => { openedAt = Date.now(); };
  socket.onmessage = ({ data }) => {
    heard();
    receive(JSON.parse(data));
  };
  socket.onclose = ({ code }) => {
    clearTimeout(silence);
    if (code === CLOSE_DELETED) refreshIn(SPREAD * Math.random());
    lost = openedAt && Date.now() - openedAt > 5000 ? 0 : lost + 1;
    setTimeout(connect, Math.random() * Math.min(10_000, 1000 * 2 ** lost));
  };
}

// Without a connection, fetch the page instead, while somebody looks at it.
function poll() {
  setTimeout(poll, POLL + 1000 * Math.random());
  if (socket?.readyState !== WebSocket.OPEN && document.visibilityState === "visible") refreshIn(0);
}

if (page && AbortSignal.timeout) {
  connect();
  setTimeout(poll, POLL);
  setInterval(showDue, 250);
  if (page.dataset.due) readServerTime(page.dataset.here);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible" && socket?.readyState !== WebSocket.OPEN) refreshIn(0);
  });
}
