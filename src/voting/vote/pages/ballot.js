// One tap votes without a page load. The form works without this script; here it only gets quicker and more patient:
// what the server could not take (503, 429, no network) is sent again, always the last choice alone. The voter's
// cookie makes that safe: however often it arrives, it is one vote.
"use strict";

const form = document.getElementById("ballot");
const said = document.getElementById("said");
const buttons = [...form.querySelectorAll("button")];
let wanted = null; // the button last tapped
let sending = false;
let tries = 0;

function say(text, { problem = false, receipt = "" } = {}) {
  said.textContent = text;
  said.classList.toggle("problem", problem);
  if (receipt) {
    const small = document.createElement("small");
    small.textContent = `Receipt ${receipt}`;
    said.append(small);
  }
}

function mark(chosen) {
  for (const button of buttons) button.setAttribute("aria-pressed", String(button === chosen));
}

function again(button, seconds) {
  tries += 1;
  const wait = Math.max(seconds, Math.min(10, 0.5 * 2 ** tries)) * (1 + Math.random() / 2);
  say(`Not in yet: your vote for ${label(button)} will be sent again in a moment.`, { problem: true });
  setTimeout(send, wait * 1000);
}

const label = (button) => button.querySelector(".label").textContent;

async function send() {
  if (sending || !wanted) return;
  sending = true;
  const button = wanted;
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      headers: { Accept: "application/json" },
      body: new URLSearchParams({ vote: button.value }),
      signal: AbortSignal.timeout(5000),
    });
    if (answer.status === 503 || answer.status === 429) {
      again(button, Number(answer.headers.get("Retry-After")) || 1);
    } else if (answer.ok) {
      const { receipt } = await answer.json();
      tries = 0;
      if (button === wanted) {
        wanted = null;
        mark(button);
        say(`Your vote for ${label(button)} is in. Choose another to change it.`, { receipt });
      }
    } else {
      const { error } = await answer.json();
      wanted = null;
      say(error.message, { problem: true });
    }
  } catch {
    again(button, 1); // no network, no answer in time, or an answer that is not ours
  }
  sending = false;
  if (wanted && wanted !== button) send();
}

form.addEventListener("submit", (event) => {
  if (!event.submitter) return;
  event.preventDefault();
  wanted = event.submitter;
  say(`Sending your vote for ${label(wanted)} …`);
  send();
});
window.addEventListener("online", send);
