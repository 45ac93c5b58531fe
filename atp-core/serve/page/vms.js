// VMs: all of the fleet in one table, filtered by the service.

import { json, query as queryString } from "./api.js";
import { consoleOf } from "./consoles.js";
import { fill, h, mark } from "./dom.js";
import { emptyBox, failureBox, hintText, hintWords, rich } from "./failure.js";
import { asked, filterBar, isFiltered, readFilter, selectorsQuery } from "./filter.js";
import { facts } from "./fleet.js";
import { ago, bytes, clock, count, duration, name, nameSelector, selectorOf, target } from "./format.js";
import { say } from "./live.js";
import { change, go, link } from "./route.js";
import { screen } from "./screens.js";
import { table } from "./table.js";
import { sleep } from "./stream.js";
import { refusals } from "./verbs.js";

/** The states of VMs: tone and shape. */
const STATES = {
  running: ["good", "●"],
  idle: ["good", "●"],
  paused: ["warn", "❙❙"],
  "in shutdown": ["warn", "◐"],
  pmsuspended: ["idle", "☾"],
  "shut off": ["idle", "○"],
  crashed: ["bad", "✕"],
};

/** Reasons that matter beside the state. */
const PLAIN = new Set(["booted", "unknown", "user", "shutdown", "destroyed", "unpaused"]);

/** The state of a VM as a mark. */
export function stateMark(state, reason) {
  const [tone, shape] = STATES[state] ?? ["odd", "?"];
  const why = reason && !PLAIN.has(reason) ? ` (${name(String(reason).replaceAll("-", " "))})` : "";
  return mark(reason === "io-error" ? "bad" : tone, shape, `${state ?? "unknown"}${why}`);
}

/** Who has reserved a VM, and until when. */
function reservedMark(vm) {
  if (!vm.reserved_by) return "";
  return h("span", {}, name(vm.reserved_by), h("span", { class: "quiet" }, ` until ${clock(vm.reserved_until_ms)}`));
}

/** A share of one processor. */
const percent = (value) => (value === null || value === undefined ? "" : `${value < 10 ? value.toFixed(1) : Math.round(value)} %`);

/** The memory that a VM has on its host. */
function memoryOf({ state, memory }) {
  const kib = state === "shut off" ? null : memory.resident_kib ?? memory.current_kib;
  return kib === null || kib === undefined ? "" : bytes(kib * 1024);
}

/** The sum of a number of several disks or interfaces; none if it is not known of any. */
function sum(all, field) {
  const known = all.map((one) => one[field]).filter((value) => value !== null && value !== undefined);
  return known.length ? known.reduce((a, b) => a + b, 0) : null;
}

const rate = (value) => (value === null ? "not known yet" : `${bytes(value)}/s`);

/** How often what is used is measured again, ms. */
const MEASURE = 5_000;

/** The most hosts that are asked for what their VMs use: those that are in sight are few. */
const MEASURED = 30;

/** How often what is shown is read again, ms. */
const AGAIN = 10_000;

/** How many hosts are named in a note. */
const MOST = 50;

/** How many VMs are read at once. */
const PART = 200;

export async function show(main, route, context) {
  return route.path.length >= 2 ? showVm(main, route.path[0], route.path.slice(1).join("/"), context) : showList(main, route, context);
}

/** The address of the table as it was last filtered. */
let listed = link("vms");

async function showList(main, route, { signal }) {
  let filter = readFilter(route.query);
  listed = link("vms", [], filter);
  // As long as the list, with holes where it was not read yet.
  let found = [];
  const chosen = new Map();
  // What VMs use, of those that are in sight.
  const used = new Map();
  const useOf = (vm, words) => {
    const use = used.get(`${vm.host}/${vm.vm}`);
    if (!use) return "";
    return use.stale ? h("span", { class: "quiet" }, "stale") : words(use);
  };
  const { bar, update } = filterBar();
  const status = h("p", { class: "count" }, "Reading the VMs of all hosts…");
  const actions = h("div", { class: "actions" });
  const place = h("div", { class: "fills" });
  const notes = h("div", { class: "notes" });
  // The answer that the rows are of.
  let told = null;
  const list = table({
    label: "VMs",
    key: (vm) => `${vm.host}/${vm.vm}`,
    select: chosen,
    describe: (vm) => `${target(vm.host, vm.vm)}, ${vm.state}${vm.reserved_by ? `, reserved by ${name(vm.reserved_by)} until ${clock(vm.reserved_until_ms)}` : ""}`,
    open: (vm) => go("vms", [vm.host, vm.vm]),
    need: (from, to) => readMore(from, to),
    columns: [
      { title: h("span", { class: "unseen" }, "Selected"), width: "1.5rem", align: "check", cell: (vm) => h("span", { class: "box", "aria-hidden": "true" }, chosen.has(`${vm.host}/${vm.vm}`) ? "✓" : "") },
      { title: "VM", width: "minmax(5rem, 2fr)", cell: (vm) => h("span", { class: "strong" }, name(vm.vm)) },
      { title: "Host", width: "minmax(3.5rem, 1fr)", cell: (vm) => name(vm.host) },
      { title: "State", width: "minmax(7rem, 1.2fr)", cell: (vm) => stateMark(vm.state, vm.reason) },
      { title: "CPU", width: "4.5rem", align: "number", wide: true, cell: (vm) => useOf(vm, ({ cpu }) => percent(cpu.percent)) },
      { title: "Memory", width: "5.5rem", align: "number", wide: true, cell: (vm) => useOf(vm, memoryOf) },
      { title: "Reserved by", width: "minmax(6rem, 1.4fr)", wide: true, cell: (vm) => reservedMark(vm) },
      { title: "Labels", width: "minmax(6rem, 2fr)", align: "labels", wide: true, cell: (vm) => Object.entries(vm.labels ?? {}).map(([key, value]) => h("span", { class: "label" }, `${name(key)}=${name(value)}`)) },
    ],
  });
  fill(main, h("div", { class: "head" }, h("h1", {}, "VMs"), bar), h("div", { class: "bar" }, status, h("div", { class: "grow" }), actions), place);
  update(filter);

  function drawActions() {
    fill(actions,
      chosen.size ? h("button", { type: "button", class: "button plain", onclick: () => (chosen.clear(), list.refresh(), drawActions()) }, `Clear selection (${chosen.size})`) : null,
      h("button", { type: "button", class: "button primary", disabled: !found.length && !chosen.size, onclick: compose },
        chosen.size ? `Run on ${count(chosen.size, "selected VM")}` : isFiltered(filter) ? "Run on these VMs" : "Run on all VMs"));
  }

  function compose() {
    if (!chosen.size) {
      go("run", [], filter.selector.length || filter.state || filter.label.length ? { ...filter, selector: filter.selector.length ? filter.selector : "*" } : { selector: "*" });
    } else {
      go("run", [], selectorsQuery([...chosen.values()].map((vm) => selectorOf(vm.host, vm.vm))));
    }
  }
  list.element.addEventListener("select", drawActions);

  let noted = "";
  /** What cannot be known now, and why, in words. */
  function drawNotes() {
    const unlisted = (told?.settled ?? []).filter((outcome) => outcome.error);
    const stale = new Map([...used.values()].filter((vm) => vm.stale).map((vm) => [vm.host, vm.stale.error]));
    // Elements that someone reads, or is about to click on, are not replaced by equal ones.
    const now = JSON.stringify([unlisted.map(({ host, vm, error }) => [host, vm, error]), told?.stale, [...stale], told?.reservations_unknown]);
    if (now === noted) return;
    noted = now;
    const focused = document.activeElement?.closest?.(".away")?.dataset.kind;
    const open = new Set([...notes.querySelectorAll("details[open]")].map((one) => one.dataset.kind));
    const note = (kind, number, title, items) => (number ? h("details", { class: "away", "data-kind": kind, open: open.has(kind) },
      h("summary", {}, mark("warn", "▲", title)), h("ul", {}, items.slice(0, MOST).map((parts) => h("li", {}, parts))),
      number > MOST ? h("p", { class: "quiet" }, `and ${count(number - MOST, "more", "more")}`) : null) : null);
    fill(notes,
      note("unlisted", unlisted.length, `${count(unlisted.length, "host")} could not be listed`,
        unlisted.map(({ host, vm, error }) => [h("b", {}, target(host, vm)), ": ", rich(error.message), hintWords(error.hint, "span")])),
      note("old", told?.stale?.length, `${count(told?.stale?.length ?? 0, "host")} away: old rows`,
        (told?.stale ?? []).map(({ host, reason, since }) => [h("b", {}, name(host)), `: ${reason ? `${name(reason)}, ` : ""}since ${clock(since)}`])),
      note("use", stale.size, `CPU and memory are old: ${count(stale.size, "host")}`,
        [...stale].map(([host, error]) => [h("b", {}, name(host)), ": ", rich(error.message), hintWords(error.hint, "span")])),
      told?.reservations_unknown ? h("p", { class: "notice-box" }, "It is not known who has reserved which VM: ", rich(told.reservations_unknown)) : null);
    notes.hidden = !notes.firstChild;
    if (focused) notes.querySelector(`[data-kind=${focused}] summary`)?.focus({ preventScroll: true });
  }

  function draw(answer, from) {
    if (answer.total !== found.length || from === 0) found = new Array(answer.total);
    answer.vms.forEach((vm, index) => (found[from + index] = vm));
    const words = `${count(found.length, "VM")}${isFiltered(filter) ? " match" : ""}`;
    fill(status, h("b", {}, words),
      answer.as_of ? h("span", { class: "quiet" }, ` · as of ${ago(answer.as_of)}`) : null);
    told = answer;
    drawNotes();
    if (!found.length) {
      fill(place, notes, isFiltered(filter)
        ? emptyBox("No VM matches", "The filter leaves nothing. Check the selector: a name alone has to be whole, a part of it needs a glob such as *web*, and a space in it a \\ before it.",
          h("button", { type: "button", class: "button", onclick: () => change({ selector: "", state: "", label: "" }) }, "Clear the filter"))
        : emptyBox("There are no VMs", "The hosts that could be listed have none. Look at the fleet for hosts that cannot be reached.",
          h("a", { class: "button", href: link("fleet") }, "Go to the fleet")));
    } else if (!place.contains(list.element)) {
      fill(place, notes, list.element);
    }
    list.setRows(found);
    drawActions();
    return words;
  }

  const part = (from, signal) => json(`/vms${queryString({ ...asked(filter), allow_stale: "true", offset: from, limit: PART })}`, { signal });

  /** Reads the rows that have come into sight. */
  let reading = false;
  async function readMore(from, to) {
    if (reading || !asking) return;
    const mine = asking;
    const first = found.slice(from, to).findIndex((row) => !row);
    // `findIndex` sees holes; `slice` keeps them.
    if (first < 0) return;
    reading = true;
    try {
      const start = Math.max(0, from + first - PART / 4);
      const answer = await part(start, mine.signal);
      if (mine.signal.aborted) return;
      if (answer.total === found.length) answer.vms.forEach((vm, index) => (found[start + index] = vm));
      else draw(answer, start);
    } catch (failure) {
      if (!mine.signal.aborted && failure.status !== 401) {
        fill(status, h("b", {}, count(found.length, "VM")), " ", mark("warn", "▲", `not all read: ${failure.message}`));
        await sleep(2_000, mine.signal);
      }
    } finally {
      reading = false;
      if (!mine.signal.aborted) list.refresh();
    }
  }

  let asking = null;
  async function ask(quiet) {
    asking?.abort();
    asking = new AbortController();
    const mine = asking;
    signal.addEventListener("abort", () => mine.abort(), { once: true });
    if (!quiet) main.setAttribute("aria-busy", "true");
    try {
      // What is in sight is read again; what is not, when it comes into sight.
      const from = quiet ? Math.max(0, list.range()[0]) : 0;
      const answer = await part(from, mine.signal);
      if (mine.signal.aborted) return;
      if (quiet) found = new Array(answer.total);
      const words = draw(answer, from);
      if (!quiet) say(words);
    } catch (failure) {
      if (mine.signal.aborted || failure.status === 401) return;
      if (quiet && found.length) {
        fill(status, h("b", {}, count(found.length, "VM")), " ", mark("warn", "▲", `not read again: ${failure.message}`));
      } else {
        found = [];
        fill(status, failure.status === 404 ? "The filter names what there is not." : failure.status === 400 ? "The filter is not understood." : "The VMs could not be read.");
        fill(place, failureBox(failure, () => ask(false)));
        drawActions();
      }
    } finally {
      if (mine === asking) main.removeAttribute("aria-busy");
    }
  }

  /** Measures the VMs that are in sight. A token may not be allowed to: then the columns stay empty. */
  let mayMeasure = true;
  async function measure() {
    const hosts = [...new Set(list.inSight().map((vm) => vm.host))].slice(0, MEASURED);
    if (!mayMeasure || !hosts.length || document.hidden) return;
    try {
      const round = await json(`/statistics${queryString({ selector: hosts.map((host) => `${host}/`) })}`, { signal });
      used.clear();
      for (const vm of round.vms) used.set(`${vm.host}/${vm.vm}`, vm);
      list.refresh();
      drawNotes();
    } catch (failure) {
      if (failure.status === 403) mayMeasure = false;
    }
  }

  drawActions();
  await ask(false);
  (async () => {
    while (!signal.aborted) {
      await measure();
      await sleep(used.size ? MEASURE : 1_000, signal);
    }
  })();
  (async () => {
    while (!signal.aborted) {
      await sleep(AGAIN, signal);
      if (!signal.aborted && !document.hidden) await ask(true);
    }
  })();
  return (next) => {
    filter = readFilter(next.query);
    listed = link("vms", [], filter);
    update(filter);
    ask(false);
  };
}

/** One VM: its state, its screen, and what can be done next. */
async function showVm(main, host, vm, { signal, session }) {
  const selector = selectorOf(host, vm);
  const place = h("div", {});
  fill(main, h("div", { class: "head" }, h("a", { class: "back", href: listed, "data-back": true }, "← VMs"), h("h1", {}, name(vm)), h("span", { class: "quiet" }, `on ${name(host)}`)), place);
  const answer = await json(`/vms${queryString({ selector, allow_stale: "true" })}`, { signal });
  const row = (answer.vms ?? []).find((one) => one.vm === vm && one.host === host);
  if (!row) {
    const error = (answer.settled ?? []).find((one) => one.error)?.error;
    fill(place, emptyBox(error ? name(error.message) : "This VM was not found", hintText(error?.hint) || "It may have been removed or moved. Look for it on all hosts.",
      h("a", { class: "button", href: link("vms", [], { selector: nameSelector(vm) }) }, "Look on all hosts")));
    return;
  }
  const { host: _host, vm: _vm, state, reason, labels, reserved_by: by, reserved_until_ms: until, ...more } = row;
  const use = h("section", { class: "card facts" }, h("h2", {}, "Use"), h("p", { class: "quiet" }, state === "shut off" ? "It is shut off: it uses nothing." : "Measuring…"));
  if (state !== "shut off") showUse(use, host, vm, { signal });
  const refused = await refusals(session, signal);
  const act = (verb, words, kind = "") => refused(verb) ? null : h("a", { class: `button ${kind}`, href: link("run", [], { verb, selector }) }, words);
  fill(place,
    h("div", { class: "card" }, h("p", { class: "state" }, stateMark(state, reason),
      by ? h("span", {}, " · reserved by ", h("b", {}, name(by)), ` until ${clock(until)}`) : null),
      h("p", { class: "actions" }, act("exec", "Run a command", "primary"), act("vm-info", "Ask for details"), act(state === "shut off" ? "vm-start" : "vm-shutdown", state === "shut off" ? "Start" : "Shut down"),
        h("a", { class: "button", href: link("run", [], { selector }) }, "More…"), h("a", { class: "button", href: link("events", [], { selector }) }, "Its events"))),
    h("div", { class: "cards" }, facts("Identity", { host, ...more, ...Object.fromEntries(Object.entries(labels ?? {}).map(([key, value]) => [`label ${key}`, value])) }),
      use,
      h("section", { class: "card" }, h("h2", {}, "Screen"), state === "shut off" ? h("p", { class: "quiet" }, "It is shut off: there is no screen.") : screen(host, vm, { signal }))),
    h("div", { class: "cards" }, h("section", { class: "card" }, h("h2", {}, "Console"), consoleOf(host, vm, { state, signal, refused: session.read_only ? "The service is read only: no console can be watched." : refused("console") }))));
}

/** What a VM uses, measured again while it is looked at. */
async function showUse(card, host, vm, { signal }) {
  const selector = selectorOf(host, vm);
  while (!signal.aborted) {
    if (!document.hidden) {
      try {
        const round = await json(`/statistics${queryString({ selector, max_age: "1s" })}`, { signal });
        const found = round.vms.find((one) => one.vm === vm && one.host === host);
        const away = round.hosts.find((one) => one.stale)?.stale;
        fill(card, h("h2", {}, "Use"), found ? useFacts(found) : h("p", {}, away ? mark("warn", "▲", name(away.error.message)) : "Its host does not have it any more."));
      } catch (failure) {
        if (signal.aborted) return;
        fill(card, h("h2", {}, "Use"), h("p", { class: "quiet" }, failure.status === 403 ? "This token may not use stats." : name(failure.message)));
        if (failure.status === 403) return;
      }
    }
    await sleep(MEASURE / 2, signal);
  }
}

function useFacts(vm) {
  const { disks, interfaces, stale } = vm;
  const pairs = {
    CPU: vm.cpu.percent === null ? "not known yet" : `${percent(vm.cpu.percent)} of one processor${vm.cpu.vcpus ? `, of ${count(vm.cpu.vcpus, "vCPU")}` : ""}`,
    Memory: memoryOf(vm) || "not known",
    "Disks read": rate(sum(disks, "read_bytes_per_second")),
    "Disks write": rate(sum(disks, "write_bytes_per_second")),
    "Network receives": rate(sum(interfaces, "rx_bytes_per_second")),
    "Network sends": rate(sum(interfaces, "tx_bytes_per_second")),
  };
  return [
    stale ? h("p", {}, mark("warn", "▲", `stale${stale.for_ms ? ` for ${duration(stale.for_ms)}` : ""}`), " ", name(stale.error.message)) : null,
    h("dl", {}, Object.entries(pairs).map(([key, value]) => [h("dt", {}, key), h("dd", {}, value)])),
  ];
}
