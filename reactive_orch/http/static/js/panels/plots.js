// Throughput as bands, lag as lines: SVG paths, a point a second. What a value is at the cursor is told elsewhere.

import { html, look, named, svg, vars, workerOf } from "../dom.js";
import { compact, ranges } from "../format.js";

export const SPAN = 180, LAST = SPAN - 1;
const BANDS = 12, USUAL = 0.85, APART = 6, ROOM_PX = 500, LOW_S = 0.02, TICKS_APART = 0.13;
const TICKS = [
  [0.1, "100 ms"], [1, "1 s"], [10, "10 s"], [60, "1 min"], [3600, "1 h"], [86400, "1 d"], [864000, "10 d"],
];

export const sum = (values) => values.reduce((a, b) => a + (b ?? 0), 0);

/** What each worker handled; of many, neighbours share a band, else none could be seen. */
export function bandsOf(s) {
  const all = Object.entries(s.history.rate), size = Math.max(1, Math.ceil(all.length / BANDS));
  const groups = Array.from({ length: Math.ceil(all.length / size) }, (_, i) => all.slice(i * size, (i + 1) * size));
  return groups.map((those) => {
    const ids = those.map(([id]) => Number(id));
    const known = (i) => those.map(([, values]) => values[i]).filter((v) => v != null);
    const values = Array.from({ length: SPAN }, (_, i) => (known(i).length ? sum(known(i)) : null));
    return { name: ranges(ids), worker: workerOf(s, ids[0]), here: ids.some((id) => s.workers[id]), values };
  });
}

/** One band on top of the other. */
export function stacked(bands) {
  const floor = Array(SPAN).fill(0);
  return bands.map((band) => ({ ...band, low: [...floor], high: band.values.map((v, i) => (floor[i] += v ?? 0)) }));
}

/** The projections; of many, those that were furthest behind stand out. */
export function linesOf(s, most) {
  const worst = ({ values }) => Math.max(0, ...values);
  const all = Object.entries(s.projections).map(([key, p]) => ({ name: named(p), values: s.history.lag[key] ?? [] }));
  const ranked = all.length > most ? all.toSorted((a, b) => worst(b) - worst(a)) : all;
  return ranked.map((line, i) => ({ ...line, dash: i < most ? i : "rest" }));
}

/** The greatest value of the axis: what is usual fills it, a short catch-up is cut: shares stay, its peak is written. */
function top(totals) {
  const sorted = totals.toSorted((a, b) => a - b);
  const usual = Math.max(1, sorted[Math.floor(sorted.length * USUAL)] * 1.15);
  const step = 10 ** Math.floor(Math.log10(usual));
  return [1, 1.5, 2, 3, 5, 7.5, 10].map((n) => n * step).find((n) => n >= usual);
}

function peaks(totals, most) {
  const runs = [];
  totals.forEach((v, i) => {
    const last = runs.at(-1);
    if (v <= most) return;
    if (last?.end >= i - APART) Object.assign(last, { end: i, value: Math.max(v, last.value) });
    else runs.push({ start: i, end: i, value: v });
  });
  return runs;
}

const tick = (y, text) => html`<div class="tick" ${vars({ "--y": `${y}` })}><span>${text}</span></div>`;

const canvas = (paths) =>
  html`<svg viewBox="0 0 ${LAST} 100" preserveAspectRatio="none" aria-hidden="true">${paths}</svg>`;

const peak = ({ start, end, value }) => html`<span class="peak" ${vars({ "--x": `${(start + end) / 2 / LAST}` })}>
  ↑ ${compact(Math.round(value))}</span>`;

export function throughput(bands, width, marks) {
  if (!bands.length) return html`<div class="plot"><p class="empty">Nothing was handled.</p></div>`;
  const totals = bands.at(-1).high, most = top(totals), highest = Math.max(...totals);
  const point = (v, i) => `${i},${(100 - (v / Math.max(most, totals[i])) * 100).toFixed(1)}`;
  const d = ({ low, high }) => `M${high.map(point).join("L")}L${low.map(point).reverse().join("L")}Z`;
  const path = (band) => svg`<path class="band" data-colour=${look(band.worker).colour} d=${d(band)} />`;
  return html`<div class="plot cropped">${[most, most / 2].map((v) => tick(v / most, compact(v)))}
    ${canvas(bands.map(path))}${marks}
    ${peaks(totals, most).filter(({ value }) => width > ROOM_PX || value === highest).map(peak)}</div>`;
}

export function lags(lines, marks) {
  const most = Math.max(2, ...lines.flatMap(({ values }) => values)) * 1.5, scale = Math.log(most / LOW_S);
  const height = (v) => Math.log(Math.max(v, LOW_S) / LOW_S) / scale;
  const point = (v, i, all) =>
    v == null ? "" : `${all[i - 1] == null ? "M" : "L"}${i},${(100 - height(v) * 100).toFixed(1)}`;
  const path = ({ dash, values }) => svg`<path class="line" data-line=${dash} d=${values.map(point).join("")} />`;
  const apart = ([v], i, all) => !all[i + 1] || height(all[i + 1][0]) - height(v) > TICKS_APART;
  const ticks = TICKS.filter(([v]) => v < most).filter(apart);
  return html`<div class="plot">${ticks.map(([v, text]) => tick(height(v), text))}
    ${canvas(lines.toReversed().map(path))}${marks}</div>`;
}
