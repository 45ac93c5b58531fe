// Runs: those of the past and those under way.

import { json, query as queryString } from "./api.js";
import { fill, h, settle } from "./dom.js";
import { emptyBox } from "./failure.js";
import { ago, clock, count, duration, name, time } from "./format.js";
import { link, go } from "./route.js";
import { runMark, showRun } from "./run.js";
import { sleep } from "./stream.js";
import { table } from "./table.js";

const PAGE = 100;
const AGAIN = 4_000;

export async function show(main, route, context) {
  return route.path[0] ? showRun(main, route.path[0], context) : showList(main, context);
}

async function showList(main, { signal }) {
  let runs = await read({ signal });
  let more = runs.length === PAGE;
  const place = h("div", { class: "fills" });
  const older = h("button", { type: "button", class: "button", onclick: readOlder }, "Older runs");
  const list = table({
    label: "Runs",
    key: (run) => run.id,
    open: (run) => go("runs", [String(run.id)]),
    describe: (run) => `${run.op} by ${run.by}, ${run.state}, ${ago(run.created)}`,
    columns: [
      { title: "State", width: "minmax(6.5rem, 1fr)", cell: runMark },
      { title: "Verb", width: "minmax(4.5rem, 1fr)", cell: (run) => h("a", { class: "strong", href: link("runs", [String(run.id)]), tabindex: -1 }, name(run.op)) },
      { title: "Targets", width: "4rem", align: "number", cell: (run) => (run.targets === null || run.targets === undefined ? "–" : count(run.targets, "", "").trim()) },
      { title: "By", width: "minmax(6rem, 1fr)", wide: true, cell: (run) => name(run.by) },
      { title: "Started", width: "minmax(6rem, 1fr)", wide: true, cell: (run) => h("span", { title: clock(run.created) }, ago(run.created)) },
      { title: "Took", width: "4.5rem", align: "number", cell: (run) => (run.ended ? duration(time(run.ended) - time(run.created)) : run.state === "running" ? h("span", { class: "quiet" }, duration(Date.now() - time(run.created))) : "–") },
    ],
  });
  fill(main, h("div", { class: "head" }, h("h1", {}, "Runs"), h("div", { class: "grow" }), h("a", { class: "button primary", href: link("run") }, "New run")), place);

  function draw() {
    if (!runs.length) {
      fill(place, emptyBox("There are no runs yet", "A run does one thing to many targets. Choose a verb and targets; its plan is shown before anything is done.", h("a", { class: "button primary", href: link("run") }, "Compose a run")));
      return;
    }
    if (!place.contains(list.element)) fill(place, list.element, older);
    older.hidden = !more;
    list.setRows(runs);
  }

  async function readOlder() {
    const next = await read({ signal, before: runs.at(-1).id });
    more = next.length === PAGE;
    runs = [...runs, ...next];
    draw();
  }

  async function readNew() {
    const fresh = await read({ signal });
    const known = new Set(fresh.map((run) => run.id));
    runs = [...fresh, ...runs.filter((run) => !known.has(run.id))];
    draw();
  }

  draw();
  const soon = settle(0, () => readNew().catch(() => {}));
  document.addEventListener("visibilitychange", soon, { signal });
  (async () => {
    while (!signal.aborted) {
      await sleep(AGAIN, signal);
      // What failed once is read again in some seconds; the rows stay.
      if (!signal.aborted && !document.hidden) await readNew().catch(() => {});
    }
  })();
}

async function read({ signal, before }) {
  const answer = await json(`/runs${queryString({ limit: PAGE, before })}`, { signal });
  return Array.isArray(answer) ? answer : answer.runs;
}
