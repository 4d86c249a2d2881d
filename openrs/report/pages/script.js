"use strict";
// The page is whole without this script; it adds two things: what a cell of a grid holds, and a filter on completions.

const tip = document.getElementById("tip");
const parsed = new WeakMap();

function dataOf(cells) {
  if (!parsed.has(cells)) parsed.set(cells, JSON.parse(cells.dataset.c));
  return parsed.get(cells);
}

function linesOf(cells, index) {
  const entry = dataOf(cells)[index];
  if (!entry) return [];
  if (cells.classList.contains("field")) return [entry[0], ...entry[1]];
  const [answer, verdict, tokens] = entry;
  const told = tokens ? ", " + tokens.toLocaleString("en") + " tokens" : "";
  return [cells.dataset.p, "sample " + (index + 1) + ": " + verdict + told, answer ? "answer " + answer : "no answer"];
}

let marked = null;

function show(cells, index) {
  const cell = cells.children[index];
  if (!cell) return;
  hide();
  marked = cell;
  cell.classList.add("at");
  tip.replaceChildren(...linesOf(cells, index).map((line) => {
    const row = document.createElement("bdi");
    row.textContent = line; // never as HTML: answers are a model's words
    return row;
  }));
  tip.hidden = false;
  const box = cell.getBoundingClientRect();
  const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
  const below = box.bottom + 8 + tip.offsetHeight < window.innerHeight;
  tip.style.left = Math.max(8, left) + window.scrollX + "px";
  tip.style.top = (below ? box.bottom + 6 : box.top - tip.offsetHeight - 6) + window.scrollY + "px";
}

function hide() {
  tip.hidden = true;
  if (marked) marked.classList.remove("at");
  marked = null;
}

function place(event) {
  const cell = event.target.closest ? event.target.closest(".cells > i") : null;
  if (cell) show(cell.parentElement, Array.prototype.indexOf.call(cell.parentElement.children, cell));
  else hide();
}

document.addEventListener("pointerover", place);
document.addEventListener("click", place);
document.addEventListener("focusout", hide);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
  const cells = document.activeElement;
  if (!cells || !cells.classList.contains("cells")) return;
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const now = marked && marked.parentElement === cells ? Array.prototype.indexOf.call(cells.children, marked) : step > 0 ? -1 : 0;
  show(cells, Math.max(0, Math.min(cells.children.length - 1, now + step)));
});

const filter = document.getElementById("filter");
if (filter) {
  const texts = Array.from(document.querySelectorAll("#texts > details"));
  const more = document.getElementById("more");
  let limit = 12;
  const apply = () => {
    const { place: where, verdict, text, from, to, least, most } = Object.fromEntries(new FormData(filter));
    const wanted = text.toLowerCase();
    const within = (value, low, high) => (low === "" && high === "")
      || (value !== undefined && (low === "" || Number(value) >= Number(low)) && (high === "" || Number(value) <= Number(high)));
    let found = 0;
    for (const one of texts) {
      const fits = within(one.dataset.step, from, to) && within(one.dataset.reward, least, most) && (!where || one.dataset.place === where) && (!verdict || one.dataset.verdict === verdict)
        && (!wanted || one.textContent.toLowerCase().includes(wanted));
      found += fits;
      one.hidden = !fits || found > limit;
    }
    more.hidden = found <= limit;
    filter.querySelector("output").textContent = Math.min(found, limit) + " of " + found + " shown";
  };
  filter.hidden = false;
  filter.addEventListener("input", () => { limit = 12; apply(); });
  filter.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { limit += 40; apply(); });
  apply();
}
// What is printed is all there is: closed parts are opened for it.
window.addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details:not(.text)")) one.open = true;
});
