// The page: one query, its results, and the address that says both.

import { forgetPictures, get, picture, post } from "./api.js";
import * as grid from "./grid.js";
import { PER_PAGE, empty, fromAddress, isEmpty, shrink, toAddress, toBody } from "./query.js";
import * as why from "./why.js";

const byId = (id) => document.getElementById(id);
const box = byId("text");
let query = empty();
let details = []; // what stands as chips; the last detail is in the box
let info = { limits: { k: 200, texts: 50, text: 1000 }, pictures: 0 };
let running = null;
const ready = get("api/info").then((told) => {
  info = told;
  box.maxLength = info.limits.text;
  byId("about").textContent = `${info.name} · ${info.pictures} pictures · ${info.matcher}`;
  document.title = document.title === "xretrieve" ? info.name : document.title;
}, (error) => problem(error.message));

const actions = {
  like: (id) => go({ ...empty(), image: id, like: true }),
  change: (id) => {
    query = { ...empty(), image: id };
    details = [];
    box.value = "";
    render();
    box.focus();
  },
  closed: (place) => grid.focus(place),
};

// --- the query ---

function read() {
  const draft = box.value.trim();
  const texts = draft ? [...details, draft] : [...details];
  return { ...query, texts, like: query.like && !texts.length, k: PER_PAGE };
}

function go(next, push = true) {
  query = next;
  details = query.texts.slice(0, -1);
  box.value = query.texts.at(-1) || "";
  if (push) history.pushState(query.sent ? { sent: query.sent } : {}, "", toAddress(query));
  search();
}

function addDetail() {
  const draft = box.value.trim();
  if (!draft) return box.focus();
  if (details.length + 1 >= info.limits.texts) return problem(`a query takes ${info.limits.texts} details`);
  const next = read();
  const searched = JSON.stringify(next.texts) === JSON.stringify(query.texts);
  if (!searched) go(next);
  details = next.texts;
  box.value = "";
  render();
  box.focus();
}

function undo() {
  if (!details.length) return;
  const texts = box.value.trim() ? details : details.slice(0, -1);
  go({ ...query, texts, k: PER_PAGE });
  box.focus();
}

function drop(place) {
  const texts = read().texts.filter((_, i) => i !== place);
  go({ ...query, texts, k: PER_PAGE });
}

async function take(file) {
  if (!file) return;
  if (!file.type.startsWith("image/") && !/\.(jpe?g|png|webp|gif|bmp|tiff?|heic|heif|avif)$/i.test(file.name)) {
    return problem(`${file.name} is not a picture`);
  }
  try {
    const sent = await shrink(file);
    const texts = read().texts;
    go({ ...empty(), texts, sent });
    box.focus();
  } catch (error) {
    problem(error.message);
  }
}

// --- what is seen ---

function render() {
  const some = isEmpty(query);
  byId("welcome").hidden = !some;
  byId("chips").replaceChildren(...details.map(chip));
  byId("undo").hidden = !details.length;
  byId("more-detail").hidden = !(box.value.trim() || details.length);
  const shown = query.image || query.sent;
  byId("picture").hidden = !shown;
  const img = byId("picture-shown");
  if (query.sent) img.src = query.sent;
  else if (query.image) picture(query.image, 128).then((address) => { img.src = address; }, () => reference(false));
  box.placeholder = details.length
    ? "What else does it show?"
    : shown ? "What should be different?" : "What does the picture show?";
  const words = [...query.texts, ...(query.like ? [`like ${query.image}`] : shown ? ["from a picture"] : [])];
  document.title = words.length ? `${words.join(" · ")} — ${info.name || "xretrieve"}` : info.name || "xretrieve";
}

function reference(there) { // its file may be gone, or the id in the address not in the index
  byId("picture-shown").hidden = !there;
  byId("picture-gone").hidden = there;
  byId("picture").title = there ? "" : `${query.image || "the picture"} cannot be shown`;
}

function chip(text, place) {
  const made = document.createElement("li");
  const label = document.createElement("span");
  label.textContent = text;
  const off = document.createElement("button");
  off.type = "button";
  off.textContent = "×";
  off.title = "Take this detail away";
  off.setAttribute("aria-label", `Take away: ${text}`);
  off.addEventListener("click", () => drop(place));
  made.append(label, off);
  return made;
}

function problem(sentence = "") {
  byId("problem").textContent = sentence && sentence[0].toUpperCase() + sentence.slice(1);
  byId("problem").hidden = !sentence;
}

function status(found) {
  const many = found.hits.length === info.pictures ? `all ${info.pictures}` : `${found.hits.length} of ${info.pictures}`;
  const seconds = found.seconds < 0.995 ? `${Math.max(1, Math.round(1000 * found.seconds))} ms` : `${found.seconds.toFixed(1)} s`;
  const rough = info.regions && found.hits.length && found.hits.every((hit) => !hit.exact);
  const note = rough ? " · the model does not take this kind of query: this is the order of the fast first stage" : "";
  const weak = found.weak ? " · nothing fits well: try other words" : "";
  byId("status").title = found.note;
  byId("status").textContent = `${query.like ? "Like this one: " : ""}${many} pictures · ${seconds}${note}${weak}`;
}

async function search() {
  running?.abort();
  running = new AbortController();
  why.leave();
  render();
  problem(query.lost ? "the picture that was sent is no longer here; drop it again" : "");
  byId("more").hidden = true;
  if (isEmpty(query)) {
    byId("status").textContent = "";
    return grid.clear();
  }
  const results = byId("results");
  results.setAttribute("aria-busy", "true");
  const mine = running;
  try {
    await ready; // it knows the limits
    const body = toBody(query, info.limits.k);
    const found = await post("api/search", body, mine.signal);
    forgetPictures();
    if (query.image) render();
    grid.show(found.hits, { open: (place) => why.open(found.hits, place, body, actions), like: actions.like });
    status(found);
    byId("more").hidden = found.hits.length < body.k || body.k >= Math.min(info.limits.k, info.pictures);
  } catch (error) {
    if (error.name === "AbortError") return;
    grid.clear();
    byId("status").textContent = "";
    problem(error.message);
  } finally {
    if (mine === running) results.removeAttribute("aria-busy");
  }
}

// --- events ---

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  go(read());
});
box.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.shiftKey) {
    event.preventDefault();
    addDetail();
  } else if (event.key === "ArrowDown" && byId("results").children.length) {
    event.preventDefault();
    grid.focus(0);
  } else if (event.key === "Backspace" && !box.value && details.length) {
    event.preventDefault();
    undo();
  }
});
box.addEventListener("input", () => { byId("more-detail").hidden = !(box.value.trim() || details.length); });
byId("more-detail").addEventListener("click", addDetail);
byId("undo").addEventListener("click", undo);
byId("picture-shown").addEventListener("load", () => reference(true));
byId("picture-shown").addEventListener("error", () => reference(false));
byId("picture-drop").addEventListener("click", () => go({ ...read(), image: null, sent: null, like: false }));
byId("more-results").addEventListener("click", () => go({ ...query, k: query.k + PER_PAGE }));
byId("file").addEventListener("change", (event) => {
  take(event.target.files[0]);
  event.target.value = ""; // the same file may be chosen again
});
document.addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files || [])].find((one) => one.type.startsWith("image/"));
  if (file) {
    event.preventDefault();
    take(file);
  }
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  byId("dropping").hidden = ![...(event.dataTransfer?.types || [])].includes("Files");
});
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) byId("dropping").hidden = true; });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  byId("dropping").hidden = true;
  take(event.dataTransfer?.files[0]);
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input, textarea") || document.querySelector("dialog[open]");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  box.focus();
  box.select();
});
window.addEventListener("popstate", (event) => go(fromAddress(event.state), false));

// --- start ---

box.maxLength = info.limits.text;
const first = fromAddress(history.state);
if (isEmpty(first) && !first.lost) render(); // what was typed before this script ran stays
else go(first, false);
