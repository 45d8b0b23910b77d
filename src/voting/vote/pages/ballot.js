// Sends a vote without loading a page; the form also works without this script. After 5xx, 429 or a network error the
// last vote is sent again. This is safe, because votes with the same cookie or voting code replace each other. With the
// field `ballot`, which only this page sends, the server refuses a vote without the cookie. codes.js is loaded where polls
// may need a voting code.
//
// follow.js replaces the element `page` when the poll changes; `showBallot` then shows what this browser chose in it.
"use strict";

const byId = (id) => document.getElementById(id);
let page; // the element with the poll, and its state in data-…
let texts;
let order = []; // the keys of a ranking, as chosen
let vote = null; // the vote that is being sent, until it is accepted or refused
let lastRefusal = ""; // since the last vote; shown also on the page that replaces this one
let sending = false;
let attempts = 0;
let timer = 0;
let notBefore = 0; // earliest time of the next request, in milliseconds since the epoch (Retry-After)

const isSeveral = () => page.dataset.kind === "multiple" || page.dataset.kind === "ranking";
const fields = () => [...page.querySelectorAll("#ballot button[value], #ballot input[type=checkbox]")];
const labelOf = (field) => field.closest(".option, .step").querySelector(".label").textContent;

// Set the text of an element. Each {name} becomes a value, which keeps its own writing direction.
function setText(element, text, values = {}) {
  element.replaceChildren(...text.split(/({\w+})/).map((part) => {
    if (!/^{\w+}$/.test(part) || !(part.slice(1, -1) in values)) return part;
    const isolated = document.createElement("bdi");
    isolated.textContent = values[part.slice(1, -1)];
    return isolated;
  }));
}

function plural(forms, number) {
  const language = document.documentElement.lang;
  const text = forms[new Intl.PluralRules(language).select(number)] ?? forms.other;
  return text.replace("{n}", new Intl.NumberFormat(language, { numberingSystem: "latn" }).format(number));
}

function showMessage(text, { labels = [], problem = false, receipt = "", tracker = "" } = {}) {
  const message = byId("status");
  if (!message) return;
  setText(message, text, labels.length ? { label: labels[0] } : {});
  message.classList.toggle("problem", problem);
  message.classList.toggle("done", Boolean(receipt));
  if (receipt && isSeveral()) {
    const list = document.createElement("ol");
    list.className = `chosen ${page.dataset.kind}`;
    for (const each of labels) {
      const item = document.createElement("li");
      setText(item, "{label}", { label: each });
      list.append(item);
    }
    message.append(list);
  }
  for (const [name, value] of Object.entries({ receipt, tracker })) {
    if (!value) continue;
    const small = document.createElement("small");
    setText(small, texts[name], { [name]: value });
    message.append(small);
  }
  for (const field of fields()) field.classList.toggle("sending", !isSeveral() && field.value === vote?.choice);
}

function sendIn(milliseconds) {
  clearTimeout(timer);
  timer = setTimeout(send, milliseconds);
}

// Send a vote. Return a receipt, the text of a refusal and whether it is for the voting code, or the reason to retry after
// at least `wait` seconds, and whether it may have been counted.
async function attempt({ action, ballot, choice, code }) {
  const sent = Date.now();
  try {
    const response = await fetch(action, {
      method: "POST",
      headers: { Accept: "application/json" },
      body: new URLSearchParams({ ballot, vote: choice, ...(code && { code }) }),
      signal: AbortSignal.timeout(5000),
    });
    noteServerTime(response, sent);
    if (response.ok) return await response.json();
    const problem = await response.json().catch(() => null); // a proxy may refuse in a format of its own
    if (response.status >= 500 || (response.status === 429 && !["new_voters", "wrong_codes"].includes(problem?.reason))) {
      return { retry: texts.busy, wait: Number(response.headers.get("Retry-After")) || 1, isUnsure: problem?.counted !== "no" };
    }
    if (response.status === 409) refreshIn(0); // the poll is not what the page shows
    const isCodeBad = ["no_code", "code_typo", "unknown_code"].includes(problem?.reason);
    return { refusal: problem?.detail ?? texts.refused.replace("{status}", response.status), isCodeBad };
  } catch {
    return { retry: texts.silent, wait: 0.5, isUnsure: true }; // offline, too slow, or not a response of the service
  }
}

async function send() {
  if (sending || !vote) return;
  sending = true;
  const sent = vote;
  const { receipt, tracker, ticket, refusal, isCodeBad, retry, wait, isUnsure } = await attempt(sent);
  sending = false;
  sent.isUnsure ||= isUnsure; // an earlier attempt may have been counted, although a later one is refused
  if (retry) {
    attempts += 1;
    notBefore = Date.now() + 1000 * wait;
    showMessage(`${retry} ${texts.again ?? ""}`, { labels: vote.labels, problem: true });
    sendIn(1000 * (wait + Math.random() * Math.min(10, 0.5 * 2 ** attempts)));
    return;
  }
  attempts = 0;
  if (sent === vote) vote = null;
  else sendIn(0); // another choice was made
  if (refusal) {
    lastRefusal = sent.isUnsure ? texts.unsure : refusal;
    if (!vote) showMessage(lastRefusal, { problem: true });
    if (isCodeBad && !vote) window.askForCode?.();
    return;
  }
  if (sent.code) window.codeAccepted?.();
  const accepted = { choice: sent.choice, labels: sent.labels, receipt, tracker, ticket };
  store(sent.key, accepted);
  if (!vote && sent.key === storageKey()) showAccepted(accepted, { marks: !isSeveral() });
}

// The vote service does not store choices, so the browser stores the last one of each round of a poll.
function storageKey() {
  return `vote ${page.dataset.poll} ${page.dataset.round} ${byId("question").textContent}`;
}

function store(key, accepted) {
  try {
    localStorage.setItem(key, JSON.stringify(accepted));
  } catch { /* storage is disabled; the vote is accepted */ }
}

// Store the vote of a page that answers the form, which was sent before this script was loaded.
function storeAnswer() {
  const [receipt, tracker] = [...page.querySelectorAll("#status small bdi")].map((each) => each.textContent);
  if (!receipt) return;
  const choice = chosenBy(page.querySelector("#ballot [aria-pressed=true]"));
  const ticket = new URLSearchParams(byId("result")?.search).get("ticket");
  store(storageKey(), { choice, labels: labelsOf(choice), receipt, tracker, ticket });
}

function stored() {
  try {
    return JSON.parse(localStorage.getItem(storageKey()));
  } catch {
    return null; // nothing is stored
  }
}

// A poll that was closed becomes final by itself. That changes nothing for voters.
const phaseOf = (state) => (state === "final" ? "closed" : state);
const isOver = () => phaseOf(page.dataset.state) === "closed";

// Show a vote that was accepted: on the options unless they are being changed, and in words.
function showAccepted({ choice, labels, receipt, tracker, ticket }, { marks = true } = {}) {
  showResultLink(ticket);
  if (isOver()) {
    if (byId("status")) setText(byId("status"), texts.yours, { label: labels.join(" · ") });
    byId("status")?.classList.add("done");
    showBallotsLink(tracker);
    return;
  }
  if (marks) mark(choice);
  showMessage(texts.thanks, { labels, receipt, tracker });
}

// Let the link to the published ballots look for this voter's.
function showBallotsLink(tracker) {
  if (tracker && byId("ballots")) byId("ballots").search = new URLSearchParams({ tracker });
}

// Show the link to a result that only voters see.
function showResultLink(ticket) {
  const result = byId("result");
  if (!ticket || !result || page.dataset.state !== "open") return;
  result.href = `${page.dataset.poll === "default" ? "" : `/p/${page.dataset.poll}`}/results?ticket=${ticket}`;
  result.hidden = false;
  byId("result-hint")?.remove();
}

// Mark the options of a choice as chosen.
function mark(choice) {
  const keys = isSeveral() ? [...choice] : [choice];
  order = page.dataset.kind === "ranking" ? keys : [];
  for (const field of fields()) {
    const place = keys.indexOf(field.value);
    if (field.type === "checkbox") field.checked = place >= 0;
    else field.setAttribute("aria-pressed", String(place >= 0));
    const badge = field.querySelector(".place");
    if (badge) badge.textContent = place < 0 ? "" : place + 1;
  }
  showLeft();
}

// Of several: say how many more can be chosen, and let no more be chosen.
function showLeft() {
  if (byId("clear")) byId("clear").hidden = !order.length;
  if (page.dataset.kind !== "multiple") return;
  const boxes = fields();
  const left = Number(page.dataset.limit) - boxes.filter((box) => box.checked).length;
  for (const box of boxes) box.disabled = left <= 0 && !box.checked;
  if (Number(page.dataset.limit) < boxes.length) byId("left").textContent = left > 0 ? plural(texts.left, left) : texts.full;
}

// Give an option the next place of a ranking, or take its place away.
function rank(button) {
  const place = order.indexOf(button.value);
  mark((place < 0 ? [...order, button.value] : order.filter((key) => key !== button.value)).join(""));
  setText(byId("left"), place < 0 ? texts.placed : texts.removed, { label: labelOf(button), n: order.length });
}

function chosenBy(submitter) {
  if (page.dataset.kind === "ranking") return order.join("");
  if (page.dataset.kind === "multiple") return fields().filter((box) => box.checked).map((box) => box.value).join("");
  return submitter?.value ?? "";
}

function labelsOf(choice) {
  const byKey = new Map(fields().map((field) => [field.value, labelOf(field)]));
  return (isSeveral() ? [...choice] : [choice]).map((key) => byKey.get(key));
}

// Show the ballot that is now in the page, with what this browser has chosen in it.
function showBallot() {
  page = byId("page");
  if (!page) return;
  texts = JSON.parse(page.dataset.texts);
  window.showCode?.();
  order = [];
  if (page.dataset.kind === "ranking") {
    order = fields().filter((field) => field.getAttribute("aria-pressed") === "true")
      .sort((one, other) => one.querySelector(".place").textContent - other.querySelector(".place").textContent)
      .map((field) => field.value);
  }
  const isMarked = page.querySelector("#ballot [aria-pressed=true], #ballot :checked");
  if (isMarked) storeAnswer();
  const accepted = !isMarked && stored();
  if (!accepted) showLeft();
  else if (isOver() || labelsOf(accepted.choice).join() === accepted.labels?.join()) showAccepted(accepted);
  if (lastRefusal) showMessage(lastRefusal, { problem: true });
  lastRefusal = "";
}

document.addEventListener("submit", (event) => {
  if (event.target.id !== "ballot") return;
  const choice = chosenBy(event.submitter);
  if (!AbortSignal.timeout) { // an older browser submits the form itself
    if (page.dataset.kind === "ranking") event.target.append(Object.assign(document.createElement("input"), { type: "hidden", name: "vote", value: choice }));
    return;
  }
  event.preventDefault();
  if (!choice) {
    showMessage(texts.empty, { problem: true });
    return;
  }
  vote = {
    action: event.target.action,
    ballot: event.target.elements.ballot.value,
    choice,
    code: event.target.elements.code?.value.trim(),
    labels: labelsOf(choice),
    key: storageKey(),
  };
  lastRefusal = "";
  showMessage(texts.sending, { labels: vote.labels });
  sendIn(Math.max(0, notBefore - Date.now()));
});
document.addEventListener("click", (event) => {
  const button = event.target.closest?.(".ranks .option");
  if (button) rank(button);
  if (event.target.id === "clear") mark("");
});
document.addEventListener("change", (event) => {
  if (event.target.type === "checkbox") showLeft();
});
window.addEventListener("online", () => sendIn(0));
showBallot();
