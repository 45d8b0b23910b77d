// What all pages of the admin service share: copy and print buttons, times of the browser's zone, forms sent only once.
"use strict";

function enhance(root) {
  for (const button of root.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.onclick = () => copy(button);
  }
  for (const button of root.querySelectorAll("[data-print]")) {
    button.hidden = false;
    button.onclick = () => window.print();
  }
  const format = new Intl.DateTimeFormat(`${document.documentElement.lang}-u-nu-latn`, { dateStyle: "medium", timeStyle: "short" });
  for (const time of root.querySelectorAll("time")) time.textContent = format.format(new Date(time.dateTime));
  for (const field of root.querySelectorAll("input[readonly]")) field.onfocus = () => field.select();
}

async function copy(button) {
  const field = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(field.value);
  } catch { // pages without https have no clipboard
    field.select();
    document.execCommand("copy");
    button.focus();
  }
  const words = button.textContent;
  button.textContent = button.dataset.done;
  setTimeout(() => (button.textContent = words), 2000);
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("[data-once]")) return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
});
addEventListener("pageshow", () => { // also after Back, which shows a page as it was left
  for (const form of document.querySelectorAll("[data-sent]")) delete form.dataset.sent;
});

enhance(document);
