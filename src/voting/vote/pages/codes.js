// The voting code of this browser, until a vote with it was accepted: then the server sets a cookie that remembers it.
// A link brings it in the part of the address that no server gets: `#code=`. It is kept for the next polls, and taken out
// of the address, so that it is not in the history, and nobody copies it together with the link.
"use strict";

let votingCode = "";
let isCodePending = false; // it came from a link, and no vote with it was accepted

const codeKey = () => `code ${location.pathname}`;

// Keep the code while the tab is open, so that it is there after the page was loaded again.
function keepCode(code) {
  try {
    if (code) sessionStorage.setItem(codeKey(), code);
    else sessionStorage.removeItem(codeKey());
  } catch { /* storage is disabled */ }
}

function readCode() {
  const found = /^#code=([^&]{1,60})$/.exec(location.hash);
  if (found) history.replaceState(history.state, "", location.pathname + location.search);
  let code = found?.[1] ?? "";
  try {
    if (found) code = decodeURIComponent(code);
    else code = sessionStorage.getItem(codeKey()) ?? "";
  } catch { /* storage is disabled, or it is not percent-encoded */ }
  if (!code) return;
  votingCode = code;
  isCodePending = true;
  keepCode(code);
}

// Fill in the code that is not yet remembered. A code from a link replaces one that is remembered.
function showCode() {
  const field = document.getElementById("voting-code");
  if (!field || !votingCode || (field.closest("details") && !isCodePending)) return;
  field.value = votingCode;
  if (field.closest("details")) field.closest("details").open = true;
}

function codeAccepted() {
  isCodePending = false;
  keepCode("");
}

// Let the voter correct a code that was refused, or type one.
function askForCode() {
  keepCode("");
  const field = document.getElementById("voting-code");
  if (!field) return;
  if (field.closest("details")) field.closest("details").open = true;
  field.setAttribute("aria-invalid", "true");
  field.focus();
}

document.addEventListener("input", ({ target }) => {
  if (target.id !== "voting-code") return;
  votingCode = target.value;
  target.removeAttribute("aria-invalid");
});
window.addEventListener("hashchange", () => {
  readCode();
  showCode();
});
readCode();
