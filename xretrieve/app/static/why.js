// Why a picture was found: the heat of each word over it, and the score of each part of the query.

import { picture, post } from "./api.js";
import { score } from "./grid.js";
import { ofAll, ofWord, paint } from "./heat.js";

const byId = (id) => document.getElementById(id);
const dialog = byId("why");
let shown = null; // {hits, place, body, actions}
let attention = null;
let chosen = -1; // the word whose heat is painted, -1 for all
let turn = 0;
let leaving = false; // closed for something else, so the focus does not go back to the result

export function open(hits, place, body, actions) {
  shown = { hits, place, body, actions };
  if (!dialog.open) dialog.showModal();
  show();
}

export function leave() {
  if (!dialog.open) return;
  leaving = true;
  dialog.close();
}

async function show() {
  const { hits, place, body } = shown;
  const hit = hits[place];
  const mine = ++turn;
  byId("why-title").textContent = `${hit.rank}. ${hit.id}`;
  byId("why-before").disabled = place === 0;
  byId("why-after").disabled = place === hits.length - 1;
  byId("why-like").hidden = byId("why-change").hidden = !hit.picture;
  byId("why-words").replaceChildren();
  byId("why-parts").replaceChildren();
  byId("why-note").textContent = "Looking …";
  attention = null;
  const img = byId("why-picture");
  img.parentElement.hidden = !hit.picture;
  clearHeat();
  img.removeAttribute("src");
  img.alt = hit.id;
  if (hit.picture) {
    picture(hit.id, 1280).then((address) => { if (mine === turn) img.src = address; }, () => { img.parentElement.hidden = true; });
  }
  try {
    const { texts, image, picture: sent } = body;
    const told = await post("api/explain", { id: hit.id, texts, image, picture: sent });
    if (mine === turn) tell(told, hit);
  } catch (error) {
    if (mine === turn) byId("why-note").textContent = error.message;
  }
}

function tell(told, hit) {
  byId("why-note").textContent = "";
  parts(told.parts, hit, told.levels);
  attention = told.attention || null;
  if (attention) {
    words();
    choose(-1);
  } else if (told.parts.length) {
    const who = hit.exact ? "This model" : "The fast first stage";
    byId("why-note").textContent = `${who} sees each picture as a whole: how well each part fits is all it can tell.`;
  }
}

function words() {
  const sentences = attention.of === "sentences";
  const title = make("h3", sentences ? "Which regions each detail found" : "Which regions each word found");
  const list = make("div", "", "words");
  const match = attention.streams.t2i?.match;
  const one = (text, word, hint) => {
    const button = make("button", text, "word");
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.dataset.word = word;
    button.title = hint;
    button.addEventListener("click", () => choose(word === chosen ? -1 : word));
    button.addEventListener("mouseenter", () => heat(word));
    button.addEventListener("mouseleave", () => heat(chosen));
    list.append(button);
    return button;
  };
  one(sentences ? "all details" : "whole text", -1, "the heat of all of it");
  attention.words.forEach((text, word) => {
    if (text.startsWith("<")) return; // markers of the model
    const button = one(text, word, match ? `found: ${match[word].toFixed(2)} of 1` : "");
    if (match) button.append(meter(Math.max(0, match[word])));
  });
  byId("why-words").replaceChildren(title, list);
  if (!attention.layout) byId("why-note").textContent = "Where the regions lie is not known, so no heat is shown.";
}

function choose(word) {
  chosen = word;
  for (const button of byId("why-words").querySelectorAll(".word")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.word) === word));
  }
  heat(word);
}

function heat(word) {
  const img = byId("why-picture");
  if (!attention?.layout || !img.naturalWidth) return;
  const canvas = byId("why-heat");
  const scale = Math.min(1, 900 / Math.max(img.naturalWidth, img.naturalHeight));
  canvas.width = Math.round(img.naturalWidth * scale);
  canvas.height = Math.round(img.naturalHeight * scale);
  const { values, low, peak } = word < 0 ? ofAll(attention) : ofWord(attention, word);
  paint(canvas, attention.layout, values, low, peak);
}

function clearHeat() {
  const canvas = byId("why-heat");
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
}

function parts(list, hit, levels) {
  const table = make("table");
  const best = Math.max(...list.map((part) => Math.abs(part.score)), 1e-9);
  for (const part of list) {
    const row = make("tr");
    const cell = make("td");
    cell.append(meter(Math.max(0, part.score / best)));
    row.append(make("th", part.kind === "image" ? "the picture" : part.text), cell, make("td", part.score.toFixed(3), "number"));
    if (part.weight !== undefined) row.append(make("td", `${Math.round(100 * part.weight)} % of the query`, "number"));
    table.append(row);
    if (part.attributes) table.append(attributes(part.attributes));
  }
  const rows = [make("h3", list.length > 1 ? "Each part of the query alone" : "Score")];
  if (list.length) rows.push(table);
  if (levels) {
    const terms = Object.entries(levels).map(([name, { value, weight }]) => `${weight.toFixed(2)} × ${value.toFixed(3)} (${name})`);
    rows.push(make("p", `${score(hit)} = ${terms.join(" + ")}`, "quiet"));
  } else if (list.length > 1) rows.push(make("p", `Together: ${score(hit)}`, "quiet"));
  else if (list.length && hit.exact && Math.abs(hit.score - list[0].score) > 5e-4) {
    rows.push(make("p", `Score in the ranking: ${score(hit)}, which also counts what the fast first stage found.`, "quiet"));
  }
  if (!hit.exact) rows.push(make("p", "≈ The fast first stage placed it here; the model itself did not score it.", "quiet"));
  byId("why-parts").replaceChildren(...rows);
}

function attributes(shares) { // how much of each attribute a head with weights of its own takes from this part
  const row = make("tr");
  const cell = make("td", Object.entries(shares).map(([name, share]) => `${name}\u00a0${Math.round(100 * share)}\u00a0%`).join(" · "), "quiet attributes");
  cell.colSpan = 4;
  row.append(cell);
  return row;
}

function meter(share) {
  const bar = make("meter");
  bar.min = 0;
  bar.max = 1;
  bar.value = Math.min(1, share);
  return bar;
}

function make(kind, text = "", className = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function step(by) {
  const next = shown.place + by;
  if (next < 0 || next >= shown.hits.length) return;
  shown.place = next;
  show();
}

byId("why-picture").addEventListener("load", ({ target }) => {
  target.parentElement.style.setProperty("--ratio", target.naturalWidth / target.naturalHeight);
  heat(chosen);
});
byId("why-close").addEventListener("click", () => dialog.close());
byId("why-before").addEventListener("click", () => step(-1));
byId("why-after").addEventListener("click", () => step(1));
byId("why-like").addEventListener("click", () => { leave(); shown.actions.like(shown.hits[shown.place].id); });
byId("why-change").addEventListener("click", () => { leave(); shown.actions.change(shown.hits[shown.place].id); });
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); }); // beside it
dialog.addEventListener("close", () => {
  turn += 1;
  const typing = document.activeElement?.matches("input, textarea"); // this event comes a moment after the dialog is gone
  if (!leaving && !typing) shown.actions.closed(shown.place);
  leaving = false;
});
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
  else if (event.key === "m") byId("why-like").click();
  else return;
  event.preventDefault();
});
