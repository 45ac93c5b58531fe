// A plan: what would be done to which targets, and what is refused before anything is sent.

import { fill, h, mark } from "./dom.js";
import { failureBox, hintWords } from "./failure.js";
import { count, duration, name, target, text } from "./format.js";
import { table } from "./table.js";
import { stateMark } from "./vms.js";

/** The words of a dry run. */
const DRY_RUN = {
  proceed: ["good", "▶", "will be done"],
  unchanged: ["idle", "○", "nothing to do: already so"],
  "not-running": ["warn", "▲", "refused in this state"],
  unknown: ["odd", "?", "not known"],
};

const dryRun = (word) => DRY_RUN[word] ?? DRY_RUN.unknown;

/** A plan as an element. `start` begins the run; without it the plan is only shown. `resumed` is the run of which what is left is done. */
export function planElement(report, { start, verb, resumed = null }) {
  const counts = new Map();
  for (const one of report.targets) counts.set(one.dry_run, (counts.get(one.dry_run) ?? 0) + 1);
  const hosts = new Set(report.targets.map((one) => one.host)).size;
  const unit = verb.for_hosts ? "host" : "VM";
  const total = count(report.targets.length, unit);
  const refused = report.targets.filter((one) => one.refusal);
  const place = h("div", {});
  const list = table({
    label: "Targets of the plan",
    key: (one) => `${one.host}/${one.vm}`,
    columns: [
      { title: verb.for_hosts ? "Host" : "VM", width: "minmax(4rem, 1.2fr)", cell: (one) => h("span", { class: "strong" }, name(one.vm ?? one.host)) },
      ...(verb.for_hosts ? [] : [
        { title: "Host", width: "minmax(3rem, 1fr)", cell: (one) => name(one.host) },
        { title: "State", width: "minmax(6.5rem, 1fr)", wide: true, cell: (one) => (one.state ? stateMark(one.state) : "") }]),
      { title: "What happens", width: "minmax(9rem, 2fr)", cell: (one) => mark(...dryRun(one.dry_run)) },
    ],
  });
  list.element.style.blockSize = `${Math.min(9, report.targets.length + 1) * 36 + 2}px`;
  list.setRows(report.targets);

  async function begin() {
    if (report.disruptive && report.targets.length > 1 && !(await confirmed(report, total))) return;
    button.disabled = true;
    fill(place);
    try {
      await start();
    } catch (failure) {
      if (failure.name !== "AbortError") fill(place, failureBox(failure));
      button.disabled = false;
    }
  }
  const button = h("button", { type: "button", class: `button ${report.disruptive ? "danger" : "primary"}`, onclick: begin, disabled: report.targets.length + report.settled.length === 0 }, resumed ? `Resume run ${name(resumed)}` : `Start ${report.op} on ${total}`);

  return h("section", { class: "plan card", "aria-labelledby": "plan-title" },
    h("h2", { id: "plan-title", tabindex: -1 }, `Plan: ${report.op} on ${total}`, verb.for_hosts || !report.targets.length ? null : h("span", { class: "quiet" }, ` on ${count(hosts, "host")}`)),
    report.targets.length
      ? h("ul", { class: "tally" }, [...counts].map(([word, number]) => h("li", {}, mark(...dryRun(word)), h("b", {}, ` ${count(number, unit)}`))))
      : h("p", {}, "Nothing is selected. Check the selectors: globs that match nothing are no error, and the state or label may exclude all."),
    resumed ? h("p", {}, `Of these, what is left of run ${name(resumed)} is done.`) : null,
    report.notices.map((notice) => h("p", { class: "notice-box" }, text(notice))),
    errors("away", mark("bad", "✕", `Known already: ${count(report.settled.length, "failure")}`),
      report.settled.map((outcome) => ({ ...outcome, error: outcome.error ?? { message: outcome.status } }))),
    errors("refused", mark("warn", "▲", `Would be refused: ${count(refused.length, unit)}`), refused.map((one) => ({ ...one, error: one.refusal }))),
    report.targets.length ? list.element : null,
    h("p", { class: "quiet" }, `At most ${count(report.policy.parallel, "target")} at once, ${duration(report.policy.timeout_ms)} for each`,
      report.policy.max_failures ? `, no more after ${report.policy.max_failures} failures` : "", report.policy.serial ? `, in batches of ${report.policy.serial}` : "", "."),
    place,
    h("div", { class: "submit" }, start ? button : h("span", { class: "quiet" }, "The service is read only.")));
}

/** Targets with their errors, the first of them. */
function errors(kind, title, list) {
  const most = 100;
  if (!list.length) return null;
  return h("details", { class: kind, open: list.length <= 5 }, h("summary", {}, title),
    h("ul", {}, list.slice(0, most).map(({ host, vm, error }) => h("li", {}, h("b", {}, target(host, vm)), ": ", text(error.message), " ",
      error.kind ? h("code", {}, error.kind) : null, hintWords(error.hint, "span")))),
    list.length > most ? h("p", { class: "quiet" }, `and ${list.length - most} more`) : null);
}

/** Asks before something is taken from users. */
function confirmed(report, total) {
  return new Promise((resolve) => {
    const names = report.targets.slice(0, 8).map((one) => target(one.host, one.vm));
    const dialog = h("dialog", { class: "dialog", "aria-labelledby": "confirm-title", onclose: () => {
      resolve(dialog.returnValue === "yes");
      dialog.remove();
    } },
      h("h2", { id: "confirm-title" }, `${report.op}: ${total}`),
      h("p", {}, "This takes running VMs away from their users: ", names.join(", "), report.targets.length > 8 ? `, and ${report.targets.length - 8} more` : "", "."),
      h("form", { method: "dialog", class: "actions" }, h("button", { class: "button", value: "no", autofocus: true }, "Do nothing"), h("button", { class: "button danger", value: "yes" }, `Start on ${total}`)));
    document.body.append(dialog);
    dialog.showModal();
  });
}
