// The fleet: hosts by health, live.

import { json } from "./api.js";
import { fill, h, mark, settle } from "./dom.js";
import { emptyBox, failureBox, streamWords } from "./failure.js";
import { ago, byName, bytes, clock, count, name, number } from "./format.js";
import { moveAmong } from "./keys.js";
import { say } from "./live.js";
import { change, link } from "./route.js";
import { follow, sleep } from "./stream.js";
import { refusals } from "./verbs.js";

/** The states of health from bad to good: tone, shape, word, and what it means. */
export const HEALTH = {
  unavailable: ["bad", "✕", "unavailable", "No work can be done on it."],
  overloaded: ["warn", "▲", "overloaded", "There is more work than it can do."],
  degraded: ["warn", "◐", "degraded", "Work is done, but not all of it, or slowly."],
  unknown: ["idle", "○", "not tried yet", "The service has not connected to it yet."],
  healthy: ["good", "●", "healthy", "Work is done in good time."],
};

const healthOf = (host) => (host.health?.state in HEALTH ? host.health.state : "unknown");

/** Where the hosts are read again without an event: what counts over time changes by itself. */
const AGAIN = 15_000;

export async function show(main, route, context) {
  return route.path[0] ? showHost(main, route.path[0], context) : showMap(main, route, context);
}

/** The address of the map as it was last filtered. */
let mapped = link("fleet");

async function showMap(main, route, { signal }) {
  let hosts = await json("/hosts", { signal });
  let query = route.query;

  const summary = h("div", { class: "chips", role: "group", "aria-label": "Hosts by health" });
  const groupBy = h("select", { id: "group", onchange: () => change({ group: groupBy.value }) });
  const find = h("input", { id: "find", type: "search", spellcheck: false, placeholder: "h1", "data-filter": true, oninput: () => typed(find.value.trim()) });
  const typed = settle(50, (value) => change({ host: value }, { step: false }));
  const live = h("span", { class: "live" });
  const map = h("div", { class: "map" });
  fill(main,
    h("div", { class: "head" }, h("h1", {}, "Fleet"), live, h("div", { class: "grow" }),
      h("div", { class: "field" }, h("label", { htmlFor: "find" }, "Host ", h("kbd", { "aria-hidden": "true" }, "/")), find),
      h("div", { class: "field" }, h("label", { htmlFor: "group" }, "Group by"), groupBy)),
    summary, map);
  moveAmong(map, ".tile");

  function draw() {
    mapped = link("fleet", [], Object.fromEntries(query));
    if (!hosts.length) {
      fill(summary);
      fill(map, emptyBox("There are no hosts yet",
        ["The service reads its hosts from its settings file. Add one with ", h("code", {}, "atp host add ID URI"), ", and it appears here without a restart."]));
      return;
    }
    const keys = [...new Set(hosts.flatMap((host) => Object.keys(host.labels ?? {})))].sort(byName);
    const group = query.get("group") ?? (keys.includes("rack") ? "rack" : "");
    fill(groupBy, h("option", { value: "none" }, "nothing"), keys.map((key) => h("option", { value: key }, `label ${key}`)));
    groupBy.value = keys.includes(group) ? group : "none";
    if (document.activeElement !== find) find.value = query.get("host") ?? "";

    const wanted = query.get("health") ?? "";
    const counts = Object.fromEntries(Object.keys(HEALTH).map((state) => [state, 0]));
    for (const host of hosts) counts[healthOf(host)] += 1;
    fill(summary,
      chip("all", count(hosts.length, "host"), "idle", "", wanted === "", () => change({ health: "" })),
      Object.entries(HEALTH).filter(([state]) => counts[state] > 0 || wanted === state).map(([state, [tone, shape, word, means]]) =>
        chip(state, `${number(counts[state])} ${word}`, tone, shape, wanted === state, () => change({ health: wanted === state ? "" : state }), means)));

    const part = (query.get("host") ?? "").toLowerCase();
    const matching = hosts.filter((host) => (!wanted || healthOf(host) === wanted) && host.id.toLowerCase().includes(part))
      .sort((a, b) => byName(a.id, b.id));
    if (!matching.length) {
      fill(map, emptyBox("No host matches", "No host has this name and this health now.",
        h("button", { type: "button", class: "button", onclick: () => change({ health: "", host: "" }) }, "Show all hosts")));
      return;
    }
    const groups = new Map();
    for (const host of matching) {
      const value = groupBy.value === "none" ? "" : host.labels?.[groupBy.value] ?? null;
      if (!groups.has(value)) groups.set(value, []);
      groups.get(value).push(host);
    }
    const ordered = [...groups].sort(([a], [b]) => (a === null) - (b === null) || byName(String(a), String(b)));
    // The focus is on a host, not on an element that is replaced.
    const focused = document.activeElement?.dataset?.host;
    fill(map, ordered.map(([value, members]) => groupBox(groupBy.value, value, members, hosts.length > 200)),
      h("p", { class: "next quiet" }, "Choose a host for its connections and its last error, ", h("a", { href: link("vms") }, "look at the VMs"), ", or ", h("a", { href: link("run") }, "compose a run"), "."));
    if (focused) map.querySelector(`[data-host="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  let before = "";
  function tell() {
    const bad = hosts.filter((host) => healthOf(host) === "unavailable").map((host) => host.id);
    const now = bad.join(" ");
    if (now !== before) say(bad.length ? `${count(bad.length, "host")} unavailable: ${bad.slice(0, 5).join(", ")}` : "All hosts can be worked on");
    before = now;
  }

  let reading = false;
  async function readAgain() {
    if (reading || signal.aborted || document.hidden) return;
    reading = true;
    try {
      hosts = await json("/hosts", { signal });
      draw();
      tell();
      fill(live, mark(...streamWords("open")));
    } catch (failure) {
      if (!signal.aborted) fill(live, h("span", { title: failure.message }, mark(...streamWords("lost"))));
    } finally {
      reading = false;
    }
  }

  draw();
  fill(live, mark(...streamWords("open")));
  const soon = settle(400, readAgain);
  follow("/events", {
    signal,
    onEvent: () => soon(),
    onState: (state) => {
      fill(live, mark(...streamWords(state)));
      if (state === "open") soon();
    },
  });
  document.addEventListener("visibilitychange", soon, { signal });
  (async () => {
    while (!signal.aborted) {
      await sleep(AGAIN, signal);
      await readAgain();
    }
  })();
  return (next) => {
    query = next.query;
    draw();
  };
}

function chip(id, words, tone, shape, pressed, onclick, title) {
  return h("button", { type: "button", class: `chip ${tone}`, id: `health-${id}`, "aria-pressed": String(pressed), title, onclick },
    shape ? h("span", { class: "shape", "aria-hidden": "true" }, shape) : null, words);
}

function groupBox(key, value, hosts, dense) {
  const bad = hosts.filter((host) => healthOf(host) !== "healthy").length;
  return h("section", { class: `group ${dense ? "dense" : ""}` },
    key === "none" ? null : h("h2", {}, value === null ? `without ${key}` : `${key} ${name(value)}`,
      h("span", { class: "quiet" }, ` ${count(hosts.length, "host")}${bad ? `, ${number(bad)} not healthy` : ""}`)),
    h("div", { class: "tiles" }, hosts.map((host) => {
      const [tone, shape, word] = HEALTH[healthOf(host)];
      const why = reason(host);
      return h("a", { class: `tile ${tone}`, href: link("fleet", [host.id]), "data-host": host.id, title: `${host.id}: ${word}${why ? `, ${why}` : ""}` },
        h("span", { class: "shape", "aria-hidden": "true" }, shape),
        h("span", { class: "tile-name" }, host.id),
        dense ? h("span", { class: "unseen" }, word) : h("span", { class: "tile-word" }, word));
    })));
}

function reason(host) {
  const why = host.health?.reason ?? host.health?.reasons;
  return Array.isArray(why) ? why.map(words).join("; ") : words(why);
}

function words(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "object" ? name(value.message ?? value.reason ?? JSON.stringify(value)) : name(value);
}

/** One host: what is known of it, and what can be done next. */
async function showHost(main, id, { signal, session }) {
  const refused = await refusals(session, signal);
  const place = h("div", {});
  fill(main,
    h("div", { class: "head" }, h("a", { class: "back", href: mapped, "data-back": true }, "← Fleet"), h("h1", {}, name(id))),
    place);
  async function draw() {
    let host;
    try {
      host = await json(`/hosts/${encodeURIComponent(id)}`, { signal });
    } catch (failure) {
      if (signal.aborted) return;
      fill(place, failure.status === 404
        ? emptyBox("There is no such host", "It may have been removed from the settings, or your token may not see it.", h("a", { class: "button", href: link("fleet") }, "Go to the fleet"))
        : failureBox(failure, draw));
      return;
    }
    const [tone, shape, word, means] = HEALTH[healthOf(host)];
    const why = reason(host);
    fill(place,
      h("div", { class: "card" },
        h("p", { class: "state" }, mark(tone, shape, word), " ", means, host.health?.since ? h("span", { class: "quiet", title: clock(host.health.since) }, ` Since ${ago(host.health.since)}.`) : null),
        why && healthOf(host) !== "healthy" ? h("p", {}, "Reason: ", why) : null,
        h("p", { class: "actions" },
          h("a", { class: "button primary", href: link("vms", [], { selector: `${id}/` }) }, "Show its VMs"),
          refused("host-check") ? null : h("a", { class: "button", href: link("run", [], { verb: "host-check", selector: `${id}/` }) }, "Check this host"),
          h("a", { class: "button", href: link("events", [], { selector: `${id}/` }) }, "Its events"),
          h("a", { class: "button", href: link("screens", [], { selector: `${id}/` }) }, "Its screens"))),
      h("div", { class: "cards" },
        h("div", { class: "stack" }, facts("Identity", { URI: host.uri, ...prefixed("label ", host.labels), groups: host.groups.join(", ") }),
        facts("Health", host.health),
        facts("Circuit breaker", host.breaker)),
        facts("Connections", host.pool)));
  }
  await draw();
  (async () => {
    while (!signal.aborted) {
      await sleep(5_000, signal);
      if (!signal.aborted && !document.hidden && !place.contains(document.activeElement)) await draw();
    }
  })();
}

const prefixed = (prefix, values) => Object.fromEntries(Object.entries(values ?? {}).map(([key, value]) => [prefix + key, value]));

/** A list of facts of any object: nested ones are written as `outer inner`. */
export function facts(title, values) {
  const rows = [...flat(values ?? {})];
  return h("section", { class: "card facts" }, h("h2", {}, title),
    rows.length ? h("dl", {}, rows.map(([key, value]) => [h("dt", {}, key), h("dd", {}, value)])) : h("p", { class: "quiet" }, "Nothing is known yet."));
}

function* flat(values, prefix = "") {
  for (const [key, value] of Object.entries(values)) {
    const label = `${prefix}${key.replaceAll("_", " ")}`;
    if (value === null || value === undefined || value === "") continue;
    if (Array.isArray(value)) yield [label, value.length ? value.map(words).join(", ") : "none"];
    else if (typeof value === "object") yield* flat(value, `${label} `);
    else if (typeof value === "number" && key.endsWith("_kib")) yield [label.replace(/ kib$/, ""), bytes(value * 1024)];
    else if (typeof value === "number") yield [label, number(value)];
    else if (typeof value === "boolean") yield [label, value ? "yes" : "no"];
    else if (/^\d{4}-\d\d-\d\dT/.test(value)) yield [label, `${clock(value)} (${ago(value)})`];
    else yield [label, name(value)];
  }
}

