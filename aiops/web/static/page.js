"use strict";
// Keeps the page fresh and sends answers. Without scripts the page still shows everything.

const live = document.getElementById("live");
const notice = document.getElementById("notice");
const link = document.getElementById("link");
let asked = null;
let again = false;

function tell(text) {
  notice.textContent = text;
  if (text) setTimeout(() => { if (notice.textContent === text) notice.textContent = ""; }, 6000);
}

function connected(ok) {
  link.textContent = ok ? "live" : "connection lost";
  link.className = ok ? "dot ok" : "dot failing";
}

// Put the newest state of this page in the place of the old one; what was unfolded or focused stays so.
async function refresh() {
  if (asked) { again = true; return asked; }
  asked = (async () => {
    try {
      const reply = await fetch(location.href, { cache: "no-store" });
      if (!reply.ok) throw new Error(String(reply.status));
      const page = new DOMParser().parseFromString(await reply.text(), "text/html");
      replace(page);
      connected(true);
    } catch {
      connected(false);
    }
  })();
  await asked;
  asked = null;
  if (again) { again = false; await refresh(); }
  return null;
}

function replace(page) {
  for (const id of ["facts", "live"]) {
    const old = document.getElementById(id);
    const fresh = page.getElementById(id);
    if (!old || !fresh || old.innerHTML === fresh.innerHTML) continue;
    const open = new Set([...old.querySelectorAll("details[open]")].map((d) => d.id));
    const focus = old.contains(document.activeElement) ? document.activeElement.id : "";
    old.replaceChildren(...fresh.childNodes);
    for (const d of old.querySelectorAll("details")) if (open.has(d.id)) d.open = true;
    if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
  }
  document.title = page.title;
}

async function send(button) {
  const body = button.dataset.body;
  button.disabled = true;
  try {
    const reply = await fetch(button.dataset.post, { method: "POST", body, headers: headers(body) });
    const answer = await reply.json().catch(() => ({}));
    if (reply.status === 401) { sessionStorage.removeItem("token"); ask(button); return; }
    tell(reply.ok ? button.dataset.done : answer.error || `Not done: HTTP ${reply.status}`);
    await refresh();
  } catch {
    tell("Not done: the daemon cannot be reached.");
  } finally {
    button.disabled = false;
  }
}

function headers(body) {
  const made = body ? { "Content-Type": "application/json" } : {};
  const token = sessionStorage.getItem("token");
  if (token) made.Authorization = `Bearer ${token}`;
  return made;
}

// The token stays in this tab and is forgotten with it.
function ask(button) {
  const dialog = document.getElementById("ask");
  dialog.returnValue = "";
  dialog.showModal();
  dialog.addEventListener("close", () => {
    const field = document.getElementById("token");
    const token = field.value.trim();
    field.value = "";
    if (dialog.returnValue !== "send" || !token) return;
    sessionStorage.setItem("token", token);
    send(button);
  }, { once: true });
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-post]");
  if (button) send(button);
});

function listen() {
  const source = new EventSource("/events");
  let first = true;
  source.addEventListener("open", () => connected(true));
  source.addEventListener("error", () => connected(false));
  source.addEventListener("changed", () => {
    if (!first) refresh();
    first = false;
  });
}

document.documentElement.classList.add("js");
if (live) {
  listen();
  setInterval(() => { if (!document.hidden) refresh(); }, 15000);
}
