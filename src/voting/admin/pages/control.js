// The control pages: sends their forms without loading the page, and shows the numbers of every second.
// The numbers come from the API. When the poll or the session has changed, the page itself is read again, so that its
// words come from one place, the server.
"use strict";

const EVERY = 1000; // milliseconds
const LIMIT = 5000;
const SETTLE = 400; // a second tap on the same place is not meant for the button that has just come there
const spoken = document.getElementById("spoken");
let control = document.getElementById("control");
let busy = false;

async function read(url, options = {}) {
  const sent = Date.now();
  const answer = await fetch(url, { signal: AbortSignal.timeout(LIMIT), ...options });
  noteServerTime(answer, sent);
  return answer;
}

function swap(html) {
  const page = new DOMParser().parseFromString(html, "text/html");
  const next = page.getElementById("control");
  if (!next) return;
  const focused = document.activeElement;
  const place = control.contains(focused) && { id: focused.id, name: focused.value, main: focused.matches(".main") };
  const before = control.querySelector(".condition")?.textContent;
  control.replaceWith(next);
  control = next;
  enhance(control);
  tick();
  if (place) {
    const same = (place.id && document.getElementById(place.id)) || [...control.querySelectorAll("button")].find((button) => button.value === place.name);
    (same ?? control.querySelector(".main")).focus({ preventScroll: true });
  }
  const heading = control.querySelector("h1").textContent;
  const condition = control.querySelector(".condition .pill")?.textContent ?? "";
  if (before !== control.querySelector(".condition")?.textContent) spoken.textContent = `${heading} ${condition}`;
  document.title = page.title;
  control.classList.add("settling");
  setTimeout((settled) => settled.classList.remove("settling"), SETTLE, control);
}

function complain(text) {
  const trouble = control.querySelector("#trouble");
  if (trouble.textContent !== text) trouble.textContent = text;
  trouble.hidden = !text;
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("[data-swap]")) return;
  event.preventDefault();
  if (busy) return;
  busy = true;
  event.submitter?.setAttribute("aria-busy", "true");
  try {
    const answer = await read(form.action, { method: "POST", body: new URLSearchParams(new FormData(form, event.submitter)) });
    const html = await answer.text();
    if (answer.ok) swap(html);
    else await refused(html);
  } catch {
    complain(control.dataset.lost);
  }
  event.submitter?.removeAttribute("aria-busy");
  busy = false;
});

async function refused(html) {
  const page = new DOMParser().parseFromString(html, "text/html");
  const text = page.getElementById("problem")?.textContent.trim() || page.title;
  await reload().catch(() => {});
  complain(text);
  said = performance.now();
}
let said = -Infinity; // when a refusal was shown: it stays for some seconds

async function reload() {
  const answer = await read(location.href);
  if (answer.ok) swap(await answer.text());
}

async function look() {
  const { poll, session, version, sessionVersion } = control.dataset;
  const urls = [...(poll ? [`/api/polls/${poll}`] : []), ...(session ? [`/api/sessions/${session}`] : [])];
  const answers = await Promise.all(urls.map((url) => read(url)));
  if (busy) return; // what the button does comes next
  if (answers.some((answer) => answer.status === 401 || answer.status === 403 || answer.status === 404)) return location.reload();
  if (answers.some((answer) => !answer.ok)) throw new Error("not now");
  const found = await Promise.all(answers.map((answer) => answer.json()));
  if (busy) return;
  const shown = poll && found[0];
  const meeting = session && found.at(-1);
  if ((shown && String(shown.changed) !== version) || (meeting && String(meeting.changed) !== sessionVersion)) return reload();
  if (meeting) control.querySelector("#people").textContent = number.format(meeting.people);
  if (shown) draw(shown);
}

function draw(poll) {
  control.querySelector("#total").textContent = number.format(poll.total);
  control.querySelector("#waiting").hidden = !poll.waiting || poll.state === "closed"; // which says so already
  const mean = control.querySelector("#mean");
  if (mean) mean.textContent = poll.mean === null ? "–" : decimal.format(poll.mean);
  const isRanking = poll.kind === "ranking";
  const bars = lengths(poll);
  const rows = new Map([...control.querySelectorAll("#bars li")].map((row) => [row.dataset.key, row]));
  poll.options.forEach((option, index) => {
    const row = rows.get(option.key);
    if (!row) return;
    const length = bars[index];
    row.querySelector(".value").textContent = isRanking ? number.format(option.points) : `${number.format(option.votes)} · ${percent.format(length / 100)}`;
    row.querySelector("progress").value = length;
  });
}

function tick() {
  const clock = control.querySelector("#countdown");
  if (!clock || !isServerTimeKnown()) return;
  const full = clock.dataset.text.replace("{time}", duration(Math.max(0, secondsUntil(1000 * clock.dataset.at))));
  if (clock.textContent !== full) clock.textContent = full;
}

let timer;
async function beat() {
  clearTimeout(timer);
  if (document.hidden) return; // visibilitychange begins again
  let trouble = "";
  try {
    if (!busy) await look();
  } catch {
    trouble = control.dataset.lost;
  }
  if (performance.now() - said > 6000) complain(trouble);
  clearTimeout(timer);
  timer = setTimeout(beat, EVERY);
}

document.addEventListener("visibilitychange", beat);
setInterval(tick, 200);
timer = setTimeout(beat, EVERY);
