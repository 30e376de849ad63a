// Server-sent events: `snapshot` first, then `patch`es. After a break the server begins with a snapshot again.

const SILENCE_MS = 30_000, AGAIN_MS = 2_000;

/** EventSource tries again by itself, but not after an answer that is an error, nor if nothing tells it of a break. */
export function connect({ snapshot, patch, link }) {
  const address = `events${location.search}`;
  let source, watchdog;
  const open = () => {
    source?.close();
    source = new EventSource(address);
    const hear = (told) => (event) => {
      link("live");
      told(JSON.parse(event.data));
      watch(SILENCE_MS);
    };
    source.addEventListener("snapshot", hear(snapshot));
    source.addEventListener("patch", hear(patch));
    source.addEventListener("error", () => {
      if (source.readyState !== EventSource.CLOSED) {
        link("lost");
        return;
      }
      refusal(address).catch(() => null).then((text) => {
        link(text ? "refused" : "lost", text);
        watch(text ? SILENCE_MS : AGAIN_MS);
      });
    });
    watch(SILENCE_MS);
  };
  const watch = (after_ms) => {
    clearTimeout(watchdog);
    watchdog = setTimeout(open, after_ms);
  };
  open();
}

/** What the server answers instead of events, for instance that there is no such replica set. */
async function refusal(address) {
  const left = new AbortController();
  const answer = await fetch(address, { signal: left.signal });
  const text = answer.status === 404 ? (await answer.json()).error : null;
  left.abort();
  return text;
}
