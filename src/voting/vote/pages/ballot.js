// One tap votes without a page load. The form works without this script; here it only gets quicker and more patient:
// what the server could not take (5xx, 429, no network) is sent again, always the last choice alone. The voter's
// cookie makes that safe: however often it arrives, it is one vote. The field `ballot` says that this page sends it; the
// server then refuses it without the cookie.
"use strict";

const form = document.getElementById("ballot");
const said = document.getElementById("said");
const words = JSON.parse(form.dataset.words);
const buttons = [...form.querySelectorAll("button")];
let wanted = null; // the button last tapped, until its vote is in or refused
let sending = false;
let tries = 0;
let timer = 0;
let notBefore = 0; // the server asked us to leave it alone until then

const label = (button) => button.querySelector(".label").textContent;

// Put a text into an element; the one {place} in it becomes a value that keeps its own direction of writing.
function put(element, text, value) {
  const [before, after] = text.split(/{\w+}/);
  element.replaceChildren(before);
  if (after === undefined) return;
  const isolated = document.createElement("bdi");
  isolated.textContent = value;
  element.append(isolated, after);
}

function say(text, { value = "", problem = false, receipt = "", link = "" } = {}) {
  put(said, text, value);
  said.classList.toggle("problem", problem);
  if (receipt) {
    const small = document.createElement("small");
    put(small, words.receipt, receipt);
    said.append(small);
  }
  if (link) {
    const anchor = document.createElement("a");
    anchor.href = form.action;
    anchor.textContent = link;
    said.append(" ", anchor);
  }
  for (const button of buttons) button.classList.toggle("sending", button === wanted);
}

function sendIn(milliseconds) {
  clearTimeout(timer);
  timer = setTimeout(send, milliseconds);
}

// What became of one attempt: a receipt, a refusal in words, or the reason to try again after at least `wait` seconds.
async function attempt(choice) {
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      headers: { Accept: "application/json" },
      body: new URLSearchParams({ ballot: form.elements.ballot.value, vote: choice }),
      signal: AbortSignal.timeout(5000),
    });
    if (answer.ok) return { receipt: (await answer.json()).receipt };
    const problem = await answer.json().catch(() => null); // a proxy may refuse in its own words
    if (answer.status >= 500 || (answer.status === 429 && problem?.reason !== "new_voters")) {
      return { again: words.busy, wait: Number(answer.headers.get("Retry-After")) || 1 };
    }
    const link = problem?.reason === "poll_changed" ? words.back : "";
    return { refusal: problem?.detail ?? words.refused.replace("{status}", answer.status), link };
  } catch {
    return { again: words.silent, wait: 0.5 }; // offline, too slow, or an answer that is not ours
  }
}

async function send() {
  if (sending || !wanted) return;
  sending = true;
  const button = wanted;
  const { receipt, refusal, link, again, wait } = await attempt(button.value);
  sending = false;
  if (again) {
    tries += 1;
    notBefore = Date.now() + 1000 * wait;
    say(`${again} ${words.again}`, { value: label(wanted), problem: true });
    sendIn(1000 * (wait + Math.random() * Math.min(10, 0.5 * 2 ** tries)));
    return;
  }
  tries = 0;
  if (button !== wanted) { // another was tapped meanwhile
    sendIn(0);
    return;
  }
  wanted = null;
  if (refusal) {
    say(refusal, { problem: true, link });
    return;
  }
  remember(button, receipt);
  thank(button, receipt);
}

function thank(button, receipt) {
  for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
  say(words.thanks, { value: label(button), receipt });
}

// The server has no word of what this browser chose (it only hands votes on), so the browser keeps it for a reload.
const memory = `vote ${form.getAttribute("action")} ${document.title}`;

function remember(button, receipt) {
  try {
    localStorage.setItem(memory, JSON.stringify({ label: label(button), receipt }));
  } catch { /* storage is off: the vote is in all the same */ }
}

function recall() {
  try {
    const { label: chosen, receipt } = JSON.parse(localStorage.getItem(memory)) ?? {};
    const button = buttons.find((each) => label(each) === chosen);
    if (button) thank(button, receipt);
  } catch { /* nothing to recall */ }
}

form.addEventListener("submit", (event) => {
  if (!event.submitter || !AbortSignal.timeout) return; // an older browser sends the form itself
  event.preventDefault();
  wanted = event.submitter;
  say(words.sending, { value: label(wanted) });
  sendIn(Math.max(0, notBefore - Date.now()));
});
window.addEventListener("online", () => sendIn(0));
if (!buttons.some((button) => button.ariaPressed === "true")) recall();
