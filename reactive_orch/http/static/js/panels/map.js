// The partitions, by projection (rows) and worker (columns). The facts of each projection stand at the end of its row.

import { columns, heading, html, look, nothing, repeat, svg, swatch, vars } from "../dom.js";
import { compact, count, duration, lasting, plural, ranges, since } from "../format.js";
import { cells, how } from "./cells.js";
import { arrange } from "./places.js";

const FACTS = ["behind", "waiting", "events/s", "time left", "failing keys"];
const DENSE = 600, FLOOD = 300, MANY = 12, FRESH_S = 6, SPARK = 40;
const STATES = { running: "live", unserved: "run by no worker" };

export function map(s, view, act, status) {
  const rows = Object.entries(s.projections).map(([key, p]) => ({ ...p, key, owners: owners(s, p) })).sort(byName);
  if (!rows.length) {
    return html`${heading("map", "Partitions")}
      <p class="empty">No projection has ever run here. The map fills as soon as a worker starts with one.</p>`;
  }
  const plan = arrange(rows, Object.values(s.workers).map((w) => w.id), view.width || 800);
  const chosen = split(view.cell, rows) ?? { p: rows[0], i: 0 };
  const pick = (as) => ({ target }) => {
    const cell = target.closest(".cell");
    if (cell) act.choose({ [as]: `${cell.parentElement.dataset.key}/${cell.dataset.cell}` });
  };
  const last = s.generations.at(-1), dense = rows.length * rows[0].owners.length > DENSE;
  return html`
    ${heading("map", "Partitions", detail(s, rows, view))}
    <div class="map" ?data-many=${rows.length > MANY} ?data-dense=${dense} ?data-flood=${last?.moved > FLOOD}
      ?data-lit=${view.worker !== null} ${vars({ "--column": `${plan.column.toFixed(1)}px` })}
      @focusin=${pick("cell")} @pointerover=${pick("over")} @pointerleave=${() => act.choose({ over: null })}
      @keydown=${(event) => (event.key === "Escape" ? act.choose({ cell: null }) : walk(event))}>
      ${titles(s, plan, act)}
      ${repeat(rows, (p) => p.key, (p, i) => projection(s, p, plan, i, chosen, view, status))}
    </div>
    ${alternative(s, rows, view, act)}`;
}

/** Before the first generation nobody owns anything, but how many partitions there are is known. */
const owners = (s, p) => (p.owners.length ? p.owners : unowned(s.logs[p.log]?.partitions ?? 0));
const unownedOf = {};
const unowned = (partitions) => (unownedOf[partitions] ??= Array(partitions).fill(0));

const byName = (a, b) => a.name.localeCompare(b.name) || a.version - b.version || a.key.localeCompare(b.key);

/** The row and the partition of a cell; null if there is none, or no more. */
function split(cell, rows) {
  const at = cell?.lastIndexOf("/"), p = rows.find(({ key }) => key === cell?.slice(0, at));
  const i = Number(cell?.slice(at + 1));
  return p && i in p.owners ? { p, i } : null;
}

const titles = (s, plan, act) => html`<div class="projection titles" aria-hidden="true"><span></span>
  <div class="chips">${plan.columns ? repeat(plan.columns, (id) => id, (id) => chip(s.workers[id], id, plan, act))
    : html`<span class="quiet">by worker, each in its colours</span>`}</div>
  <div class="facts">${FACTS.map((name) => html`<span>${name}</span>`)}</div></div>`;

function chip(worker, id, plan, act) {
  const narrow = plan.column < 70, skipped = plan.column < 20 && plan.columns.indexOf(id) % 5;
  const name = skipped ? nothing : worker ? `${plan.column > 110 ? "worker " : ""}${id}` : "nobody";
  const much = worker?.state === "dead" ? "dead" : worker?.partitions;
  return html`<span class="chip" data-state=${worker?.state ?? "none"} data-colour=${look(worker).colour}
    ?data-bare=${narrow} title=${worker ? `worker ${id}, ${worker.name}` : "owned by nobody"}
    ${vars({ "--x": `${plan.left(id)}px` })}
    @pointerenter=${() => act.choose({ worker: id })} @pointerleave=${() => act.choose({ worker: null })}>
    ${narrow ? nothing : swatch(worker)}<b>${name}</b>${narrow ? nothing : html` <small>${much}</small>`}</span>`;
}

function projection(s, p, plan, index, chosen, view, status) {
  const last = s.generations.at(-1), log = s.logs[p.log];
  const row = {
    owners: p.owners, behind: p.behind, moved: p.moved, parked: p.parked ?? {}, workers: s.workers,
    places: plan.places.get(p.owners), lit: view.worker, chosen: chosen.p.key === p.key ? chosen.i : null,
    whole: p.done == null || !log ? null : Math.max(1, log.head / log.partitions),
    generation: last && since(last.at, s.at) < FRESH_S ? last.number : null,
  };
  const { lag_s, lag_events, per_s, eta_s } = status.away ? {} : p;
  return html`
    <div class="projection">
      <div class="name"><strong title=${p.name}>${p.name}</strong>${condition(s, p, status.away)}</div>
      <div class="cells" role="listbox" aria-orientation="horizontal"
        aria-label="Partitions of ${p.name}, version ${p.version}" data-key=${p.key}
        ${vars(plan.sizes[index])} ${cells(row)}></div>
      <div class="facts">
        <span data-label="behind"><b>${duration(lag_s)}</b></span>
        <span data-label="waiting" title="${count(lag_events)} behind what is settled">${compact(lag_events)}</span>
        <span data-label="events/s">${spark(s.history.handled[p.key] ?? [])}${compact(per_s)}</span>
        <span data-label="time left">${duration(eta_s)}</span>
        ${failing(p)}
      </div>
    </div>`;
}

/** How a projection is, in a word, since when, and why; the whole of it in a title. */
function condition(s, p, away) {
  const several = p.version > 1 || Object.values(s.projections).filter((o) => o.name === p.name).length > 1;
  const catching = p.done != null && p.state === "running";
  const own = catching ? `catching up, ${Math.floor(p.done * 100)} %` : STATES[p.state] ?? p.state;
  const word = away ? "no database" : own;
  const lasts = p.state === "running" || !p.since ? null : `for ${lasting(p.since, s.at)}`;
  const why = [p.by && `by ${p.by}`, p.reason, p.one_at_a_time && "one batch at a time"].filter(Boolean).join(": ");
  const text = `${several ? `v${p.version}, ` : ""}${word}`, state = away ? "away" : catching ? "catching" : p.state;
  return html`<span class="state" data-state=${state} title=${[text, lasts, why].filter(Boolean).join(", ")}>
    <span>${[text, why || lasts].filter(Boolean).join(", ")}</span></span>`;
}

function failing({ parked_keys: parked = 0, failing_keys: keys = 0, parked_events: events, last_error: error }) {
  const text = keys || parked ? compact(Math.max(keys, parked)) : "–";
  const title = `${plural(keys, "failing key")}, ${parked} of them parked with ${plural(events ?? 0, "event")}`;
  return html`<span data-label="failing keys" data-level=${keys || parked ? "warn" : "ok"}
    title=${error ? `${title}: ${error}` : title}>${text}</span>`;
}

function spark(history) {
  const values = history.slice(-SPARK), top = Math.max(1, ...values) * 1.4;
  const points = values.flatMap((v, i) => (v === null ? [] : `${i},${(15 - (v / top) * 14).toFixed(1)}`)).join(" ");
  return html`<svg class="spark" viewBox="0 0 ${SPARK - 1} 16" preserveAspectRatio="none"
    aria-hidden="true">${svg`<polyline points=${points} />`}</svg>`;
}

/** One line, always there: what the pointer or the focus is on, else how to read the map. */
function detail(s, rows, view) {
  const { p, i } = split(view.over ?? view.cell, rows) ?? {};
  if (!p) {
    return html`<span class="legend"><i class="swatch"></i>nothing waits <i class="swatch low"></i>behind
      <i class="swatch" data-parked></i>keys parked</span>`;
  }
  const worker = s.workers[p.owners[i]], moved = p.moved[i] ? `, since generation ${p.moved[i]}` : "";
  const who = worker ? `worker ${worker.id} (${worker.host})` : "nobody";
  return html`<span class="legend"><b>${p.name} ${i}</b>
    ${swatch(worker)}${who}${moved}: ${how(p.behind[i], p.parked?.[i])}</span>`;
}

const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Arrow keys go where they point: to the next cell of the line, or to the nearest one above or below. */
function walk(event) {
  const way = WAYS[event.key];
  if (!way || !event.target.dataset.cell) return;
  event.preventDefault();
  const here = event.target.getBoundingClientRect();
  const far = (cell) => {
    const box = cell.getBoundingClientRect(), dx = box.x - here.x, dy = box.y - here.y;
    const along = dx * way[0] + dy * way[1], beside = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
    return along < 2 || (way[0] && beside > 2) ? Infinity : along + 3 * beside;
  };
  const all = [...event.currentTarget.querySelectorAll(".cell")].map((cell) => [cell, far(cell)]);
  const [next, least] = all.reduce((a, b) => (b[1] < a[1] ? b : a));
  if (least < Infinity) next.focus();
}

/** The same for those who cannot see the map; made only while it is open. */
function alternative(s, rows, view, act) {
  const toggle = ({ target }) => act.choose({ table: target.open });
  return html`<details class="alternative" @toggle=${toggle}><summary>As a table</summary>${view.table ? html`
    <div class="scroll tall" tabindex="0" role="region" aria-label="Partitions as a table"><table class="rows">
      <thead>${columns(["projection", "state", ...FACTS, "partitions, by worker"])}</thead>
      <tbody>${repeat(rows, (p) => p.key, (p) => line(s, p))}</tbody></table></div>` : nothing}</details>`;
}

function line(s, p) {
  const held = new Map();
  p.owners.forEach((owner, i) => held.set(owner, [...(held.get(owner) ?? []), i]));
  const who = (id) => (s.workers[id] ? `worker ${id}` : "nobody");
  const whose = [...held].map(([id, partitions]) => `${who(id)}: ${ranges(partitions)}`);
  return html`<tr><th scope="row">${p.name} v${p.version}</th><td>${p.state}${p.reason ? `: ${p.reason}` : ""}</td>
    <td>${duration(p.lag_s)}</td><td>${count(p.lag_events)}</td><td>${compact(p.per_s)}</td>
    <td>${duration(p.eta_s)}</td><td>${count(p.failing_keys)}</td><td>${whose.join("; ")}</td></tr>`;
}
