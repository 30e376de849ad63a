// What failed, grouped by error and line; what can be done about it; and, on demand, each failing key.

import { copyable, heading, html, named, nothing, repeat } from "../dom.js";
import { ago, compact, few, plural, time } from "../format.js";

export function failures(s, view, act) {
  const causes = s.failures.length + (s.more_failures ?? 0);
  return html`
    ${heading("failures", "Failures", html`<span class="quiet">${causes ? plural(causes, "cause") : ""}</span>`)}
    ${causes ? nothing : html`<p class="empty">Nothing is parked and nothing is being tried again.</p>`}
    <div class="causes">${repeat(s.failures, idOf, (f) => cause(s, f, view, act))}</div>
    ${s.more_failures ? html`<p class="quiet">${plural(s.more_failures, "cause")} more, not shown.</p>` : nothing}`;
}

const commands = ({ commands: known }, verbs) => verbs.map((verb) => (known?.[verb] ? copyable(known[verb]) : nothing));
const idOf = (f) => JSON.stringify([f.projection, f.version, f.log, f.error, f.message, f.at_line]);

function cause(s, f, view, act) {
  const open = view.letters?.of === idOf(f), partitions = f.partitions.length === 1 ? "partition" : "partitions";
  const toggle = () => (open ? act.choose({ letters: null }) : look(s, f, act));
  return html`<article class="cause">
    <p class="error" title="${f.error}: ${f.message ?? ""}"><b>${f.error}</b>
      ${f.at_line ? html`at <code>${f.at_line}</code>` : nothing} ${f.message ?? nothing}</p>
    <p class="quiet"><b>${named({ name: f.projection, version: f.version })}</b>, ${partitions} ${few(f.partitions, 8)}:
      ${plural(f.keys, "key")}, ${f.parked_keys ? compact(f.parked_keys) : "none"} parked;
      ${plural(f.events, "event waits", "events wait")}; ${plural(f.attempts, "attempt")},
      first ${ago(f.first_at, s.at)}, last ${ago(f.last_at, s.at)}</p>
    <div class="first"><button type="button" aria-expanded=${open} @click=${toggle}>
        ${open ? "Close" : `Look into ${plural(f.keys, "key")}`}</button>
      ${commands(f, open ? [] : ["show"])}</div>
    ${open ? letters(s, f, view.letters) : nothing}</article>`;
}

/** Ask the server for the keys of a cause. It knows them by projection; those with another error are left out here. */
async function look(s, f, act) {
  const of = idOf(f), asked = new URLSearchParams({ replica_set: s.replica_set, projection: f.projection, log: f.log });
  act.choose({ letters: { of } });
  try {
    const answer = await fetch(`dead-letters?${asked}`), body = await answer.json();
    if (!answer.ok) throw new Error(body.error);
    const same = body.keys.filter((key) => key.error.startsWith(f.error));
    act.choose({ letters: { of, keys: same.length ? same : body.keys, more: body.more, at: Date.now() } });
  } catch (error) {
    act.choose({ letters: { of, failed: error.message } });
  }
}

function letters(s, f, { keys, more, at, failed }) {
  if (failed) return html`<p class="empty" role="alert">The keys could not be read: ${failed}</p>`;
  if (!keys) return html`<p class="empty">Reading the keys …</p>`;
  if (!keys.length) return html`<p class="empty">No key of ${f.projection} fails any more.</p>`;
  const others = more ? ", and more of this projection" : "";
  return html`<p class="quiet">As of ${time(at)}: ${plural(keys.length, "key")}${others}</p>
    <div class="tall letters" tabindex="0" role="region" aria-label="Keys that fail with ${f.error}">
      ${keys.map((key) => letter(s, key))}</div>
    <p class="quiet">All failing keys of ${f.projection}, whatever they fail with:</p>
    <div class="verbs">${commands(f, ["retry", "discard"])}</div>`;
}

function letter(s, k) {
  const facts = [
    [k.context, k.type].filter(Boolean).join(" "), `partition ${k.partition}`, k.state,
    k.request && `${k.request} asked for`, plural(k.events, "event"), plural(k.attempts, "attempt"), ago(k.last, s.at),
  ];
  return html`<details class="letter">
    <summary><b title=${k.key}>${k.key}</b> <span class="quiet">${facts.filter(Boolean).join(", ")}</span></summary>
    <p>${k.error}</p>
    <div class="verbs">${commands(k, ["retry", "skip", "discard", "show"])}</div>
    ${block("Traceback", k, k.traceback)}
    <dl class="pairs">${pairs(s, k).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    ${block("Payload", k, k.event?.payload)}</details>`;
}

const block = (what, k, text) =>
  text ? html`<pre tabindex="0" role="region" aria-label="${what} of ${k.key}">${text}</pre>` : nothing;

function pairs(s, { event, since, last, worker, first_position: position }) {
  const all = [
    ["event", event?.type], ["position", event?.position ?? position], ["event id", event?.id],
    ["version", event?.version], ["appended", event?.created_at],
    ["first failed", since], ["last failed", last], ["on worker", worker],
  ];
  return all.filter(([, value]) => value != null);
}
