// The server's time, by the header Date of its responses, because the clock of a device may be wrong; and the words for
// the time at which a poll opens or closes.
"use strict";

const DATE_ERROR = 2_000; // ms by which the header Date may be behind
const ahead = { least: -Infinity, most: Infinity }; // the server's clock minus ours, in ms, lies between these two

// Narrow down the difference of the clocks by the response to a request sent at `sent`.
function noteServerTime(response, sent) {
  const date = Date.parse(response.headers.get("Date"));
  if (!date) return;
  const [low, high] = [date - Date.now(), date + DATE_ERROR - sent];
  [ahead.least, ahead.most] = [Math.max(ahead.least, low), Math.min(ahead.most, high)];
  if (ahead.least > ahead.most) [ahead.least, ahead.most] = [low, high]; // a clock was set
}

const isServerTimeKnown = () => ahead.most !== Infinity;
const serverTime = () => Date.now() + (ahead.least + ahead.most) / 2;

// Learn the server's time with a request of its own, for a page that shows a time when it is loaded.
async function readServerTime(url) {
  const sent = Date.now();
  try {
    noteServerTime(await fetch(url, { method: "HEAD", cache: "no-store" }), sent);
  } catch {
    setTimeout(readServerTime, 2000 + 3000 * Math.random(), url);
  }
}

// As [h:]m:ss, from left to right in each language.
function duration(seconds) {
  const pad = (value) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return `\u2066${hours ? `${hours}:${pad(minutes)}` : minutes}:${pad(seconds % 60)}\u2069`;
}

const secondsUntil = (due) => Math.ceil((due - serverTime()) / 1000);

// The words for a time in ms: the time that is left, if it is less than an hour; else the time of the day here.
function dueText(due, texts) {
  const seconds = secondsUntil(due);
  if (seconds <= 0) return texts.now;
  return seconds < 3600 ? texts.in.replace("{time}", duration(seconds)) : texts.at.replace("{time}", dayAndTime(due));
}

function dayAndTime(due) {
  const at = new Date(due + Date.now() - serverTime());
  const day = at.toDateString() === new Date().toDateString() ? {} : { month: "short", day: "numeric" };
  return new Intl.DateTimeFormat(document.documentElement.lang, { ...day, numberingSystem: "latn", hour: "2-digit", minute: "2-digit" }).format(at);
}
