// VMs: all of the fleet in one table, filtered by the service.

import { json, query as queryString } from "./api.js";
import { fill, h, mark } from "./dom.js";
import { emptyBox, failureBox, hintText, hintWords, rich } from "./failure.js";
import { filterBar, isFiltered, readFilter } from "./filter.js";
import { facts } from "./fleet.js";
import { ago, byName, count, name, selectorOf, target } from "./format.js";
import { say } from "./live.js";
import { change, go, link } from "./route.js";
import { screen } from "./screens.js";
import { table } from "./table.js";
import { sleep } from "./stream.js";

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

/** How often what is shown is read again, ms. */
const AGAIN = 10_000;

/** How many VMs are named one by one in an address. */
const NAMED = 50;

/** VMs by host and name. Names are compared once each: many hosts have VMs of the same names. */
export function inOrder(vms) {
  const ranks = (names) => new Map([...new Set(names)].sort(byName).map((one, rank) => [one, rank]));
  const hosts = ranks(vms.map((vm) => vm.host));
  const names = ranks(vms.map((vm) => vm.vm));
  return vms.sort((a, b) => hosts.get(a.host) - hosts.get(b.host) || names.get(a.vm) - names.get(b.vm));
}

export async function show(main, route, { signal }) {
  return route.path.length >= 2 ? showVm(main, route.path[0], route.path.slice(1).join("/"), { signal }) : showList(main, route, { signal });
}

/** The address of the table as it was last filtered. */
let listed = link("vms");

async function showList(main, route, { signal }) {
  let filter = readFilter(route.query);
  listed = link("vms", [], filter);
  let found = [];
  const chosen = new Map();
  const { bar, update } = filterBar();
  const status = h("p", { class: "count" }, "Reading the VMs of all hosts…");
  const actions = h("div", { class: "actions" });
  const place = h("div", { class: "fills" });
  const list = table({
    label: "VMs",
    key: (vm) => `${vm.host}/${vm.vm}`,
    select: chosen,
    describe: (vm) => `${target(vm.host, vm.vm)}, ${vm.state}`,
    open: (vm) => go("vms", [vm.host, vm.vm]),
    columns: [
      { title: h("span", { class: "unseen" }, "Selected"), width: "1.5rem", align: "check", cell: (vm) => h("span", { class: "box", "aria-hidden": "true" }, chosen.has(`${vm.host}/${vm.vm}`) ? "✓" : "") },
      { title: "VM", width: "minmax(5rem, 2fr)", cell: (vm) => h("span", { class: "strong" }, name(vm.vm)) },
      { title: "Host", width: "minmax(3.5rem, 1fr)", cell: (vm) => name(vm.host) },
      { title: "State", width: "minmax(7rem, 1.2fr)", cell: (vm) => stateMark(vm.state, vm.reason) },
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
      const selectors = [...chosen.values()].map((vm) => selectorOf(vm.host, vm.vm));
      if (selectors.length > NAMED) sessionStorage.setItem("selectors", JSON.stringify(selectors));
      go("run", [], selectors.length > NAMED ? { kept: selectors.length } : { selector: selectors });
    }
  }
  list.element.addEventListener("select", drawActions);

  function draw(answer) {
    found = inOrder(answer.vms ?? []);
    const away = (answer.settled ?? []).filter((outcome) => outcome.error);
    const words = `${count(found.length, "VM")}${isFiltered(filter) ? " match" : ""}`;
    fill(status, h("b", {}, words),
      answer.as_of ? h("span", { class: "quiet" }, ` · as of ${ago(answer.as_of)}`) : null,
      answer.stale?.length ? h("span", { class: "badge warn", title: answer.stale.map((one) => `${one.host}: ${one.reason ?? ""} since ${ago(one.since)}`).join("\n") }, `${count(answer.stale.length, "host")} away: old rows`) : null);
    const notices = away.length ? h("details", { class: "away" },
      h("summary", {}, mark("warn", "▲", `${count(away.length, "host")} could not be listed`)),
      h("ul", {}, away.slice(0, 50).map((outcome) => h("li", {}, h("b", {}, target(outcome.host, outcome.vm)), ": ", rich(outcome.error.message),
        hintWords(outcome.error.hint, "span"))))) : null;
    if (!found.length) {
      fill(place, notices, isFiltered(filter)
        ? emptyBox("No VM matches", "The filter leaves nothing. Check the selector: a name alone has to be whole, a part of it needs a glob such as *web*.",
          h("button", { type: "button", class: "button", onclick: () => change({ selector: "", state: "", label: "" }) }, "Clear the filter"))
        : emptyBox("There are no VMs", "The hosts that could be listed have none. Look at the fleet for hosts that cannot be reached.",
          h("a", { class: "button", href: link("fleet") }, "Go to the fleet")));
    } else if (!place.contains(list.element)) {
      fill(place, notices, list.element);
    } else if (notices || place.querySelector(".away")) {
      place.querySelector(".away")?.remove();
      if (notices) place.prepend(notices);
    }
    list.setRows(found);
    drawActions();
    return words;
  }

  let asking = null;
  async function ask(quiet) {
    asking?.abort();
    asking = new AbortController();
    const mine = asking;
    signal.addEventListener("abort", () => mine.abort(), { once: true });
    if (!quiet) main.setAttribute("aria-busy", "true");
    try {
      const answer = await json(`/vms${queryString({ ...filter, allow_stale: "true" })}`, { signal: mine.signal });
      if (mine.signal.aborted) return;
      const words = draw(answer);
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

  drawActions();
  await ask(false);
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
async function showVm(main, host, vm, { signal }) {
  const selector = selectorOf(host, vm);
  const place = h("div", {});
  fill(main, h("div", { class: "head" }, h("a", { class: "back", href: listed, "data-back": true }, "← VMs"), h("h1", {}, name(vm)), h("span", { class: "quiet" }, `on ${name(host)}`)), place);
  const answer = await json(`/vms${queryString({ selector, allow_stale: "true" })}`, { signal });
  const row = (answer.vms ?? []).find((one) => one.vm === vm && one.host === host);
  if (!row) {
    const error = (answer.settled ?? []).find((one) => one.error)?.error;
    fill(place, emptyBox(error ? name(error.message) : "This VM was not found", hintText(error?.hint) || "It may have been removed or moved. Look for it on all hosts.",
      h("a", { class: "button", href: link("vms", [], { selector: vm }) }, "Look on all hosts")));
    return;
  }
  const { host: _host, vm: _vm, state, reason, labels, ...more } = row;
  const act = (verb, words, kind = "") => h("a", { class: `button ${kind}`, href: link("run", [], { verb, selector }) }, words);
  fill(place,
    h("div", { class: "card" }, h("p", { class: "state" }, stateMark(state, reason)),
      h("p", { class: "actions" }, act("exec", "Run a command", "primary"), act("vm-info", "Ask for details"), act(state === "shut off" ? "vm-start" : "vm-shutdown", state === "shut off" ? "Start" : "Shut down"),
        h("a", { class: "button", href: link("run", [], { selector }) }, "More…"), h("a", { class: "button", href: link("events", [], { selector }) }, "Its events"))),
    h("div", { class: "cards" }, facts("Identity", { host, ...more, ...Object.fromEntries(Object.entries(labels ?? {}).map(([key, value]) => [`label ${key}`, value])) }),
      h("section", { class: "card" }, h("h2", {}, "Screen"), state === "shut off" ? h("p", { class: "quiet" }, "It is shut off: there is no screen.") : screen(host, vm, { signal }))));
}
