// The cells of one projection, a partition each. Thousands may change with one message, so they are drawn by hand, and
// only what has changed is written. A cell never leaves the document: CSS glides it to its next place.

import { Directive, directive, look, nothing } from "../dom.js";
import { plural } from "../format.js";

const WRITE = {
  place: (cell, value) => { cell.style.transform = value; },
  full: (cell, value) => cell.style.setProperty("--full", value),
  colour: (cell, value) => { cell.dataset.colour = value; },
  pattern: (cell, value) => { cell.dataset.pattern = value; },
  label: (cell, value) => cell.setAttribute("aria-label", value),
  moved: (cell, value) => cell.toggleAttribute("data-moved", value),
  parked: (cell, value) => cell.toggleAttribute("data-parked", value),
  lit: (cell, value) => cell.toggleAttribute("data-lit", value),
  chosen: (cell, value) => { cell.ariaSelected = value; cell.tabIndex = value ? 0 : -1; },
};
const STEPS = 16; // of fullness: finer ones nobody sees

/** `<div ${cells(row)}>`; a row of the same parts as before is left as it is. */
export const cells = directive(class extends Directive {
  known = [];
  render() { return nothing; }
  update({ element }, [row]) {
    if (this.row && Object.keys(row).every((name) => row[name] === this.row[name])) return;
    this.row = row;
    while (element.childElementCount > row.owners.length) element.lastElementChild.remove();
    this.known.length = Math.min(this.known.length, row.owners.length);
    row.owners.forEach((_, i) => this.draw(element.children[i] ?? element.appendChild(made(i)), i, state(row, i)));
  }
  draw(cell, i, now) {
    const was = this.known[i] ?? {};
    for (const name in WRITE) if (now[name] !== was[name]) WRITE[name](cell, now[name]);
    this.known[i] = now;
  }
});

function made(i) {
  const cell = document.createElement("i");
  cell.className = "cell";
  cell.role = "option";
  cell.dataset.cell = i;
  cell.style.setProperty("--late", i % 16);
  return cell;
}

function state({ owners, behind, moved, parked, places, workers, whole, generation, lit, chosen }, i) {
  const worker = workers[owners[i]], keys = parked[i] ?? 0;
  return {
    ...look(worker),
    place: places[i],
    full: Math.round(fullness(behind[i], whole) * STEPS) / STEPS,
    label: `partition ${i}, ${worker ? `worker ${worker.id}` : "nobody"}, ${how(behind[i], keys)}`,
    moved: generation !== null && moved[i] === generation,
    parked: keys > 0,
    lit: lit !== null && lit === owners[i],
    chosen: i === chosen,
  };
}

/** Catching up fills a cell by its share of the whole; falling behind empties it, by orders of magnitude. */
function fullness(events, whole) {
  if (events == null) return 0;
  if (whole !== null) return 1 - Math.min(1, events / whole);
  return events < 4 ? 1 : 1 - Math.min(0.92, Math.log10(events) / 2.4);
}

export function how(events, keys) {
  const far = events == null ? "nobody knows how far" : plural(events, "event");
  return `${far} behind${keys ? `, ${plural(keys, "key")} parked` : ""}`;
}
