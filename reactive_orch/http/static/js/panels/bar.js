// Whose page this is, which others there are, how old what it shows is, and the two switches.

import { html, nothing } from "../dom.js";
import { duration, time } from "../format.js";

const THEMES = { auto: "Auto", light: "Light", dark: "Dark" };
const OLD_S = 5;

export function bar(s, _view, act, status) {
  const theme = document.documentElement.dataset.theme;
  const number = s?.generations.at(-1)?.number;
  return html`
    ${s?.replica_sets.length > 1 ? sets(s) : nothing}
    <div class="brand"><i aria-hidden="true"></i>
      <h1 title=${s?.replica_set ?? nothing}>${s?.replica_set ?? "reactive_orch"}</h1>
      ${s ? html`<span class="quiet">${number ? `generation ${number}` : "no generation yet"}</span>` : nothing}</div>
    <div class="controls">
      <span class="link" data-state=${stateOf(status)}
        title=${s?.served_by ? `from worker ${s.served_by}, reactive_orch ${s.version}` : nothing}>
        ${words(s, status)}</span>
      <button type="button" aria-pressed=${status.paused} ?disabled=${!s} @click=${act.pause}>
        ${status.paused ? "Resume" : "Pause"}</button>
      <button type="button" aria-label="Theme: ${theme}" @click=${act.theme}>
        <span aria-hidden="true">◐</span> ${THEMES[theme]}</button>
    </div>`;
}

const sets = (s) => html`<nav aria-label="Replica sets">${s.replica_sets.map((name) => html`
  <a href="?${new URLSearchParams({ replica_set: name })}" title=${name}
    aria-current=${name === s.replica_set ? "page" : nothing}>${name}</a>`)}</nav>`;

const stateOf = ({ paused, link, away }) => (paused ? "paused" : link.state === "live" && away ? "away" : link.state);

function words(s, { link, paused, age_s, missed_s, away }) {
  if (!s) return link.state === "connecting" ? "connecting" : "not connected";
  if (paused) return `paused at ${time(s.at)}, ${duration(missed_s)} behind`;
  if (link.state !== "live") return `not connected, data of ${time(s.at)}`;
  if (away) return `no database, data of ${time(s.at)}`;
  return `live, ${time(s.at)}${age_s > OLD_S ? `, ${duration(Math.floor(age_s))} ago` : ""}`;
}
