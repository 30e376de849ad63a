// One plain object, `snapshot`, replaced by its successor with every patch. Nobody else keeps state of the replica set.

const HISTORY = 180, PATCHES_S = 5;

/** JSON merge patch (RFC 7396): objects merge, null deletes, all else replaces. What it does not name is shared. */
export function merge(target, patch) {
  if (!isObject(patch)) return patch;
  const past = isObject(target) ? target : {};
  const merged = Object.entries(patch).map(([key, value]) => [key, merge(past[key], value)]);
  const all = Object.fromEntries([...Object.entries(past), ...merged]);
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== null));
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** Add a column for each second to the plots' history. The server sends it once, in the snapshot; patches do not. */
export function remember(history, { at, workers, projections }) {
  const due = Math.floor((Date.parse(at) - Date.parse(history.until)) / 1000);
  const slots = Object.values(workers).map((w) => [w.id, w.slot]);
  const known = { ...history, slots: Object.fromEntries([...Object.entries(history.slots ?? {}), ...slots]) };
  if (due < 1) return known;
  const heard = Math.min(due, PATCHES_S); // of a longer silence nothing is known but its end
  const added = (value) => [...Array(due - heard).fill(null), ...Array(heard).fill(value ?? null)];
  const series = (past, present, field) => {
    const ids = new Set([...Object.keys(past), ...Object.keys(present)]);
    const grown = [...ids].map((id) =>
      [id, [...(past[id] ?? Array(HISTORY).fill(null)), ...added(present[id]?.[field])].slice(-HISTORY)]);
    return Object.fromEntries(grown.filter(([, values]) => values.some((v) => v !== null)));
  };
  return {
    ...known,
    until: new Date(Date.parse(history.until) + due * 1000).toISOString(),
    rate: series(history.rate, workers, "per_s"),
    lag: series(history.lag, projections, "lag_s"),
    handled: series(history.handled, projections, "per_s"),
  };
}

/** Generations come by number, so that a patch names only the new one; they are shown in their order. */
const inOrder = (snapshot) => ({ ...snapshot, generations: Object.values(snapshot.generations) });

/** Keeps what came last and what is shown: the same, unless the viewer has paused. Calls `changed` at each change. */
export function createStore(connect, changed) {
  const link = { state: "connecting", since: Date.now() };
  const store = { latest: null, shown: null, paused: false, link, heard: 0, looked: 0 };
  const put = (next) => {
    store.heard = Date.now();
    if (next.at !== store.latest?.at) store.looked = store.heard;
    store.latest = { ...next, history: remember(next.history, next) };
    if (!store.paused) store.shown = inOrder(store.latest);
    changed();
  };
  store.pause = (paused) => {
    store.paused = paused;
    if (!paused) store.shown = inOrder(store.latest);
    changed();
  };
  connect({
    snapshot: put,
    patch: (patch) => put(merge(store.latest, patch)),
    link: (state, text) => {
      if (state !== store.link.state) store.link = { state, text, since: Date.now() };
      changed();
    },
  });
  return store;
}
