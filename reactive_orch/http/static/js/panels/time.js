// The last minutes: generations and incidents as a ribbon, throughput by worker, lag by projection; one axis, one cursor.

import { heading, html, look, named, nothing, repeat, svg, swatch, vars, workerOf } from "../dom.js";
import { compact, duration, few, plural, ranges, time as clock } from "../format.js";

const SPAN = 180, LAST = SPAN - 1, LOW_S = 0.02, BANDS = 12, LINES = 6, LANES = 2, USUAL = 0.85;
const TICKS = [[0.1, "100 ms"], [1, "1 s"], [10, "10 s"], [60, "1 min"], [3600, "1 h"], [86400, "1 d"], [864000, "10 d"]];

export function time(s, view, act) {
  const end = Date.parse(s.history.until), at = view.cursor ?? LAST;
  const x = (iso) => Math.min(1, Math.max(0, 1 - (end - Date.parse(iso)) / (LAST * 1000)));
  const moment = end - (LAST - at) * 1000, when = clock(moment);
  const lasted = (i) => Date.parse(i.from) <= moment && !(Date.parse(i.to) < moment);
  const then = s.incidents.filter(lasted).map((i) => `, ${i.text}`).join("");
  const move = (cursor) => act.choose({ cursor: cursor === null ? null : Math.min(LAST, Math.max(0, Math.round(cursor))) });
  const key = (e) => {
    const steps = { ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - 15, PageDown: at + 15, Home: 0, End: LAST, Escape: null };
    if (!(e.key in steps)) return;
    e.preventDefault();
    move(steps[e.key]);
  };
  const point = (e) => {
    const box = e.currentTarget.getBoundingClientRect();
    move(((e.clientX - box.left) / box.width) * LAST);
  };
  const bands = stack(bandsOf(s)), lines = linesOf(s);
  const spoken = [`${compact(sum(bands.map((b) => b.values[at])))} events a second`, ...lines.map((l) => `${l.name} ${duration(l.values[at])} behind`)];
  return html`
    ${heading("time", "Last three minutes", html`<span class="quiet" title=${then.slice(2)}>${view.cursor === null ? "now" : `${when}${then}`}</span>`)}
    <div class="chart" ?data-cursor=${view.cursor !== null} ${vars({ "--cursor": at / LAST })}>
      ${ribbon(s, view, act, x)}${incidents(s, x)}
      <div class="time" tabindex="0" role="slider" aria-label="Moment" aria-valuemin="0" aria-valuemax=${LAST} aria-valuenow=${at}
        aria-valuetext="${when}: ${spoken.join(", ")}${then}"
        @keydown=${key} @pointermove=${point} @pointerleave=${() => move(null)} @blur=${() => move(null)}>
        <p class="plot-title">handled per second, by worker</p>${throughput(s, bands, x, view.chart)}
        <p class="plot-title">behind, by projection</p>${lags(s, lines, x)}
        <div class="axis" aria-hidden="true">
          ${[180, 120, 60].map((ago) => html`<span ${vars({ "--x": `${1 - ago / SPAN}` })}>−${ago / 60} min</span>`)}</div>
      </div>
    </div>
    ${readout(bands, lines, at)}`;
}

const sum = (values) => values.reduce((a, b) => a + (b ?? 0), 0);

function ribbon(s, view, act, x) {
  const shown = s.generations.filter((g, i) => x(s.generations[i + 1]?.at ?? s.at) > 0), newest = shown.at(-1)?.number;
  const end = (i) => (i + 1 < shown.length ? x(shown[i + 1].at) : 1);
  const picked = Number(view.generation ?? newest);
  const one = (g, i) => html`<button type="button" data-reason=${g.reason} aria-pressed=${g.number === picked}
    title="generation ${g.number}: ${g.reason} of ${g.subjects.join(", ")}, ${clock(g.at)}" ${vars({ "--x": x(g.at).toFixed(4), "--to": end(i).toFixed(4) })}
    ?disabled=${(end(i) - x(g.at)) * view.chart < 24} @click=${() => act.choose({ generation: g.number === newest ? null : g.number })}>
    <b>${g.number}</b> <span>${g.reason} of ${few(g.subjects)}</span></button>`;
  return html`<div class="ribbon" role="group" aria-label="Generations">${repeat(shown, (g) => g.number, one)}</div>`;
}

/** Each in the first lane that is free when it begins. */
function incidents(s, x) {
  const ends = Array(LANES).fill("");
  const lane = (i) => {
    const free = Math.max(0, ends.findIndex((end) => end <= i.from));
    ends[free] = i.to ?? "9";
    return free;
  };
  const sorted = s.incidents.filter((i) => !i.to || x(i.to) > 0).sort((a, b) => a.from.localeCompare(b.from));
  return html`<div class="incidents">${sorted.map((i) => html`<span data-level=${i.level}
    title="${i.text}, ${clock(i.from)}${i.to ? ` to ${clock(i.to)}` : ""}"
    ${vars({ "--x": x(i.from).toFixed(4), "--to": (i.to ? x(i.to) : 1).toFixed(4), "--lane": `${lane(i)}` })}></span>`)}</div>`;
}

/** What each worker handled; of many, neighbours share a band, else none could be seen. */
function bandsOf(s) {
  const all = Object.entries(s.history.rate), size = Math.ceil(all.length / BANDS);
  return Array.from({ length: Math.ceil(all.length / size) || 0 }, (_, i) => band(s, all.slice(i * size, (i + 1) * size)));
}

function band(s, those) {
  const ids = those.map(([id]) => Number(id)), at = (i) => those.map(([, values]) => values[i]).filter((v) => v != null);
  const values = Array.from({ length: SPAN }, (_, i) => (at(i).length ? sum(at(i)) : null));
  return { name: ranges(ids), worker: workerOf(s, ids[0]), here: ids.some((id) => s.workers[id]), values };
}

/** One band on top of the other. */
function stack(bands) {
  const floor = Array(SPAN).fill(0);
  return bands.map((band) => ({ ...band, low: [...floor], high: band.values.map((v, i) => (floor[i] += v ?? 0)) }));
}

/** The greatest value of the axis: what is usual fills it, a short catch-up is cut: its shares stay, its peak is written. */
function top(totals) {
  const sorted = totals.toSorted((a, b) => a - b), usual = Math.max(1, sorted[Math.floor(sorted.length * USUAL)] * 1.15);
  const step = 10 ** Math.floor(Math.log10(usual));
  return [1, 1.5, 2, 3, 5, 7.5, 10].map((n) => n * step).find((n) => n >= usual);
}

function peaks(totals, most) {
  const runs = [];
  totals.forEach((v, i) => {
    if (v <= most) return;
    if (runs.at(-1)?.end >= i - 6) Object.assign(runs.at(-1), { end: i, value: Math.max(v, runs.at(-1).value) });
    else runs.push({ start: i, end: i, value: v });
  });
  return runs;
}

const tick = (y, text) => html`<div class="tick" ${vars({ "--y": `${y}` })}><span>${text}</span></div>`;
const canvas = (paths) => html`<svg viewBox="0 0 ${LAST} 100" preserveAspectRatio="none" aria-hidden="true">${paths}</svg>`;
const marks = (s, x) => s.generations.filter((g) => x(g.at) > 0).map((g) => html`<i class="mark" ${vars({ "--x": x(g.at).toFixed(4) })}></i>`);

function throughput(s, bands, x, width) {
  if (!bands.length) return html`<div class="plot"><p class="empty">Nothing was handled.</p></div>`;
  const totals = bands.at(-1).high, most = top(totals), highest = Math.max(...totals);
  const told = peaks(totals, most).filter((p) => width > 500 || p.value === highest);
  const point = (v, i) => `${i},${(100 - (v / Math.max(most, totals[i])) * 100).toFixed(1)}`;
  const d = ({ low, high }) => `M${high.map(point).join("L")}L${low.map(point).reverse().join("L")}Z`;
  return html`<div class="plot cropped">${[most, most / 2].map((v) => tick(v / most, compact(v)))}
    ${canvas(bands.map((band) => svg`<path class="band" data-colour=${look(band.worker).colour} d=${d(band)} />`))}${marks(s, x)}
    ${told.map((p) => html`<span class="peak" ${vars({ "--x": `${(p.start + p.end) / 2 / LAST}` })}>↑ ${compact(Math.round(p.value))}</span>`)}</div>`;
}

/** The projections; of many, those that were furthest behind stand out, and have a name below. */
function linesOf(s) {
  const all = Object.entries(s.projections).map(([key, p]) => ({ key, name: named(p), values: s.history.lag[key] ?? [] }));
  if (all.length <= LINES) return all.map((line, i) => ({ ...line, dash: i }));
  const ranked = all.toSorted((a, b) => Math.max(0, ...b.values) - Math.max(0, ...a.values));
  return ranked.map((line, i) => ({ ...line, dash: i < LINES ? i : "rest" }));
}

function lags(s, lines, x) {
  const most = Math.max(2, ...lines.flatMap(({ values }) => values)) * 1.5, scale = Math.log(most / LOW_S);
  const height = (v) => Math.log(Math.max(v, LOW_S) / LOW_S) / scale;
  const point = (values, v, i) => (v == null ? "" : `${values[i - 1] == null ? "M" : "L"}${i},${(100 - height(v) * 100).toFixed(1)}`);
  const d = ({ values }) => values.map((v, i) => point(values, v, i)).join("");
  const ticks = TICKS.filter(([v]) => v < most).filter(([v], i, all) => !all[i + 1] || height(all[i + 1][0]) - height(v) > 0.13);
  return html`<div class="plot">${ticks.map(([v, text]) => tick(height(v), text))}
    ${canvas(lines.toReversed().map((line) => svg`<path class="line" data-line=${line.dash} d=${d(line)} />`))}${marks(s, x)}</div>`;
}

/** What the bands and lines are, and what they say at the cursor. */
function readout(bands, lines, at) {
  const present = bands.filter(({ here, values }) => here || values[at]);
  const shown = lines.slice(0, LINES), rest = lines.slice(LINES).map((l) => l.values[at]).filter((v) => v != null);
  return html`<div class="readout">
    <p>${present.map(({ name, worker, values }) => html`<span>${swatch(worker)}${name} <b>${compact(values[at])}</b></span>`)}</p>
    <p>${shown.map(({ dash, name, values }) => html`<span title=${name}><svg class="key" viewBox="0 0 20 8"
      aria-hidden="true">${svg`<path class="line" data-line=${dash} d="M0,4H20" />`}</svg><span class="cut">${name}</span>
      <b>${duration(values[at])}</b></span>`)}${rest.length ? html`<span>${plural(rest.length, "other")}, at most <b>${duration(Math.max(...rest))}</b></span>` : nothing}</p>
  </div>`;
}
