// Values as people read them. Pure. What is not known, null or missing (the same in a merge patch), is a dash.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const count = (n) => (n == null ? "–" : whole.format(n));

/** 0.4, 1,204, 19.2 k and 1.92 M: four digits at most; the exact number belongs in a title. */
export function compact(n) {
  if (n == null) return "–";
  if (n < 10_000) return (n < 10 ? tenths : whole).format(n);
  const [unit, name] = n < 1e6 ? [1e3, "k"] : n < 1e9 ? [1e6, "M"] : [1e9, "G"];
  return `${short.format(n / unit)} ${name}`;
}

/** 8 ms, 1.4 s, 41 s, 2 min 05 s, 1 h 45 min, 3 d 04 h. */
export function duration(s) {
  if (s == null) return "–";
  if (s < 0.9995) return `${Math.round(s * 1000)} ms`;
  if (s < 9.95) return `${Number.isInteger(s) ? s : s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  const [big, small, unit, sub] =
    s < 3600 ? [60, 1, "min", "s"] : s < 86400 ? [3600, 60, "h", "min"] : [86400, 3600, "d", "h"];
  return `${Math.floor(s / big)} ${unit} ${String(Math.floor((s % big) / small)).padStart(2, "0")} ${sub}`;
}

/** 32.2 ms, 1.4 s: as `duration`, and finer below a second. */
export const ms = (n) => (n == null || n >= 1000 ? duration(n == null ? null : n / 1000) : `${n.toFixed(1)} ms`);

export const plural = (n, one, many = `${one}s`) => `${compact(n)} ${n === 1 ? one : many}`;
export const time = (moment) => clock.format(new Date(moment));
export const since = (iso, now) => Math.max(0, (Date.parse(now) - Date.parse(iso)) / 1000);
export const lasting = (iso, now) => duration(Math.max(1, Math.floor(since(iso, now))));
export const ago = (iso, now) => `${lasting(iso, now)} ago`;

/** 0–3, 7, 12–20: partition numbers in a few words. */
export function ranges(numbers) {
  const runs = [];
  for (const n of numbers) {
    const last = runs.at(-1);
    if (last && last[1] === n - 1) last[1] = n;
    else runs.push([n, n]);
  }
  return runs.map(([a, b]) => (a === b ? a : `${a}–${b}`)).join(", ");
}

/** 1, 2, 3 and 9 more */
export const few = (all, most = 3) =>
  all.length > most + 1 ? `${all.slice(0, most).join(", ")} and ${all.length - most} more` : all.join(", ");

/** Text of which one line is shown: what would break it, turn it around or hide in it is written out. */
export const visible = (text) =>
  text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
