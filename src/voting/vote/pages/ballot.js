// One tap votes without a page load. The form works without this script; here it only gets quicker and more patient:
// what the server could not take (5xx, 429, no network) is sent again, always the last choice alone. The voter's
// cookie makes that safe: however often it arrives, it is one vote.
"use strict";

const form = document.getElementById("ballot");
const said = document.getElementById("said");
const buttons = [...form.querySelectorAll("button")];
let wanted = null; // the button last tapped, until its vote is in or refused
let sending = false;
let tries = 0;
let timer = 0;
let notBefore = 0; // the server asked us to leave it alone until then

const label = (button) => button.querySelector(".label").textContent;

function say(text, { problem = false, receipt = "" } = {}) {
  said.textContent = text;
  said.classList.toggle("problem", problem);
  if (receipt) {
    const small = document.createElement("small");
    small.textContent = `Receipt ${receipt}`;
    said.append(small);
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
      body: new URLSearchParams({ vote: choice }),
      signal: AbortSignal.timeout(5000),
    });
    if (answer.ok) return { receipt: (await answer.json()).receipt };
    if (answer.status >= 500 || answer.status === 429) {
      return { again: "Voting is busy just now.", wait: Number(answer.headers.get("Retry-After")) || 1 };
    }
    const told = await answer.json().catch(() => null); // a proxy may refuse in its own words
    return { refusal: told?.error?.message ?? `The vote was refused (${answer.status}). Load this page again and vote.` };
  } catch {
    return { again: "No answer from the server just now.", wait: 0.5 }; // offline, too slow, or an answer that is not ours
  }
}

async function send() {
  if (sending || !wanted) return;
  sending = true;
  const button = wanted;
  const { receipt, refusal, again, wait } = await attempt(button.value);
  sending = false;
  if (again) {
    tries += 1;
    notBefore = Date.now() + 1000 * wait;
    say(`${again} Your vote for ${label(wanted)} will be sent again in a moment; keep this page open.`, { problem: true });
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
    say(refusal, { problem: true });
    return;
  }
  for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
  say(`Your vote for ${label(button)} is in. Choose another to change it.`, { receipt });
}

form.addEventListener("submit", (event) => {
  if (!event.submitter || !AbortSignal.timeout) return; // an older browser sends the form itself
  event.preventDefault();
  wanted = event.submitter;
  say(`Sending your vote for ${label(wanted)} …`);
  sendIn(Math.max(0, notBefore - Date.now()));
});
window.addEventListener("online", () => sendIn(0));
