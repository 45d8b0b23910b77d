// The editor of a poll: options are added, removed and moved without loading the page; Enter goes to the next field.
"use strict";

function setUpOptions(list, add) {
  const labels = JSON.parse(list.dataset.labels);
  const limit = Number(list.dataset.limit);
  const fields = () => [...list.querySelectorAll("input")];

  function number() {
    [...list.children].forEach((row, index) => {
      const say = (text) => text.replace("{n}", index + 1);
      const field = row.querySelector("input");
      field.id = `option-${index}`;
      field.placeholder = say(labels.option);
      row.querySelector("label").htmlFor = field.id;
      row.querySelector("label").textContent = say(labels.option);
      for (const button of row.querySelectorAll("button")) {
        const action = button.value.split(".")[0];
        button.value = `${action}.${index}`;
        button.setAttribute("aria-label", say(labels[action]));
      }
    });
    add.hidden = list.children.length >= limit;
  }

  function append(text = "") {
    if (list.children.length >= limit) return null;
    const row = list.firstElementChild.cloneNode(true);
    row.querySelector(".error")?.remove();
    const field = row.querySelector("input");
    field.value = text;
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-describedby");
    list.append(row);
    number();
    return field;
  }

  add.onclick = (event) => {
    event.preventDefault();
    append()?.focus();
  };

  list.onclick = (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    event.preventDefault();
    const row = button.closest("li");
    const action = button.value.split(".")[0];
    if (action === "remove") {
      const near = row.nextElementSibling ?? row.previousElementSibling;
      if (list.children.length > 2) row.remove();
      else row.querySelector("input").value = "";
      number();
      (row.isConnected ? row : near).querySelector("input").focus();
      return;
    }
    if (action === "up") row.previousElementSibling?.before(row);
    else row.nextElementSibling?.after(row);
    number();
    button.focus();
    if (document.activeElement !== button) row.querySelector("input").focus(); // the button is hidden at an end of the list
  };

  document.querySelector(".editor").addEventListener("keydown", (event) => {
    const field = event.target;
    if (event.key !== "Enter" || event.isComposing || field.tagName !== "INPUT") return;
    const place = fields().indexOf(field);
    if (field.id !== "question" && place < 0) return;
    event.preventDefault();
    if (!list.closest("fieldset").checkVisibility()) return;
    const next = fields()[place + 1];
    if (next) next.focus();
    else if (field.value.trim()) append()?.focus();
  });

  list.addEventListener("paste", (event) => { // several lines become several options
    const lines = (event.clipboardData?.getData("text") ?? "").split(/[\r\n]+/).map((line) => line.trim()).filter(Boolean);
    if (lines.length < 2 || !event.target.matches("input")) return;
    event.preventDefault();
    let field = event.target;
    lines.forEach((line, index) => {
      if (index) field = fields()[fields().indexOf(field) + 1] ?? append();
      if (field) field.value = line;
    });
    field?.focus();
  });
}

const options = document.getElementById("options");
if (options) setUpOptions(options, document.getElementById("add")); // they cannot be changed in a poll with votes

// Times: the page has them in UTC, the fields show those of this browser, and the hidden fields send its offset.
const two = (value) => String(value).padStart(2, "0");
for (const field of document.querySelectorAll("[data-zone]")) {
  const zone = document.getElementById(field.dataset.zone);
  if (field.value && !zone.value) {
    const at = new Date(`${field.value}Z`);
    if (!isNaN(at)) field.value = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}T${two(at.getHours())}:${two(at.getMinutes())}`;
  }
  const send = () => {
    const minutes = -new Date(field.value || Date.now()).getTimezoneOffset();
    const size = Math.abs(minutes);
    zone.value = `${minutes < 0 ? "-" : "+"}${two(Math.floor(size / 60))}:${two(size % 60)}`;
  };
  field.addEventListener("input", send);
  send();
}
const hint = document.getElementById("zone-hint");
if (hint) hint.textContent = hint.dataset.local.replace("{zone}", Intl.DateTimeFormat().resolvedOptions().timeZone);
