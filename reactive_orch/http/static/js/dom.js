// The few pieces that all panels are made of. Values only ever become text, attributes or CSSOM properties.

import { html, nothing, render, svg } from "../vendor/lit-html/lit-html.js";
import { Directive, directive } from "../vendor/lit-html/directive.js";
import { repeat } from "../vendor/lit-html/directives/repeat.js";
import { lasting, visible } from "./format.js";

export { Directive, directive, html, nothing, render, repeat, svg };

/** `<div ${vars({ "--x": 3 })}>`: custom properties through the CSSOM, which a strict CSP allows. */
export const vars = directive(class extends Directive {
  known = {};
  render() { return nothing; }
  update({ element }, [values]) {
    for (const [name, value] of Object.entries(values)) {
      if (this.known[name] !== value) element.style.setProperty(name, (this.known[name] = value));
    }
  }
});

/** A worker by its id; one that is gone keeps its colour. */
export const workerOf = (s, id) => s.workers[id] ?? { id: Number(id), slot: s.history.slots[id] ?? id - 1 };

/** A worker's colour and pattern: 12 and 7, so 84 slots differ. Without a worker: nobody's. */
export const look = (worker) =>
  worker ? { colour: worker.slot % 12, pattern: worker.slot % 7 } : { colour: "none", pattern: 0 };

export function swatch(worker) {
  const { colour, pattern } = look(worker);
  return html`<i class="swatch" data-colour=${colour} data-pattern=${pattern}></i>`;
}

export const heading = (id, text, aside = nothing) =>
  html`<div class="head"><h2 id="${id}-title" title=${text}>${text}</h2><div class="aside">${aside}</div></div>`;

export const columns = (names) => html`<tr>${names.map((name) => html`<th scope="col">${name}</th>`)}</tr>`;

/** The name of a projection, and its version where there can be several. */
export const named = (p) => (p.version > 1 ? `${p.name} v${p.version}` : p.name);

export const lasts = (from, now) =>
  from ? html` <span class="quiet since">for ${lasting(from, now)}</span>` : nothing;

/** Text with a button that copies exactly it. */
export const copyable = (text, what = "command") => html`
  <span class="copyable"><code title=${text}>${visible(text)}</code><button type="button" class="copy"
    aria-label="Copy ${what}: ${text}" @click=${(event) => copy(event.currentTarget, text)}></button></span>`;

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.dataset.done = "yes";
    say("copied");
  } catch {
    getSelection().selectAllChildren(button.previousElementSibling); // not allowed here: it is one keystroke away
  }
  setTimeout(() => delete button.dataset.done, 1500);
}

/** Tell a screen reader, once. */
export function say(text) {
  const region = document.getElementById("said");
  if (region.textContent !== text) region.textContent = text;
}

/** Writing an attribute makes the browser look at everything below it, so only what changes is written. */
export function mark(element, name, value) {
  if (element.dataset[name] !== String(value)) element.dataset[name] = value;
}
