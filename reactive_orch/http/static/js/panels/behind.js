// Worst first: where to look when something is slow. What catches up is behind by nature, and in the map.

import { columns, heading, html, named, swatch } from "../dom.js";
import { compact, plural } from "../format.js";

const ROWS = 6, WORTH = 5;

export function behind(s, _view, _act, { away }) {
  const live = Object.values(s.projections).filter((p) => p.done == null);
  const all = live.flatMap((p) => p.behind.map((events, i) => ({ p, i, events })));
  const worst = all.filter((one) => one.events >= WORTH).sort((a, b) => b.events - a.events).slice(0, ROWS);
  return html`
    ${heading("behind", "Furthest behind", html`<span class="quiet">of ${plural(all.length, "partition")}</span>`)}
    ${worst.length ? table(s, worst) : html`<p class="empty">${calm(all, away)}</p>`}`;
}

function calm(all, away) {
  if (away) return "Not known while the database is away.";
  if (!all.length) return "There are no partitions to compare yet.";
  if (all.every((one) => one.events == null)) return "Not known yet.";
  return "Nothing settled waits: every partition is at the settled end of its log.";
}

const table = (s, worst) => html`<table class="rows">
  <thead class="unseen">${columns(["projection", "partition", "worker", "waiting"])}</thead>
  <tbody>${worst.map(({ p, i, events }) => html`<tr>
    <th scope="row" class="cut" title=${p.name}>${named(p)}</th><td class="quiet">${i}</td>
    <td>${swatch(s.workers[p.owners[i]])}${p.owners[i] || "nobody"}</td>
    <td class="number">${compact(events)}</td></tr>`)}</tbody></table>`;
