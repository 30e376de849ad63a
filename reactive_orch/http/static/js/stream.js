// Server-sent events: `snapshot` first, then `patch`es. After a break the server begins with a snapshot again.

const SILENCE_MS = 15_000, REFUSED_MS = 30_000, AGAIN_MS = 2_000;

/** EventSource tries again by itself, but not after an answer that is an error, nor if nothing tells it of a break. */
export function connect({ snapshot, patch, link }) {
  const address = `events${location.search}`;
  let source, watchdog;
  const open = () => {
    source?.close();
    source = new EventSource(address);
    const hear = (told) => (event) => {
      link("live");
      told(event.data);
      watch(SILENCE_MS);
    };
    source.addEventListener("snapshot", hear((data) => snapshot(JSON.parse(data))));
    source.addEventListener("patch", hear((data) => patch(JSON.parse(data))));
    source.addEventListener("beat", hear(() => {}));
    source.addEventListener("error", () => {
      if (source.readyState !== EventSource.CLOSED) {
        link("lost");
        return;
      }
      refusal(address).catch(() => ({})).then(({ text, lasts }) => {
        link(text ? "refused" : "lost", text);
        watch(lasts ? REFUSED_MS : AGAIN_MS);
      });
    });
    watch(SILENCE_MS);
  };
  const watch = (after_ms) => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => {
      if (after_ms === SILENCE_MS) link("lost"); // it is connected, and says nothing: a worker that is frozen
      open();
    }, after_ms);
  };
  open();
}

/** What the server answers instead of events: that there is no such replica set, or that it cannot be looked up now. */
async function refusal(address) {
  const left = new AbortController();
  const answer = await fetch(address, { signal: left.signal });
  const text = answer.ok ? null : (await answer.json()).error;
  left.abort();
  return { text, lasts: answer.status === 404 };
}
