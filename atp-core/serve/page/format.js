// How numbers, times and names are written.

const COLLATOR = new Intl.Collator("en", { numeric: true });
const NUMBER = new Intl.NumberFormat("en");
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** The order of names: h2 comes before h10. */
export const byName = (a, b) => COLLATOR.compare(a, b);

export const number = (value) => NUMBER.format(value);

/** "1 VM", "20 VMs". */
export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

/** A length of time in milliseconds. */
export function duration(ms) {
  if (!Number.isFinite(ms)) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  const parts = [Math.floor(seconds / 86_400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60, seconds % 60];
  const first = parts.findIndex((part) => part > 0);
  return [0, 1].map((more) => parts[first + more] && `${parts[first + more]} ${["d", "h", "min", "s"][first + more]}`)
    .filter(Boolean).join(" ");
}

/** A time as a Date: the service writes RFC 3339, or milliseconds since 1970. */
export function time(value) {
  if (value === null || value === undefined) return null;
  const date = new Date(value);
  return Number.isNaN(date.getTime()) ? null : date;
}

/** The time of day, with the day if it is another than today. */
export function clock(value) {
  const date = time(value);
  if (!date) return "–";
  const today = new Date().toDateString() === date.toDateString();
  return today ? CLOCK.format(date) : `${DAY.format(date)}, ${CLOCK.format(date)}`;
}

/** How long ago that was. */
export function ago(value) {
  const date = time(value);
  if (!date) return "–";
  const ms = Date.now() - date.getTime();
  return ms < 1500 ? "just now" : `${duration(ms < 60_000 ? Math.round(ms / 1000) * 1000 : ms).replace(".0 ", " ")} ago`;
}

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

// Controls, and what changes the direction of reading or is not visible: a name could imitate another with them.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;

const escaped = (character) => `\\u{${character.codePointAt(0).toString(16)}}`;

/** A name from outside, with characters that cannot be seen written as escapes. */
export const name = (text) => String(text ?? "").replace(HIDDEN, escaped);

/** A text from outside of several lines: as `name`, but line feeds and tabs stay. */
export const text = (value) =>
  String(value ?? "").replace(/\r\n/g, "\n").replace(HIDDEN, (character) =>
    character === "\n" || character === "\t" ? character : escaped(character));

/** "web-1 on h1", or the host alone. */
export function target(host, vm) {
  if (vm === null || vm === undefined) return name(host ?? "no host");
  return host ? `${name(host)}/${name(vm)}` : name(vm);
}

/** The selector of VMs of this name: characters with a meaning in selectors are literal, and so is white space, which ends a selector. */
export const nameSelector = (vm) => String(vm ?? "").replace(/[\\*?[\]{}!,\s]/g, "\\$&");

/** The selector of one VM, or of a host. */
export const selectorOf = (host, vm) => `${host}/${nameSelector(vm)}`;
