// The frontier: how far each log is settled, how far it goes, and who stands between.

import { copyable, heading, html, nothing, vars } from "../dom.js";
import { compact, count, duration, plural } from "../format.js";

export function log(s, _view, _act, { away }) {
  const logs = Object.values(s.logs), rate = logs.length === 1 && !away ? logs[0].appended_per_s : null;
  const aside = html`<span class="quiet">${rate == null ? "" : `${compact(rate)} appended a second`}</span>`;
  return html`
    ${heading("log", logs.length > 1 ? "Logs" : "Log", aside)}
    ${logs.map((one) => html`<div class="log">
      ${logs.length > 1 ? html`<h3 title=${one.name}>${one.name}</h3>` : nothing}
      ${frontier(one)}${why(s, one, away)}</div>`)}
    ${logs.length ? nothing : html`<p class="empty">No log is known yet.</p>`}`;
}

const gapOf = ({ head, settled }) => (settled == null ? null : head - settled);

function frontier(one) {
  const gap = gapOf(one), share = gap ? Math.min(0.6, 0.05 + Math.log10(gap) / 9).toFixed(3) : "0";
  return html`<div class="frontier" ?data-held=${one.held_by.length} ${vars({ "--gap": share })}>
    <i class="settled"></i><i class="gap"></i>
    <p><span class="quiet">settled</span> <b>${count(one.settled)}</b></p>
    <p>${gap ? html`<span class="gap-words">${compact(gap)} not settled</span>` : nothing}</p>
    <p><span class="quiet">head</span> <b>${count(one.head)}</b></p>
  </div>`;
}

function why(s, one, away) {
  if (one.refusal) return html`<p data-level="bad"><b class="tone">It is not read:</b> ${one.refusal}</p>`;
  if (one.held_by.length) return html`<div class="holders" tabindex="0" role="region"
    aria-label="Who holds ${one.name}">${one.held_by.map((h) => holder(h, gapOf(one)))}</div>`;
  if (away) return html`<p class="empty">As it was when the database was last seen.</p>`;
  if (gapOf(one) == null) return html`<p class="empty">How far it is settled is not known yet.</p>`;
  if (one.head) return html`<p class="empty">No writer holds it: all up to the head may be read, or soon will be.</p>`;
  return html`<p class="empty">The log is empty.</p>${s.commands.append ? copyable(s.commands.append) : nothing}`;
}

function holder(h, gap) {
  const who = h.pid == null ? `prepared transaction ${h.prepared}` : `pid ${h.pid}`;
  return html`<div class="holder">
    <p>${gap ? html`<b>${plural(gap, "event waits", "events wait")}</b> for ` : "held by "}
      <b>${h.application || "no application name"}</b>, ${who}, ${h.state}, open for ${duration(h.age_s)}</p>
    ${h.query ? html`<code class="query" title=${h.query}>${h.query}</code>` : nothing}
    ${h.command ? copyable(h.command) : nothing}</div>`;
}
