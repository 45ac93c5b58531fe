// Events of VMs and of the connections to hosts, as a timeline.

import { query as queryString } from "./api.js";
import { fill, h, mark, perFrame } from "./dom.js";
import { emptyBox, failureBox, streamWords } from "./failure.js";
import { filterBar, readFilter } from "./filter.js";
import { clock, name, target, text, time } from "./format.js";
import { moveAmong } from "./keys.js";
import { change, link } from "./route.js";
import { follow } from "./stream.js";

/** Events that are kept. */
const MOST = 1_000;

const KINDS = { vm: "VMs", host: "hosts", transport: "connections", gap: "gaps" };

/** The tone and shape of events, by a word in what is said of them; the first that fits counts. */
const TONES = [
  [/crashed|io error|removal failed|unavailable|unreachable|^failed|breaker opened|timed out|stuck|refused|watchdog/, "bad", "✕"],
  [/suspended|degraded|overloaded|lost|reconnecting|suspect|limit reached|spent|half open|held long|disconnected|gap|missing/, "warn", "▲"],
  [/started|resumed|connected|recovered|healthy|breaker closed|watched/, "good", "●"],
];

/** Fields that are not details: they are in the words, or no one looks for them. */
const SAID = new Set(["item", "event", "host", "vm", "uuid", "at", "time", "sequence", "change", "connected", "from", "to"]);

/** The words for an event, as `atp events` has them. */
export function words(kind, data) {
  if (kind === "gap") return data.reason ? `events are missing: ${data.reason}` : data.count ? `${data.count} events are missing` : "gap: the connection for events was lost";
  if (data.item === "watched") return "is watched for events of its VMs";
  if (data.item === "unreachable") return "unreachable for events";
  if (data.item === "removed") return "is no longer watched";
  if (data.event === "lifecycle") return String(data.change).replaceAll("-", " ");
  if (data.event === "agent") return data.connected ? "agent connected" : "agent disconnected";
  if (data.event === "health_changed") return `${data.to}, was ${data.from}`;
  return String(data.event ?? kind).replaceAll(/[-_]/g, " ");
}

/** The details of an event. */
export function details(data) {
  if (data.error && typeof data.error === "object") return data.error.message ?? data.error.kind;
  if (data.event === "lifecycle") return data.detail ?? "";
  return Object.entries(data).filter(([key, value]) => !SAID.has(key) && value !== null && value !== "" && !(key === "reason" && data.item === undefined && data.event === undefined))
    .map(([key, value]) => (key === "reason" && typeof value === "string" ? value.replaceAll("_", " ") : `${key.replaceAll("_", " ")}: ${typeof value === "object" ? JSON.stringify(value) : value}`)).join(", ");
}

export async function show(main, route, { signal }) {
  let filter = readFilter(route.query);
  let hidden = new Set(route.query.getAll("hide"));
  let control = null;
  let paused = false;
  const events = [];
  const { bar, update } = filterBar({ states: false, labels: false });
  const live = h("span", { class: "live" });
  const kinds = h("div", { class: "chips", role: "group", "aria-label": "Kinds of events" });
  const pause = h("button", { type: "button", class: "button", "aria-pressed": "false", onclick: () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
    if (paused) fill(live, mark(...streamWords("paused")));
    else draw();
  } }, "Pause");
  const timeline = h("ol", { class: "timeline", "aria-label": "Events, the newest first" });
  const problem = h("div", {});
  fill(main, h("div", { class: "head" }, h("h1", {}, "Events"), live, bar), h("div", { class: "bar" }, kinds, h("div", { class: "grow" }), pause), problem, timeline);
  moveAmong(timeline, "li");
  update(filter);

  const draw = perFrame(() => {
    if (signal.aborted) return;
    fill(kinds, Object.entries(KINDS).map(([kind, words]) => h("button", { type: "button", class: "chip idle", "aria-pressed": String(!hidden.has(kind)), onclick: () => {
      const next = new Set(hidden);
      if (!next.delete(kind)) next.add(kind);
      change({ hide: [...next] });
    } }, `${words} ${events.filter((event) => event.kind === kind).length}`)));
    if (paused) return;
    const shown = events.filter((event) => !hidden.has(event.kind));
    if (!shown.length) {
      fill(timeline, h("li", { class: "bare" }, emptyBox(events.length ? "All events are hidden" : "Nothing has happened since you came here",
        events.length ? "Choose a kind above." : "Events appear as they happen: VMs that start, stop or crash, hosts whose health changes, connections that are lost. Events of the past are not kept.")));
      return;
    }
    let minute = null;
    fill(timeline, shown.slice(-MOST).reverse().flatMap((event) => {
      const now = clock(event.at).replace(/:\d\d$/, "");
      const heading = now === minute ? [] : [h("li", { class: "minute" }, h("h2", {}, now))];
      minute = now;
      if (!event.element) event.element = item(event);
      return [...heading, event.element];
    }));
  });

  function item({ kind, data, at }) {
    const what = words(kind, data);
    const [, tone, shape] = TONES.find(([pattern]) => pattern.test(what)) ?? [null, "idle", "○"];
    const { host, vm } = data;
    return h("li", { class: `event ${tone}`, tabindex: -1 },
      h("span", { class: "shape", "aria-hidden": "true" }, shape),
      h("time", { datetime: new Date(at).toISOString() }, clock(at)),
      h("span", { class: "who-what" }, host ? h("a", { class: "strong", href: vm ? link("vms", [host, vm]) : link("fleet", [host]) }, target(host, vm)) : h("span", { class: "strong" }, "fleet"), " ", name(what)),
      h("span", { class: "quiet" }, text(details(data))));
  }

  function listen() {
    control?.abort();
    control = new AbortController();
    signal.addEventListener("abort", () => control.abort(), { once: true });
    fill(problem);
    follow(`/events${queryString({ selector: filter.selector })}`, {
      signal: control.signal,
      onEvent: ({ name: word, data }) => {
        events.push({ kind: word in KINDS ? word : "transport", data, at: time(data.at ?? data.time) ?? new Date() });
        if (events.length > 2 * MOST) events.splice(0, events.length - MOST);
        draw();
      },
      onState: (state, failure) => {
        if (!paused) fill(live, mark(...streamWords(state)));
        fill(problem, failure && failure.status >= 400 ? failureBox(failure, listen) : null);
      },
    });
  }

  draw();
  listen();
  return (next) => {
    const wanted = readFilter(next.query);
    hidden = new Set(next.query.getAll("hide"));
    if (wanted.selector.join(" ") !== filter.selector.join(" ")) {
      filter = wanted;
      events.length = 0;
      listen();
    }
    update(wanted);
    draw();
  };
}
