// One generation: which phase took how long on which worker. The same picture as `python -m reactive_orch trace`.

import { columns, copyable, heading, html, look, nothing, vars, workerOf } from "../dom.js";
import { few, ms, time } from "../format.js";

export function waterfall(s, view, act) {
  const chosen = s.generations.findIndex((one) => one.number === Number(view.generation));
  const at = chosen < 0 ? s.generations.length - 1 : chosen, g = s.generations[at];
  if (!g) {
    return html`${heading("waterfall", "Rebalance")}
      <p class="empty">No worker has joined yet: there is no generation to draw.</p>`;
  }
  const steps = html`<span class="quiet">${time(g.at)}</span>
    ${step("‹", "Earlier", s.generations[at - 1], act)}${step("›", "Later", s.generations[at + 1], act)}`;
  return html`
    ${heading("waterfall", `Generation ${g.number}: ${g.reason} of ${few(g.subjects)}`, steps)}
    <p class="facts-line">${settled(g, s.generations[at + 1])}
      <span><b>${ms(g.notice_ms)}</b> to notice, by ${g.told_by}</span>
      <span><b>${g.moved}</b> moved, ${g.kept} kept</span></p>
    ${g.phases.length ? phases(s, g) : html`<p class="empty">Its phases are not known.</p>`}
    ${g.trace ? html`<p class="trace"><small>trace</small> ${trace(s.trace_url, g.trace)}</p>` : nothing}`;
}

const step = (sign, word, to, act) => html`<button type="button" class="step" ?disabled=${!to}
  aria-label="${word} generation" @click=${() => act.choose({ generation: to.number })}>${sign}</button>`;

const trace = (url, id) =>
  url ? html`<a href=${url.replace("{trace_id}", id)}>${id}</a>` : copyable(id, "trace id");

function settled(g, next) {
  if (g.settled_ms != null) return html`<span><b>${ms(g.settled_ms)}</b> to settle</span>`;
  if (g.overtaken) return html`<span><b>overtaken</b>${next ? ` by ${next.number}` : ""} before it settled</span>`;
  return html`<span data-level="warn"><b class="tone">not settled yet</b></span>`;
}

function phases(s, g) {
  const last = Math.max(1, ...g.phases.map((p) => p.to));
  const first = Math.max(0, 2 * (g.notice_ms ?? 0) - last); // a long time to notice leaves half the picture to the rest
  const x = (at) => Math.max(0, (at - first) / (last - first)).toFixed(4);
  const label = `Phases of generation ${g.number}`;
  return html`<div class="scroll phases-box" tabindex="0" role="region" aria-label=${label}><table class="phases">
    <thead class="unseen">${columns(["worker", "phase", "when", "took", "note"])}</thead>
    <tbody>${g.phases.map((p, i) => row(s, p, g.phases[i - 1]?.worker !== p.worker, x))}</tbody></table></div>`;
}

function row(s, p, first, x) {
  return html`<tr ?data-first=${first}>
    <th scope="row"><span class=${first ? "" : "unseen"}><span class="word">worker </span>${p.worker}</span></th>
    <td>${p.phase}</td>
    <td class="track"><i class="phase" data-phase=${p.phase} data-colour=${look(workerOf(s, p.worker)).colour}
      ${vars({ "--from": x(p.from), "--to": x(p.to) })}></i></td>
    <td class="number">${ms(p.to - p.from)}</td><td class="quiet note" title=${p.note}>${p.note}</td></tr>`;
}
