// Events of VMs and of the connections to hosts, as a timeline.

import { query as queryString } from "./api.js";
import { fill, h, mark, perFrame } from "./dom.js";
import { emptyBox, failureBox, streamWords } from "./failure.js";
import { filterBar, readFilter } from "./filter.js";
import { clock, name, target, text } from "./format.js";
import { moveAmong } from "./keys.js";
import { change, link } from "./route.js";
import { follow } from "./stream.js";

/** Events that are kept. */
const MOST = 1_000;

const KINDS = { vm: "VMs", health: "health", transport: "connections", gap: "gaps" };

/** What an event is: its kind, tone, shape, words and details. */
export function describe(kind, data) {
  const words = String(data.event ?? data.kind ?? data.what ?? kind).replaceAll("-", " ").replaceAll("_", " ");
  const tones = [
    [/gap|lost|lag/, ["warn", "≈"]],
    [/fail|crash|refus|unavailable|io error|error|panic|open(ed)?$|timeout|stuck/, ["bad", "✕"]],
    [/degraded|overloaded|paus|suspend|watchdog|half/, ["warn", "▲"]],
    [/start|resum|connected|healthy|restored|closed|booted/, ["good", "●"]],
  ];
  const state = data.state ?? data.to ?? "";
  const sought = `${words} ${typeof state === "string" ? state : ""}`.toLowerCase();
  const [tone, shape] = tones.find(([pattern]) => pattern.test(sought))?.[1] ?? ["idle", "○"];
  return { tone, shape, words };
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
    const { tone, shape, words } = describe(kind, data);
    const { event: _event, kind: _kind, host, vm, name: vmName, at: _at, time: _time, number: _number, ...rest } = data;
    const who = vm ?? vmName;
    const details = Object.entries(rest).filter(([, value]) => value !== null && value !== undefined && value !== "")
      .map(([key, value]) => `${key.replaceAll("_", " ")}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
    return h("li", { class: `event ${tone}`, tabindex: -1 }, h("span", { class: "shape", "aria-hidden": "true" }, shape),
      h("time", { datetime: new Date(at).toISOString() }, clock(at)),
      h("span", { class: "who-what" },
        host ? h("a", { class: "strong", href: who && kind === "vm" ? link("vms", [host, who]) : link("fleet", [host]) }, target(host, who)) : null, " ", name(words)),
      h("span", { class: "quiet" }, text(details)));
  }

  function listen() {
    control?.abort();
    control = new AbortController();
    signal.addEventListener("abort", () => control.abort(), { once: true });
    fill(problem);
    follow(`/events${queryString({ selector: filter.selector })}`, {
      signal: control.signal,
      onEvent: ({ name: word, data }) => {
        const kind = word in KINDS ? word : /health/.test(word) ? "health" : /gap/.test(word) ? "gap" : data.vm !== undefined && data.vm !== null ? "vm" : "transport";
        events.push({ kind, data: { event: word, ...data }, at: data.at ?? data.time ?? Date.now() });
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
