// One run: its outcomes as they come, in groups of equal output, and how to end it early.

import { json } from "./api.js";
import { fill, h, mark, perFrame } from "./dom.js";
import { emptyBox, failureBox, streamWords } from "./failure.js";
import { oneWord, selectorsQuery, writtenWord } from "./filter.js";
import { clock, count, duration, name, number, selectorOf, target, time } from "./format.js";
import { Groups, groupElement, statusMark, STATUSES } from "./groups.js";
import { moveAmong } from "./keys.js";
import { say } from "./live.js";
import { change, go, link, read } from "./route.js";
import { follow, sleep } from "./stream.js";
import { table } from "./table.js";
import { readVerbs } from "./verbs.js";

const REASONS = {
  requested: "It was stopped: targets under way ended normally, and no more were started.",
  aborted: "It was aborted: targets under way were ended at once.",
  "deadline-passed": "The time for the whole run was used up.",
  "max-failures": "Too many targets failed.",
  "canary-failed": "A target of the first batch failed.",
  "journal-failed": "Its outcomes could not be recorded any more.",
};

const STATES = {
  planning: ["odd", "◌", "planning"],
  running: ["accent", "▶", "running"],
  ended: ["idle", "■", "ended"],
  interrupted: ["warn", "▲", "interrupted"],
};

/** The state of a run as a mark. An ended run is as good as its outcomes. */
export function runMark(run) {
  const counts = run.statistics?.counts ?? {};
  const bad = (counts.failed ?? 0) + (counts.timeout ?? 0) + (counts.unreachable ?? 0);
  if (run.state === "ended" && bad) return mark("bad", "✕", `${count(bad, "failure")}`);
  if (run.state === "ended" && run.stop_reason) return mark("warn", "■", "ended early");
  if (run.state === "ended") return mark("good", "●", "done");
  return mark(...(STATES[run.state] ?? ["odd", "?", String(run.state)]));
}

/** What is done with bytes, by the word of the verb. */
const DOING = { cp: "copying ", "vm-save": "saving " };

/** How often it is said how far a run is, ms. */
const SAY = 10_000;

export async function showRun(main, id, { signal, session }) {
  const path = `/runs/${encodeURIComponent(id)}`;
  let summary = await json(path, { signal });
  let filter = read().query.get("status") ?? "";
  let begun = null;
  let ended = null;
  let stopping = null;
  let lost = null;
  // By target: a run that is resumed has a further outcome for a target that failed before.
  const outcomes = new Map();
  const underWay = new Map();
  let counts = {};
  let groups = new Groups();

  const head = h("div", { class: "run-head" });
  const live = h("span", { class: "live" });
  const bar = h("div", { class: "progress", role: "progressbar", "aria-label": "Targets with an outcome", "aria-valuemin": 0 });
  const chips = h("div", { class: "chips", role: "group", "aria-label": "Outcomes by status" });
  const working = h("p", { class: "quiet working" });
  const failed = h("div", {});
  const groupPlace = h("div", { class: "outcomes" });
  const all = h("div", { class: "fills all" });
  const tabs = h("div", { class: "tabs" },
    h("button", { type: "button", class: "tab", "data-tab": "groups", onclick: () => change({ by: "" }) }, "Groups"),
    h("button", { type: "button", class: "tab", "data-tab": "targets", onclick: () => change({ by: "target" }) }, "Targets"));
  moveAmong(groupPlace, "summary");
  const list = table({
    label: "Outcomes by target",
    key: (outcome) => `${outcome.host}/${outcome.vm}`,
    describe: (outcome) => `${target(outcome.host, outcome.vm)}, ${outcome.status}`,
    open: showOutcome,
    columns: [
      { title: "Status", width: "6.75rem", cell: (outcome) => statusMark(outcome.status) },
      { title: "VM", width: "minmax(4rem, 1.2fr)", cell: (outcome) => h("span", { class: "strong" }, name(outcome.vm ?? "")) },
      { title: "Host", width: "minmax(3rem, 1fr)", cell: (outcome) => name(outcome.host ?? "") },
      { title: "Effect", width: "6rem", wide: true, cell: (outcome) => outcome.effect },
      { title: "Time", width: "4rem", align: "number", cell: (outcome) => duration(outcome.duration_ms) },
      { title: "What", width: "minmax(10rem, 3fr)", align: "quiet", wide: true, cell: (outcome) => h("span", {}, name(outcome.error ? `${outcome.error.kind}: ${outcome.error.message}` : firstLine(outcome))) },
    ],
  });
  all.append(list.element);
  fill(main, head, bar, chips, working, failed, tabs, groupPlace, all);

  const total = () => Math.max(begun ? begun.targets + begun.settled + begun.done_before : summary.targets ?? 0, outcomes.size);

  function drawHead() {
    const running = !ended && (summary.state === "running" || summary.state === "planning");
    const may = session.role === "admin" || summary.by === session.name;
    const took = ended?.duration_ms ?? (summary.ended ? time(summary.ended) - time(summary.created) : Date.now() - time(summary.created));
    const reason = stopping?.reason ?? summary.stop_reason?.reason ?? summary.stop_reason;
    // Something can be left of it.
    const isEarly = !running && (Boolean(reason) || (summary.state === "interrupted" && !ended));
    const shown = ended ? { ...summary, state: "ended", statistics: ended, stop_reason: reason } : summary;
    fill(head,
      h("div", { class: "head" }, h("a", { class: "back", href: link("runs"), "data-back": true }, "← Runs"), h("h1", {}, name(summary.op)), runMark(shown), live, h("div", { class: "grow" }),
        running && may ? h("div", { class: "actions" },
          h("button", { type: "button", class: "button", disabled: Boolean(stopping), title: "Targets under way end normally, and no more are started.", onclick: () => act("stop") }, "Stop"),
          h("button", { type: "button", class: "button danger", title: "Targets under way are ended at once. What was sent may have happened.", onclick: () => act("abort") }, "Abort")) : null,
        !running ? h("div", { class: "actions" },
          isEarly && may && !session.read_only ? h("button", { type: "button", class: "button primary", title: "Does the targets that were never started or failed without an effect.", onclick: () => act("resume") }, "Resume") : null,
          h("a", { class: "button", href: `/api/v1${path}/junit`, download: `atp-run-${id}.xml` }, "JUnit"),
          h("button", { type: "button", class: "button", onclick: report }, "Report (JSON)")) : null),
      h("p", { class: "quiet" }, `By ${name(summary.by)}, started ${clock(summary.created)}, ${running ? "for" : "took"} ${duration(took)}`, begun ? `, on ${count(begun.hosts, "host")}` : "", "."),
      reason ? h("p", { class: "notice-box" }, REASONS[reason] ?? "It ended early.") : null,
      summary.state === "interrupted" && !ended ? h("p", { class: "notice-box" }, "The service ended during this run. Targets that were started and have no outcome are not known; resume it to go on with the others.") : null);
  }

  function drawProgress() {
    const done = outcomes.size;
    const whole = total();
    bar.setAttribute("aria-valuemax", String(whole));
    bar.setAttribute("aria-valuenow", String(done));
    fill(bar, Object.keys(STATUSES).filter((status) => counts[status]).map((status) => {
      const part = h("span", { class: `part ${STATUSES[status][0]}` });
      part.style.flexGrow = String(counts[status]);
      return part;
    }), rest(whole - done));
    fill(chips, h("button", { type: "button", class: "chip idle", "aria-pressed": String(filter === ""), onclick: () => change({ status: "" }) }, done === whole ? count(done, "outcome") : `${number(done)} of ${count(whole, "outcome")}`),
      Object.entries(STATUSES).filter(([status]) => counts[status] || filter === status).map(([status, [tone, shape, means]]) =>
        h("button", { type: "button", class: `chip ${tone}`, title: means, "aria-pressed": String(filter === status), onclick: () => change({ status: filter === status ? "" : status }) },
          h("span", { class: "shape", "aria-hidden": "true" }, shape), `${number(counts[status] ?? 0)} ${status}`)));
  }

  function drawWorking() {
    const names = [...underWay.values()].slice(0, 8).map(({ host, vm, done, total }) =>
      total > 0 && done < total ? `${target(host, vm)} (${DOING[summary.op] ?? ""}${Math.floor(Math.min(done / total, 1) * 100)} %)` : target(host, vm));
    fill(working, names.length && !ended ? `Under way: ${names.join(", ")}${underWay.size > names.length ? `, and ${number(underWay.size - names.length)} more` : ""}.` : null);
  }

  function rest(value) {
    const part = h("span", { class: "part" });
    part.style.flexGrow = String(Math.max(0, value));
    return part;
  }

  const opened = new Map();
  function drawGroups() {
    const by = read().query.get("by") === "target" ? "targets" : "groups";
    for (const tab of tabs.children) tab.setAttribute("aria-pressed", String(tab.dataset.tab === by));
    groupPlace.hidden = by !== "groups";
    all.hidden = by !== "targets";
    if (by === "targets") {
      list.setRows([...outcomes.values()].filter((outcome) => !filter || outcome.status === filter));
      return;
    }
    const found = groups.all();
    const base = found[0];
    const shown = found.filter((group) => !filter || group.first.status === filter);
    // A group that someone looks at stays as it is, unless it has grown.
    const focused = document.activeElement?.closest?.(".outcome")?.dataset.key;
    const elements = shown.map((group) => {
      const old = opened.get(group.key);
      if (old && old.size === group.members.length && old.base === base.key) return old.element;
      const element = groupElement(group, base, { open: old ? old.element.open : shown.length <= 6 });
      element.dataset.key = group.key;
      opened.set(group.key, { element, size: group.members.length, base: base.key });
      return element;
    });
    if (!elements.length) {
      fill(groupPlace, lost && !outcomes.size ? null : ended || summary.state === "ended"
        ? emptyBox("No outcomes", filter ? "No target has this status." : "The selectors matched nothing, so nothing was done.")
        : emptyBox("Waiting for the first outcome", "Outcomes appear here as the targets end, together where their output is equal."));
    } else if (groupPlace.children.length !== elements.length || elements.some((element, index) => groupPlace.children[index] !== element)) {
      fill(groupPlace, elements);
      if (focused) opened.get(focused)?.element.querySelector("summary").focus({ preventScroll: true });
    }
  }

  const draw = perFrame(() => {
    if (signal.aborted) return;
    drawHead();
    drawProgress();
    drawWorking();
    drawGroups();
  });

  // Nothing else changes with it: what has the focus stays.
  const drawFurther = perFrame(() => signal.aborted || drawWorking());

  function take(outcome) {
    const key = JSON.stringify([outcome.host, outcome.vm]);
    underWay.delete(key);
    const isNew = !outcomes.has(key);
    outcomes.set(key, outcome);
    if (isNew) {
      counts[outcome.status] = (counts[outcome.status] ?? 0) + 1;
      groups.add(outcome);
      return;
    }
    counts = {};
    groups = new Groups();
    for (const one of outcomes.values()) {
      counts[one.status] = (counts[one.status] ?? 0) + 1;
      groups.add(one);
    }
  }

  let said = Date.now();
  function onEvent({ data }) {
    switch (data.event) {
      case "begun":
        begun = data;
        ended = null;
        stopping = null;
        underWay.clear();
        summary = { ...summary, state: "running", ended: null, stop_reason: null };
        break;
      case "started":
        underWay.set(JSON.stringify([data.host, data.vm]), data);
        break;
      case "progress": {
        const key = JSON.stringify([data.host, data.vm]);
        if (underWay.has(key)) underWay.set(key, data);
        drawFurther();
        return;
      }
      case "finished":
        take(data);
        break;
      case "stopping":
        stopping = data;
        break;
      case "ended":
        ended = data;
        break;
      case "interrupted":
        ended = null;
        summary = { ...summary, state: "interrupted" };
        break;
      default:
        break;
    }
    if (Date.now() - said > SAY && !ended) {
      said = Date.now();
      say(`${number(outcomes.size)} of ${number(total())} outcomes`);
    }
    draw();
  }

  async function act(word) {
    fill(failed);
    try {
      await json(`${path}/${word}`, { method: "POST", signal });
      say(word === "stop" ? "The run is asked to stop" : word === "abort" ? "The run is asked to end at once" : "The run goes on");
      if (word === "resume") {
        ended = null;
        tick();
        await watch();
      }
    } catch (failure) {
      if (signal.aborted) return;
      const isNotKept = word === "resume" && failure.errors?.some((one) => one.field === "body");
      fill(failed, isNotKept ? notKept() : failureBox(failure));
    }
  }

  /** What is done where the service did not keep the request, as that may be secret. */
  function notKept() {
    return h("div", { class: "failure", role: "alert" },
      h("p", { class: "failure-what" }, `The service has not kept what ${name(summary.op)} was begun with, as it may be secret.`),
      h("p", {}, "Give it again here, or use the command that it was begun with on the command line, with ", h("code", {}, `atp --server ${location.origin} --resume ${id}`), "."),
      h("button", { type: "button", class: "button primary", onclick: () => giveAgain().catch((failure) => signal.aborted || fill(failed, failureBox(failure))) }, "Give it again"));
  }

  /** Goes to the form of a run, with the verb of this one and what chose its targets. */
  async function giveAgain() {
    const [plan, verbs] = await Promise.all([json(`${path}/plan`, { signal }), readVerbs(signal)]);
    // Copies into guests and out of them have one word.
    const named = verbs.filter((verb) => verb.word === summary.op);
    // The plans of earlier versions do not have it.
    const { selectors, exclude, state, labels } = plan.chosen_by ?? { selectors: plan.targets.map((one) => selectorOf(one.host, one.vm)) };
    go("run", [], {
      resume: id,
      verb: named.length === 1 ? named[0].name : "",
      ...selectorsQuery(selectors.map(oneWord)),
      exclude: (exclude ?? []).map(oneWord),
      state,
      label: Object.entries(labels ?? {}).map(([key, value]) => writtenWord(`${key}=${value}`)),
    });
  }

  /** All outcomes as a file that other programs read. */
  function report() {
    const blob = new Blob([JSON.stringify([...outcomes.values()], null, 2)], { type: "application/json" });
    const url = URL.createObjectURL(blob);
    h("a", { href: url, download: `atp-run-${id}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  async function watch() {
    await follow(`${path}/events`, {
      signal,
      onEvent,
      isOver: async () => {
        summary = await json(path, { signal });
        return summary.state !== "running" && summary.state !== "planning";
      },
      onState: (state, failure) => {
        lost = state === "lost" ? failure : null;
        fill(live, state === "ended" ? null : h("span", { title: failure?.message ?? null }, mark(...streamWords(state))));
        fill(failed, failure && failure.status >= 400 ? failureBox(failure) : null);
      },
    });
    if (signal.aborted) return;
    draw();
    if (ended) {
      const bad = [...outcomes.values()].filter((outcome) => outcome.status !== "ok" && outcome.status !== "unchanged").length;
      say(`The run has ended: ${count(outcomes.size, "outcome")}, ${bad ? `${number(bad)} not successful` : "all successful"}`);
    }
  }

  /** Draws how long it has been under way. */
  async function tick() {
    while (!signal.aborted && !ended) {
      await sleep(1_000, signal);
      if (!document.hidden && !head.contains(document.activeElement)) draw();
    }
  }

  draw();
  watch();
  tick();
  return (next) => {
    filter = next.query.get("status") ?? "";
    draw();
  };
}

function firstLine(outcome) {
  const data = outcome.data;
  const words = outcome.op === "exec" ? data?.stdout?.text : data?.state;
  return String(words ?? "").trim().split("\n")[0].slice(0, 200);
}

/** One outcome with all of it. */
function showOutcome(outcome) {
  const group = new Groups();
  group.add(outcome);
  const dialog = h("dialog", { class: "dialog wide", "aria-label": target(outcome.host, outcome.vm), onclose: () => dialog.remove() },
    h("h2", {}, target(outcome.host, outcome.vm)),
    h("p", { class: "quiet" }, `${count(outcome.attempts, "attempt")}, ${duration(outcome.duration_ms)}`),
    groupElement(group.all()[0], null, { open: true }),
    h("form", { method: "dialog", class: "actions" }, h("button", { class: "button primary", autofocus: true }, "Close")));
  document.body.append(dialog);
  dialog.showModal();
}
