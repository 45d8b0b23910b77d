// Sends a vote without loading a page; the form also works without this script. After 5xx, 429 or a network error the
// last choice is sent again. This is safe, because votes with the same cookie replace each other. With the field
// `ballot`, which only this page sends, the server refuses a vote without the cookie.
"use strict";

const form = document.getElementById("ballot");
const message = document.getElementById("status");
const texts = JSON.parse(form.dataset.texts);
const buttons = [...form.querySelectorAll("button")];
let chosen = null; // the button last pressed, until its vote is accepted or refused
let sending = false;
let attempts = 0;
let timer = 0;
let notBefore = 0; // earliest time of the next request, in milliseconds since the epoch (Retry-After)

const label = (button) => button.querySelector(".label").textContent;

// Set the text of an element. Its one {placeholder} becomes `value`, which keeps its own writing direction.
function setText(element, text, value) {
  const [before, after] = text.split(/{\w+}/);
  element.replaceChildren(before);
  if (after === undefined) return;
  const isolated = document.createElement("bdi");
  isolated.textContent = value;
  element.append(isolated, after);
}

function showMessage(text, { value = "", problem = false, receipt = "", link = "" } = {}) {
  setText(message, text, value);
  message.classList.toggle("problem", problem);
  if (receipt) {
    const small = document.createElement("small");
    setText(small, texts.receipt, receipt);
    message.append(small);
  }
  if (link) {
    const anchor = document.createElement("a");
    anchor.href = form.action;
    anchor.textContent = link;
    message.append(" ", anchor);
  }
  for (const button of buttons) button.classList.toggle("sending", button === chosen);
}

function sendIn(milliseconds) {
  clearTimeout(timer);
  timer = setTimeout(send, milliseconds);
}

// Send a vote. Return a receipt, the text of a refusal, or the reason to retry after at least `wait` seconds.
async function attempt(choice) {
  try {
    const response = await fetch(form.action, {
      method: "POST",
      headers: { Accept: "application/json" },
      body: new URLSearchParams({ ballot: form.elements.ballot.value, vote: choice }),
      signal: AbortSignal.timeout(5000),
    });
    if (response.ok) return { receipt: (await response.json()).receipt };
    const problem = await response.json().catch(() => null); // a proxy may refuse in a format of its own
    if (response.status >= 500 || (response.status === 429 && problem?.reason !== "new_voters")) {
      return { retry: texts.busy, wait: Number(response.headers.get("Retry-After")) || 1 };
    }
    const link = problem?.reason === "poll_changed" ? texts.back : "";
    return { refusal: problem?.detail ?? texts.refused.replace("{status}", response.status), link };
  } catch {
    return { retry: texts.silent, wait: 0.5 }; // offline, too slow, or not a response of the service
  }
}

async function send() {
  if (sending || !chosen) return;
  sending = true;
  const button = chosen;
  const { receipt, refusal, link, retry, wait } = await attempt(button.value);
  sending = false;
  if (retry) {
    attempts += 1;
    notBefore = Date.now() + 1000 * wait;
    showMessage(`${retry} ${texts.again}`, { value: label(chosen), problem: true });
    sendIn(1000 * (wait + Math.random() * Math.min(10, 0.5 * 2 ** attempts)));
    return;
  }
  attempts = 0;
  if (button !== chosen) { // another button was pressed
    sendIn(0);
    return;
  }
  chosen = null;
  if (refusal) {
    showMessage(refusal, { problem: true, link });
    return;
  }
  storeReceipt(button, receipt);
  showReceipt(button, receipt);
}

function showReceipt(button, receipt) {
  for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
  showMessage(texts.thanks, { value: label(button), receipt });
}

// The vote service does not store choices, so the browser stores the last one for the next time the page is loaded.
const storageKey = `vote ${form.getAttribute("action")} ${document.title}`;

function storeReceipt(button, receipt) {
  try {
    localStorage.setItem(storageKey, JSON.stringify({ label: label(button), receipt }));
  } catch { /* storage is disabled; the vote is accepted */ }
}

function restoreReceipt() {
  try {
    const { label: stored, receipt } = JSON.parse(localStorage.getItem(storageKey)) ?? {};
    const button = buttons.find((each) => label(each) === stored);
    if (button) showReceipt(button, receipt);
  } catch { /* nothing is stored */ }
}

form.addEventListener("submit", (event) => {
  if (!event.submitter || !AbortSignal.timeout) return; // an older browser submits the form itself
  event.preventDefault();
  chosen = event.submitter;
  showMessage(texts.sending, { value: label(chosen) });
  sendIn(Math.max(0, notBefore - Date.now()));
});
window.addEventListener("online", () => sendIn(0));
if (!buttons.some((button) => button.ariaPressed === "true")) restoreReceipt();
