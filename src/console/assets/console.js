// What a page does beyond links and forms: it follows the manager's events, counts down, opens plans
// over the page, and takes keys. Every page works without it.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// --- Live: rows change in place; new rows wait until they are asked for. ---

const REFRESH_MS = 700;
// Under a steady stream of events the pauses grow, so that many open pages cost little.
const PAUSE_MS = 1500;
const LONGEST_PAUSE_MS = 15000;
const LOST_AFTER_MS = 3000;
const AGAIN_MS = 2000;
let refreshing = false;
let stale = false;
let timer = 0;
let lastRefresh = 0;
let pause = PAUSE_MS;

function soon() {
  stale = true;
  if (timer || refreshing || document.hidden) return;
  const quiet = Date.now() - lastRefresh;
  pause = quiet > 2 * pause ? PAUSE_MS : Math.min(LONGEST_PAUSE_MS, pause * 1.5);
  const wait = Math.max(REFRESH_MS, pause - quiet);
  timer = setTimeout(refresh, wait);
}

async function refresh() {
  timer = 0;
  if (refreshing) return;
  refreshing = true;
  stale = false;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html", "Riposte-Reloads": "1" } });
    if (new URL(answer.url).pathname === "/login") return lost("Your session has ended.", "/login?next=" + encodeURIComponent(location.pathname + location.search));
    if (!answer.ok) throw new Error(answer.statusText);
    outdated(false);
    merge(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    outdated(true);
    stale = true;
  } finally {
    refreshing = false;
    lastRefresh = Date.now();
    if (stale) soon();
  }
}

// A page that could not be loaded anew says so, and tries again.
function outdated(is) {
  document.body.classList.toggle("outdated", is);
  if (is && !lostTimer) lostTimer = setTimeout(() => lost(), LOST_AFTER_MS);
  if (!is) found();
}

const names = (root) => $$("[data-rows], [data-part]", root).map((part) => part.dataset.rows || part.dataset.part).sort().join();

function merge(fresh) {
  // The first row, and the end of the last one, make another page of it.
  if (names(document) !== names(fresh) && !$("dialog[open]") && !document.activeElement?.closest("main input, main textarea")) {
    location.reload();
    return;
  }
  for (const part of $$("[data-part]")) {
    const next = $(`[data-part="${CSS.escape(part.dataset.part)}"]`, fresh);
    if (next && !part.contains(document.activeElement) && next.innerHTML !== part.innerHTML) part.innerHTML = next.innerHTML;
  }
  const nav = $(".top nav ul");
  const freshNav = $(".top nav ul", fresh);
  if (nav && freshNav && !nav.contains(document.activeElement) && nav.innerHTML !== freshNav.innerHTML) nav.innerHTML = freshNav.innerHTML;
  for (const list of $$("[data-rows]")) {
    const freshList = $(`[data-rows="${CSS.escape(list.dataset.rows)}"]`, fresh);
    if (freshList) mergeRows(list, freshList);
  }
  tick();
}

function mergeRows(list, freshList) {
  const old = new Map($$(":scope > [data-row]", list).map((row) => [row.dataset.row, row]));
  const waiting = [];
  for (const row of $$(":scope > [data-row]", freshList)) {
    const known = old.get(row.dataset.row);
    old.delete(row.dataset.row);
    if (!known) waiting.push(row);
    else if (known.innerHTML !== row.innerHTML) {
      const chosen = known.classList.contains("chosen");
      // A row with the focus keeps it: on the link or button with the same address.
      const focused = known.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      const ticked = $("input[type=checkbox]", known)?.checked;
      known.innerHTML = row.innerHTML;
      known.className = row.className;
      known.classList.toggle("chosen", chosen);
      const box = $("input[type=checkbox]", known);
      if (box && ticked) box.checked = true;
      if (focused) $(`a[href="${CSS.escape(focused)}"]`, known)?.focus({ preventScroll: true });
    }
  }
  for (const row of old.values()) row.classList.add("gone");
  const empty = list.children.length === 0 || $(":scope > [data-none]", list);
  if (waiting.length && empty) {
    list.replaceChildren(...waiting);
    announce(`${waiting.length} new`);
    return;
  }
  offer(list, freshList, waiting);
}

function offer(list, freshList, waiting) {
  const id = `new-${list.dataset.rows}`;
  let button = document.getElementById(id);
  if (!waiting.length) {
    button?.remove();
    return;
  }
  if (!button) {
    button = document.createElement("button");
    button.id = id;
    button.type = "button";
    button.className = "new";
    (list.closest(".table") || list).before(button);
  }
  const words = `${waiting.length} new`;
  if (button.textContent !== words) {
    button.textContent = words;
    announce(words);
  }
  button.onclick = () => {
    list.replaceChildren(...$$(":scope > *", freshList));
    button.remove();
    choose(0);
    tick();
  };
}

function announce(words) {
  $("#announce").textContent = words;
}

// --- The connection. ---

let source = null;
let lostTimer = 0;
let again = 0;
let ended = false;
let lastHeard = Date.now();

function follow() {
  const types = document.body.dataset.live;
  if (!types || !window.EventSource) return;
  source = new EventSource("/console/events?type=" + encodeURIComponent(types));
  source.onopen = () => {
    // No event told of what happened between the answer with this page and now.
    soon();
    found();
  };
  source.onerror = () => {
    if (!lostTimer) lostTimer = setTimeout(() => lost(), LOST_AFTER_MS);
    // The browser gives up after any answer that is no stream. Loading the page says if the session has ended.
    if (source.readyState === EventSource.CLOSED && !again) again = setTimeout(followAgain, AGAIN_MS);
  };
  for (const type of ["changed", "gap"]) {
    source.addEventListener(type, () => {
      lastHeard = Date.now();
      soon();
    });
  }
}

async function followAgain() {
  again = 0;
  await refresh();
  if (source.readyState === EventSource.CLOSED && !ended) follow();
}

function found() {
  clearTimeout(lostTimer);
  lostTimer = 0;
  lastHeard = Date.now();
  if (!ended) $("#lost").hidden = true;
}

function lost(words, place) {
  const banner = $("#lost");
  if (words) {
    ended = true;
    clearTimeout(lostTimer);
    source?.close();
    const link = document.createElement("a");
    link.href = place;
    link.textContent = "Log in again";
    banner.replaceChildren(words + " This page is not up to date. ", link);
  } else {
    if (ended) return;
    $("#lost-since").textContent = new Date(lastHeard).toLocaleTimeString();
  }
  banner.hidden = false;
}

// --- Countdowns. ---

function span(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return seconds % 60 ? `${Math.floor(seconds / 60)} min ${seconds % 60} s` : `${seconds / 60} min`;
  const [large, small, names] = seconds < 86400 ? [3600, 60, ["h", "min"]] : [86400, 3600, ["d", "h"]];
  const rest = Math.floor((seconds % large) / small);
  return `${Math.floor(seconds / large)} ${names[0]}` + (rest ? ` ${rest} ${names[1]}` : "");
}

function tick() {
  const now = Date.now();
  for (const time of $$("time[data-until]")) {
    const left = Math.round((Date.parse(time.dateTime) - now) / 1000);
    time.textContent = left > 0 ? span(left) : "now";
  }
}

// --- Plans open over the page. ---

async function openPlan(link) {
  const sheet = $("#sheet");
  const answer = await fetch(link.href, { headers: { Accept: "text/html" } });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const plan = $(".plan", page);
  if (!answer.ok || !plan) {
    location.assign(link.href);
    return;
  }
  sheet.replaceChildren(plan);
  sheet.returnTo = link;
  sheet.showModal();
  ($("textarea, input:not([type=hidden]), select", sheet) || $("button, a", sheet))?.focus();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-plan]");
  if (link && !event.metaKey && !event.ctrlKey && !event.shiftKey && event.button === 0) {
    event.preventDefault();
    openPlan(link).catch(() => location.assign(link.href));
    return;
  }
  if (event.target.closest("#sheet [data-close]")) {
    event.preventDefault();
    $("#sheet").close();
  }
});
$("#sheet")?.addEventListener("close", (event) => event.target.returnTo?.focus());

// One click sends one form.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "yes";
  setTimeout(() => delete event.target.dataset.sent, 5000);
});

// --- Keys. ---

const KEYS_OFF = "riposte-keys-off";
const HELP = [
  ["/", "filter"],
  ["j k", "next, previous row"],
  ["x", "select the row"],
  ["Enter", "open the row"],
  ["a", "approve"],
  ["r", "reject"],
  ["l", "lift"],
  ["?", "this list"],
];

const rows = () => $$("[data-row]").filter((row) => !row.classList.contains("gone"));
const chosen = () => $("[data-row].chosen");

function choose(index) {
  const all = rows();
  for (const row of all) row.classList.remove("chosen");
  const row = all[Math.max(0, Math.min(index, all.length - 1))];
  if (!row) return;
  row.classList.add("chosen");
  row.scrollIntoView({ block: "nearest" });
  $("a", row)?.focus({ preventScroll: true });
}

function move(step) {
  const all = rows();
  const at = all.indexOf(chosen());
  choose(at < 0 ? (step > 0 ? 0 : all.length - 1) : at + step);
}

const act = (name) => $(`[data-key="${name}"]`, chosen() || $("main"))?.click();
const handlers = {
  "/": () => $("[data-filter]")?.focus(),
  j: () => move(1),
  k: () => move(-1),
  x: () => $("input[type=checkbox]", chosen() || document.createElement("i"))?.click(),
  a: () => act("a"),
  r: () => act("r"),
  l: () => act("l"),
  "?": help,
};

function help() {
  const sheet = $("#sheet");
  const article = document.createElement("article");
  article.className = "plan";
  const title = document.createElement("h1");
  title.textContent = "Keys";
  const list = document.createElement("dl");
  list.className = "facts";
  for (const [key, does] of HELP) {
    const name = document.createElement("dt");
    for (const part of key.split(" ")) {
      const cap = document.createElement("kbd");
      cap.textContent = part;
      name.append(cap, " ");
    }
    const words = document.createElement("dd");
    words.textContent = does;
    list.append(name, words);
  }
  const off = localStorage.getItem(KEYS_OFF) === "yes";
  const toggle = document.createElement("button");
  toggle.type = "button";
  toggle.textContent = off ? "Switch keys on" : "Switch keys off";
  toggle.onclick = () => {
    if (off) localStorage.removeItem(KEYS_OFF);
    else localStorage.setItem(KEYS_OFF, "yes");
    sheet.close();
  };
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "Close";
  close.onclick = () => sheet.close();
  const buttons = document.createElement("div");
  buttons.className = "buttons";
  buttons.append(close, toggle);
  article.append(title, list, buttons);
  sheet.replaceChildren(article);
  sheet.returnTo = document.activeElement;
  sheet.showModal();
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input:not([type=checkbox]), textarea, select, dialog[open]")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (localStorage.getItem(KEYS_OFF) === "yes") return;
  const handler = handlers[event.key];
  if (!handler) return;
  event.preventDefault();
  handler();
});

const keysHelp = $("#keys-help");
if (keysHelp) {
  keysHelp.hidden = false;
  keysHelp.onclick = help;
}
for (const box of $$("[data-all]")) {
  box.hidden = false;
  box.addEventListener("change", () => {
    for (const one of $$(`input[type=checkbox][name="${CSS.escape(box.dataset.all)}"]`)) one.checked = box.checked;
  });
}
// A hidden page gives its connection back: a browser has six for one host.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(again);
    again = 0;
    source?.close();
  } else if (!ended) {
    if (!source || source.readyState === EventSource.CLOSED) follow();
    soon();
  }
});
setInterval(tick, 1000);
tick();
follow();
