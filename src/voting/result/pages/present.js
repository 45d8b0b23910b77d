// The controls of the big screen, by key or button: full screen, hide the result, freeze it. They fade while nobody
// moves the mouse or presses a key. Keeps the display awake.
"use strict";

const IDLE = 3000; // ms
const page = document.documentElement;
const full = document.getElementById("full");
const hide = document.getElementById("hide");
const freeze = document.getElementById("freeze");
let idle = 0;

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

function wake() {
  page.classList.remove("idle");
  clearTimeout(idle);
  idle = setTimeout(() => page.classList.add("idle"), IDLE);
}
for (const name of ["pointermove", "pointerdown", "keydown", "focusin"]) document.addEventListener(name, wake);
wake();

async function stayAwake() {
  if (document.visibilityState === "visible") await navigator.wakeLock?.request("screen").catch(() => {});
}
document.addEventListener("visibilitychange", stayAwake);
stayAwake();
