// The last minutes: generations and incidents as a ribbon, then the plots; one axis, and one cursor through all of it.

import { heading, html, nothing, repeat, svg, swatch, vars } from "../dom.js";
import { compact, duration, few, plural, time as clock } from "../format.js";
import { bandsOf, lags, LAST, linesOf, SPAN, stacked, sum, throughput } from "./plots.js";

const NAMED = 6, LANES = 2, LEAST_PX = 24;

export function time(s, view, act) {
  const end = Date.parse(s.history.until), at = view.cursor ?? LAST, moment = end - (LAST - at) * 1000;
  const x = (iso) => Math.min(1, Math.max(0, 1 - (end - Date.parse(iso)) / (LAST * 1000)));
  const bands = stacked(bandsOf(s)), lines = linesOf(s, NAMED);
  const lasted = (i) => Date.parse(i.from) <= moment && !(Date.parse(i.to) < moment);
  const then = [clock(moment), ...s.incidents.filter(lasted).map((i) => i.text)].join(", ");
  return html`
    ${heading("time", "Last three minutes",
      html`<span class="quiet" title=${then}>${view.cursor === null ? "now" : then}</span>`)}
    <div class="chart" ?data-cursor=${view.cursor !== null} ${vars({ "--cursor": at / LAST })}>
      ${ribbon(s, view, act, x)}${incidents(s, x)}
      <div class="time" tabindex="0" role="slider" aria-label="Moment" aria-valuemin="0" aria-valuemax=${LAST}
        aria-valuenow=${at} aria-valuetext="${then}: ${spoken(bands, lines, at)}"
        @keydown=${(event) => press(event, at, act)} @pointermove=${(event) => point(event, act)}
        @pointerleave=${() => move(act, null)} @blur=${() => move(act, null)}>
        <p class="plot-title">handled per second, by worker</p>
        ${throughput(bands, view.chart, marks(s, x))}
        <p class="plot-title">behind, by projection</p>
        ${lags(lines, marks(s, x))}
        <div class="axis" aria-hidden="true">
          ${[3, 2, 1].map((ago) => html`<span ${vars({ "--x": `${1 - (ago * 60) / SPAN}` })}>−${ago} min</span>`)}</div>
      </div>
    </div>
    ${readout(bands, lines, at)}`;
}

const move = (act, to) => act.choose({ cursor: to === null ? null : Math.min(LAST, Math.max(0, Math.round(to))) });

function point({ currentTarget, clientX }, act) {
  const box = currentTarget.getBoundingClientRect();
  move(act, ((clientX - box.left) / box.width) * LAST);
}

function press(event, at, act) {
  const to = {
    ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - 15, PageDown: at + 15, Home: 0, End: LAST, Escape: null,
  };
  if (!(event.key in to)) return;
  event.preventDefault();
  move(act, to[event.key]);
}

function spoken(bands, lines, at) {
  const known = lines.slice(0, NAMED).filter(({ values }) => values[at] != null);
  const behind = known.map(({ name, values }) => `${name} ${duration(values[at])} behind`);
  return [`${compact(sum(bands.map(({ values }) => values[at])))} events a second`, ...behind].join(", ");
}

function ribbon(s, view, act, x) {
  const shown = s.generations.filter((_, i) => x(s.generations[i + 1]?.at ?? s.at) > 0), newest = shown.at(-1)?.number;
  const picked = Number(view.generation ?? newest);
  const one = (g, i) => {
    const from = x(g.at), to = i + 1 < shown.length ? x(shown[i + 1].at) : 1;
    const choose = () => act.choose({ generation: g.number === newest ? null : g.number });
    return html`<button type="button" data-reason=${g.reason} aria-pressed=${g.number === picked}
      title="generation ${g.number}: ${g.reason} of ${g.subjects.join(", ")}, ${clock(g.at)}"
      ?disabled=${(to - from) * view.chart < LEAST_PX} @click=${choose} ${vars(span(from, to))}>
      <b>${g.number}</b> <span>${g.reason} of ${few(g.subjects)}</span></button>`;
  };
  return html`<div class="ribbon" role="group" aria-label="Generations">${repeat(shown, (g) => g.number, one)}</div>`;
}

const span = (from, to) => ({ "--x": from.toFixed(4), "--to": to.toFixed(4) });
const marks = (s, x) => s.generations.map((g) => x(g.at)).filter((at) => at > 0)
  .map((at) => html`<i class="mark" ${vars({ "--x": at.toFixed(4) })}></i>`);

/** Each in the first lane that is free when it begins. */
function incidents(s, x) {
  const ends = Array(LANES).fill("");
  const lane = (i) => {
    const free = Math.max(0, ends.findIndex((end) => end <= i.from));
    ends[free] = i.to ?? "9";
    return `${free}`;
  };
  const shown = s.incidents.filter((i) => !i.to || x(i.to) > 0).sort((a, b) => a.from.localeCompare(b.from));
  return html`<div class="incidents">${shown.map((i) => html`<span data-level=${i.level}
    title="${i.text}, ${clock(i.from)}${i.to ? ` to ${clock(i.to)}` : ""}"
    ${vars({ ...span(x(i.from), i.to ? x(i.to) : 1), "--lane": lane(i) })}></span>`)}</div>`;
}

/** What the bands and lines are, and what they say at the cursor. */
function readout(bands, lines, at) {
  const present = bands.filter(({ here, values }) => here || values[at]);
  const rest = lines.slice(NAMED).map(({ values }) => values[at]).filter((v) => v != null);
  return html`<div class="readout">
    <p>${present.map(({ name, worker, values }) =>
      html`<span>${swatch(worker)}${name} <b>${compact(values[at])}</b></span>`)}</p>
    <p>${lines.slice(0, NAMED).map((line) => key(line, at))}
      ${rest.length ? html`<span>${plural(rest.length, "other")}, at most <b>${duration(Math.max(...rest))}</b></span>`
        : nothing}</p>
  </div>`;
}

const key = ({ dash, name, values }, at) => html`<span title=${name}>
  <svg class="key" viewBox="0 0 20 8"
    aria-hidden="true">${svg`<path class="line" data-line=${dash} d="M0,4H20" />`}</svg>
  <span class="cut">${name}</span> <b>${duration(values[at])}</b></span>`;
