// Wires the stream to the store and the store to the panels. A panel is a pure function of the snapshot, what the viewer
// has chosen (view), what can be chosen (act) and how the page itself is (status); it returns a template.

import { mark, render, say } from "./dom.js";
import { behind } from "./panels/behind.js";
import { bar } from "./panels/bar.js";
import { failures } from "./panels/failures.js";
import { log } from "./panels/log.js";
import { map } from "./panels/map.js";
import { time } from "./panels/time.js";
import { headline, verdict } from "./panels/verdict.js";
import { waterfall } from "./panels/waterfall.js";
import { workers } from "./panels/workers.js";
import { createStore } from "./store.js";
import { connect } from "./stream.js";

const panels = { map, time, waterfall, workers, log, failures, behind };
const PATIENCE_MS = 1500;
const root = (id) => document.getElementById(id);

/** What the viewer has chosen; nothing of it is known to the server. The address keeps what is worth sharing. */
const kept = new URLSearchParams(location.hash.slice(1));
const view = {
  width: 0, chart: 0, cell: kept.get("cell"), generation: kept.get("generation"),
  over: null, worker: null, cursor: null, problems: false, table: false, letters: null,
};

const act = {
  choose(change) {
    Object.assign(view, change);
    chosen = true;
    const worth = Object.entries({ generation: view.generation, cell: view.cell }).filter(([, value]) => value);
    const hash = worth.length ? `#${new URLSearchParams(worth)}` : "";
    if (hash !== location.hash) history.replaceState(null, "", `${location.pathname}${location.search}${hash}`);
    schedule();
  },
  pause: () => store.pause(!store.paused),
  theme() {
    const next = { auto: "light", light: "dark", dark: "auto" }[document.documentElement.dataset.theme];
    document.documentElement.dataset.theme = next;
    schedule();
    localStorage.setItem("theme", next);
  },
};

let scheduled = false, chosen = true, painted = null, told = "";
function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(paint);
}

/** Of the panels only if something of theirs is new: the bar and the verdict have ages that grow by themselves. */
function paint() {
  scheduled = false;
  const { shown, status } = present();
  render(bar(shown, view, act, status), root("bar"));
  render(verdict(shown, view, act, status), root("verdict"));
  if (shown && (shown !== painted || chosen)) {
    for (const [id, panel] of Object.entries(panels)) render(panel(shown, view, act, status), root(id));
  }
  [painted, chosen] = [shown, false];
  const { text, mark: sign } = headline(shown, status);
  document.title = `${sign} ${shown?.replica_set ?? "no data"} – reactive_orch`;
  if (shown && text !== told) say((told = text)); // changes of the verdict, nothing that ticks
  mark(document.body, "stale", status.stale);
  mark(document.body, "shows", visibleNow(shown, status));
}

/** What is painted, and how old it is. The database's clock goes on from its last look, unless the viewer paused. */
function present() {
  const { shown, latest, link, paused, heard, looked } = store;
  const age_s = (Date.now() - heard) / 1000;
  const now = shown && new Date(Date.parse(shown.at) + (paused ? 0 : Date.now() - looked)).toISOString();
  const missed_s = shown && (Date.parse(latest.at) - Date.parse(shown.at)) / 1000;
  const away = shown?.database.state === "away";
  return { shown, status: { link, paused, age_s, now, missed_s, away, latest, stale: away || link.state !== "live" } };
}

/** All is seen once its width is known, so that nothing moves while the page loads; that it takes long is seen, too. */
function visibleNow(shown, { link }) {
  if (!shown) return link.state === "connecting" && Date.now() - link.since < PATIENCE_MS ? "nothing" : "verdict";
  return view.chart ? "all" : "nothing";
}

const store = createStore(connect, schedule);
setInterval(schedule, 1000); // ages grow while nothing comes
new ResizeObserver(() => {
  const measured = (selector) => document.querySelector(selector)?.clientWidth ?? 0;
  const width = measured("#map .cells"), chart = measured(".chart");
  if (width === view.width && chart === view.chart) return;
  Object.assign(view, { width, chart });
  chosen = true;
  mark(root("map"), "still", true); // a resize is no rebalance: nothing glides
  paint();
  requestAnimationFrame(() => mark(root("map"), "still", false));
}).observe(root("main"));
