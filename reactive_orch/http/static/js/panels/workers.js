// Who takes part, and how each of them is. On a phone each row is a card, so roles are written: CSS would take them.

import { copyable, heading, html, nothing, repeat, swatch, vars } from "../dom.js";
import { compact, duration, since } from "../format.js";

const GRAVE = { dead: 0, silent: 1, stale: 1, unavailable: 2 };

/** `cell` is what a row shows; a column is left out if `asked` finds nothing in it. */
const COLUMNS = [
  { name: "state", cell: (w) => html`<span class="state" data-state=${w.state}>${w.state}</span>` },
  { name: "heartbeat", number: true, cell: (w, s) => duration(since(w.heartbeat_at, s.at)) },
  { name: "holds", number: true, cell: (w) => compact(w.partitions) },
  { name: "events/s", number: true, cell: (w, _s, away) => compact(away ? null : w.per_s) },
  { name: "busy", asked: (all) => all.some((w) => w.busy != null), cell: shares },
  { name: "host, pid", cell: (w) => html`<span class="cut" title=${w.name}>${w.host} <small>${w.pid}</small></span>` },
  { name: "version", asked: (all) => new Set(all.map((w) => w.version)).size > 1, cell: (w) => w.version ?? "–" },
  { name: "up", number: true, cell: (w, s) => (w.started_at ? duration(Math.floor(since(w.started_at, s.at))) : "–") },
];

export function workers(s, _view, act, { away }) {
  const all = Object.values(s.workers);
  if (!all.length) {
    return html`${heading("workers", "Workers")}
      <p class="empty">Nobody is here. What is appended waits in the log, and is handled when a worker starts.</p>
      ${s.commands.start ? copyable(s.commands.start) : nothing}`;
  }
  const columns = COLUMNS.filter(({ asked }) => !asked || asked(all));
  return html`
    ${heading("workers", "Workers", html`<span class="quiet">${tally(all)}</span>`)}
    <div class="tall" tabindex="0" role="region" aria-label="All workers"><table class="rows cards" role="table">
      <thead role="rowgroup"><tr role="row"><th scope="col" role="columnheader">worker</th>${columns.map((c) => html`
        <th scope="col" role="columnheader" class=${c.number ? "number" : ""}>${c.name}</th>`)}</tr></thead>
      <tbody role="rowgroup">${repeat(all, (w) => w.id, (w) => row(s, w, columns, act, away))}</tbody></table></div>`;
}

const row = (s, w, columns, act, away) => html`<tr role="row" data-state=${w.state}
  @pointerenter=${() => act.choose({ worker: w.id })} @pointerleave=${() => act.choose({ worker: null })}>
  <th scope="row" role="rowheader">${swatch(w)}${w.id}</th>${columns.map((c) => html`
  <td role="cell" data-label=${c.name} class=${c.number ? "number" : ""}>${c.cell(w, s, away)}</td>`)}</tr>`;

/** 47 serving, 1 dead: so that what scrolls hides nobody. */
function tally(all) {
  const by = Map.groupBy(all, (w) => w.state);
  const sorted = [...by].sort(([a], [b]) => (GRAVE[a] ?? 9) - (GRAVE[b] ?? 9));
  return sorted.map(([state, those]) => `${those.length} ${state}`).join(", ");
}

function shares({ busy }) {
  if (busy == null) return "–";
  const text = `${Math.round(busy * 100)} %`;
  return html`<span class="bar" role="img" title="of the time its busiest projection has batches in hand: ${text}"
    aria-label=${text} ${vars({ "--busy": busy.toFixed(3) })}></span>`;
}
