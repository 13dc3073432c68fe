// The results as a grid that the arrow keys walk through.

import { picture } from "./api.js";

const section = document.getElementById("results");

export function show(hits, { open, like }) {
  section.replaceChildren(...hits.map((hit, place) => card(hit, place, open, like)));
}

export function clear() {
  section.replaceChildren();
}

export function focus(place) {
  section.querySelectorAll(".card > .why")[place]?.focus();
}

function card(hit, place, open, like) {
  const box = element("article", "card");
  const why = element("button", "why");
  why.type = "button";
  why.title = `${hit.id}: why was it found?`;
  why.setAttribute("aria-label", `${hit.rank}: ${hit.id}, score ${score(hit)}. Why was it found?`);
  why.append(hit.picture ? image(hit) : nameOnly(hit));
  why.addEventListener("click", () => open(place));
  const foot = element("div", "foot");
  const number = element("span", "score");
  number.textContent = score(hit);
  number.title = hit.exact ? "score" : "score of the fast first stage: the model itself did not look at it";
  const rank = element("span", "rank");
  rank.textContent = hit.rank;
  foot.append(rank, number);
  if (hit.picture) {
    const more = element("button", "plain like");
    more.type = "button";
    more.textContent = "like this";
    more.title = "More like this";
    more.addEventListener("click", () => like(hit.id));
    foot.append(more);
  }
  box.append(why, foot);
  return box;
}

export function score(hit) {
  return (hit.exact ? "" : "≈ ") + hit.score.toFixed(3);
}

function image(hit) {
  const img = element("img");
  img.alt = hit.id;
  img.loading = "lazy";
  img.decoding = "async";
  const gone = () => img.replaceWith(nameOnly(hit));
  img.addEventListener("error", gone);
  picture(hit.id, 384).then((address) => { img.src = address; }, gone);
  return img;
}

function nameOnly(hit) {
  const name = element("span", "name");
  name.textContent = hit.id;
  return name;
}

function element(kind, className = "") {
  const made = document.createElement(kind);
  if (className) made.className = className;
  return made;
}

section.addEventListener("keydown", (event) => {
  const cards = [...section.querySelectorAll(".card > .why")];
  const here = cards.indexOf(document.activeElement);
  if (here < 0) return;
  const top = cards[0].getBoundingClientRect().top;
  const columns = Math.max(1, cards.filter((one) => one.getBoundingClientRect().top === top).length);
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  const next = here + step;
  if (next < 0) document.getElementById("text").focus();
  else cards[Math.min(next, cards.length - 1)].focus();
});
