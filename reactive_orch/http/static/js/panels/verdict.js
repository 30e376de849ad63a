// One sentence: all is well, or what is wrong, since when, who, and what helps. All problems are a click away.

import { copyable, html, lasts, named, nothing } from "../dom.js";
import { ago, compact, count, duration, few, ms, plural, since, time } from "../format.js";

const DID = {
  join: "joined", leave: "left", death: "died", stale: "had no heartbeat", capability: "runs other projections now",
};
const MARKS = { ok: "✓", note: "i", warn: "!", bad: "×" };
const LONG = 60, NEWS_S = 15;

/** What only this page knows comes first: what it has lost it cannot judge. Then what the server found, worst first. */
function problems(s, { link, paused, away, latest }) {
  const own = [];
  const add = (text, rest) => own.push({ level: "bad", text, ...rest });
  const lost = { since: new Date(link.since).toISOString(), now: new Date().toISOString() };
  if (link.state === "refused") add(link.text, { who: html`<a href="?">The worker's own replica set</a>` });
  if (link.state === "lost") {
    const who = s ? `what it shows is of ${time(s.at)}; it tries again by itself` : "it tries again by itself";
    add(`This page ${s ? "has lost" : "cannot reach"} its worker`, { ...lost, who, command: s?.commands.status });
  }
  const news = (p) => p.level === "bad" && !s.problems.some((old) => old.text === p.text);
  const worse = paused && latest.problems.find(news);
  if (worse) add(`Since the pause: ${worse.text}`, { who: "resume to see it", since: worse.since });
  if (away) {
    add(s.database.headline ?? "The database cannot be reached", { since: s.database.since, who: s.database.reason });
  }
  return [...own, ...(s?.problems ?? [])];
}

export function headline(s, status) {
  const fine = s ? { level: "ok", text: "All is well" } : { level: "note", text: "Connecting" };
  const worst = problems(s, status)[0] ?? fine;
  return { ...worst, mark: MARKS[worst.level] };
}

export function verdict(s, view, act, status) {
  const { level, mark, text, since: from, who, command, now = status.now } = headline(s, status);
  const all = problems(s, status), help = level === "ok" ? calm(s, status.now) : who;
  return html`
    <div class="verdict" data-level=${level}>
      <span class="sign" aria-hidden="true">${mark}</span>
      <p class="headline" ?data-long=${text.length > LONG} title=${text}>${text}${lasts(from, now)}</p>
      <div class="help">
        ${help ? html`<p class="quiet" title=${typeof help === "string" ? help : nothing}>${help}</p>` : nothing}
        ${command ? copyable(command) : nothing}
        ${all.length > 1 ? more(all, view, act) : nothing}</div>
      ${s ? figures(s, status.away) : nothing}
      <ol class="problems" id="problems" ?hidden=${!view.problems || all.length < 2}>
        ${view.problems ? all.map((p) => problem(p, status)) : nothing}</ol>
    </div>`;
}

const more = (all, view, act) => html`<button type="button" class="more" aria-expanded=${view.problems}
  aria-controls="problems" @click=${() => act.choose({ problems: !view.problems })}>
  ${all.slice(0, 5).map((p) => html`<i data-level=${p.level}></i>`)} ${plural(all.length, "problem")}</button>`;

const problem = ({ level, text, since: from, who, command, now }, status) => html`<li data-level=${level}>
  <p><b>${text}</b>${lasts(from, now ?? status.now)}</p>
  ${who ? html`<p class="quiet">${who}</p>` : nothing}${command ? copyable(command) : nothing}</li>`;

function calm(s, now) {
  const last = s.generations.at(-1);
  if (last && since(last.at, now) < NEWS_S) {
    const whose = last.subjects.length === 1 ? "Worker" : "Workers";
    return html`<strong>${whose} ${few(last.subjects)} ${DID[last.reason] ?? last.reason}</strong> ${ago(last.at, now)}:
      noticed in ${ms(last.notice_ms)}, ${plural(last.moved, "partition")} moved,
      ${last.settled_ms == null ? "not settled yet" : `settled in ${ms(last.settled_ms)}`}`;
  }
  const serving = Object.values(s.workers).filter((w) => ["serving", "active"].includes(w.state)).length;
  const served = plural(Object.keys(s.projections).length, "projection");
  const change = last ? `the last change was ${ago(last.at, now)}` : "there was no rebalance yet";
  return `${plural(serving, "worker serves", "workers serve")} ${served}; ${change}`;
}

/** The sum of what is known; null if nothing is. */
function sum(all, value) {
  const known = all.map(value).filter((one) => one != null);
  return known.length ? known.reduce((a, b) => a + b, 0) : null;
}

/** The four numbers to look at; a projection that catches up is behind by nature, and in the map. */
function figures(s, away) {
  const projections = Object.values(s.projections), logs = away ? [] : Object.values(s.logs);
  const live = away ? [] : projections.filter((p) => p.done == null && p.lag_s != null);
  const slowest = live.reduce((a, b) => (b.lag_s > (a?.lag_s ?? -1) ? b : a), null);
  const parked = sum(projections, (p) => p.parked_keys);
  const gap = sum(logs, (l) => (l.settled == null ? null : l.head - l.settled));
  const farthest = slowest ? `${named(slowest)}: ${count(slowest.lag_events)} events` : "";
  const figure = (name, value, unit = "", title = "") =>
    html`<div title=${title}><dt>${name}</dt><dd>${value}<small>${unit}</small></dd></div>`;
  return html`<dl class="figures">
    ${figure("appended", compact(sum(logs, (l) => l.appended_per_s)), " /s")}
    ${figure("furthest behind", duration(slowest?.lag_s), "", farthest)}
    ${figure("unsettled", compact(gap), "", "appended, but not to be read yet: a writer before them is not done")}
    ${figure("parked", compact(parked), parked === 1 ? " key" : " keys")}
  </dl>`;
}
