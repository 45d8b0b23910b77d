// The controls of the big screen, by key or button: full screen, hide the result, freeze it. Keeps the display awake.
"use strict";

const page = document.documentElement;
const full = document.getElementById("full");
const hide = document.getElementById("hide");
const freeze = document.getElementById("freeze");

function toggle(button, name) {
  const on = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(on));
  page.classList.toggle(name, on);
  page.dispatchEvent(new Event(name));
}

full.onclick = () => (document.fullscreenElement ? document.exitFullscreen() : page.requestFullscreen());
hide.onclick = () => toggle(hide, "hidden-result");
freeze.onclick = () => toggle(freeze, "frozen"); // result.js draws nothing while frozen

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const button = { f: full, h: hide, " ": freeze }[event.key.toLowerCase()];
  if (!button) return;
  event.preventDefault(); // Space would also press the focused button
  button.click();
});

async function stayAwake() {
  if (document.visibilityState === "visible") await navigator.wakeLock?.request("screen").catch(() => {});
}
document.addEventListener("visibilitychange", stayAwake);
stayAwake();
