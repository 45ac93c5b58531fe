// Outcomes that are equal, together: by status, error and output.

import { h, mark } from "./dom.js";
import { lines, near } from "./diff.js";
import { effectWords, hintText, hintWords, rich } from "./failure.js";
import { byName, count, duration, name, number, target, text } from "./format.js";

/** The statuses, in the order in which they are counted: tone, shape, and what each means. */
export const STATUSES = {
  ok: ["good", "●", "Done."],
  unchanged: ["idle", "○", "It was as requested already; nothing was done."],
  failed: ["bad", "✕", "It failed."],
  timeout: ["warn", "◷", "It did not end within its time limit."],
  unreachable: ["bad", "⌀", "The host could not be reached."],
  skipped: ["idle", "–", "It was never started, because the run ended before."],
  cancelled: ["odd", "■", "It was started, and stopped before it ended."],
};

/** A status as a mark. */
export function statusMark(status) {
  const [tone, shape] = STATUSES[status] ?? ["odd", "?"];
  return mark(tone, shape, status);
}

/** How many members of a group are named at first. */
const NAMED = 24;

/** The output of an outcome as texts with titles. */
function outputs(outcome) {
  const data = outcome.data;
  if (data === null || data === undefined) return [];
  const stream = (title, one) => one && one.text !== "" ? [[title + (one.encoding && one.encoding !== "utf-8" ? ` (${one.encoding})` : "") + (one.truncated ? ", cut off" : ""), one.text]] : [];
  if (outcome.op === "exec" && typeof data === "object") {
    return [...stream("output", data.stdout), ...stream("errors", data.stderr)];
  }
  if (typeof data === "object" && Object.keys(data).length === 1 && typeof data.state === "string") return [["state", data.state]];
  // Each target has a file of its own, which is beside its name.
  const shared = (key, value) => (["local_path", "file", "folder"].includes(key) && typeof value === "string" ? undefined : value);
  return [["result", typeof data === "string" ? data : JSON.stringify(data, shared, 2)]];
}

/** The files of an outcome that the service keeps: those of pulls and pictures, by themselves or in steps, and evidence. */
function files(outcome) {
  const of = (op, data) => data?.file ?? (op === "push" || data?.guest_path === undefined ? null : data.local_path);
  const { steps = [], teardown = [], evidence } = outcome.data ?? {};
  const paths = [of(outcome.op, outcome.data), ...[...steps, ...teardown].map((step) => of(step.op, step.data)),
    ...(evidence?.files ?? []).map((file) => `${evidence.folder}/${file}`)];
  return paths.filter((path) => typeof path === "string" && !path.startsWith("/") && path.includes("/"));
}

/** A link that fetches a file of the service. */
function fileLink(path) {
  const parts = path.split("/");
  return h("a", { class: "file", href: `/api/v1/files/${parts.map(encodeURIComponent).join("/")}`, download: parts.at(-1) }, name(parts.at(-1)));
}

/** The names of a target in a message are what differs between equal failures. */
function common(outcome, message) {
  let result = message;
  if (outcome.vm) result = result.replaceAll(`"${outcome.vm}"`, "…");
  if (outcome.host) result = result.replace(new RegExp(`(host |^)${outcome.host.replace(/[.\\-]/g, "\\$&")}(?=[:, ]|$)`, "g"), "$1…");
  return result;
}

/** Collects outcomes in groups. */
export class Groups {
  #groups = new Map();

  add(outcome) {
    const error = outcome.error;
    const key = JSON.stringify([outcome.status, outcome.effect, outcome.data?.exit_code ?? null, outcome.data?.signal ?? null,
      error && [error.kind, hintText(error.hint), common(outcome, error.message)], outputs(outcome)]);
    let group = this.#groups.get(key);
    if (!group) {
      group = { key, first: outcome, outputs: outputs(outcome), members: [] };
      this.#groups.set(key, group);
    }
    group.members.push(outcome);
  }

  /** The groups, the largest successful one first, then by size. */
  all() {
    return [...this.#groups.values()].sort((a, b) => success(b.first) - success(a.first) || b.members.length - a.members.length);
  }
}

const success = (outcome) => Number(outcome.status === "ok" || outcome.status === "unchanged");

/** A group as an element. `base` is the group whose output the others are compared with. */
export function groupElement(group, base, { open }) {
  const { first, members } = group;
  const code = first.data?.exit_code;
  const body = h("div", { class: "outcome-body" });
  const element = h("details", { class: `outcome ${STATUSES[first.status]?.[0] ?? "odd"}`, open },
    h("summary", {}, statusMark(first.status),
      h("span", { class: "strong" }, count(members.length, "target")),
      Number.isInteger(code) && code !== 0 ? h("span", { class: "badge bad" }, `exit code ${code}`) : null,
      first.data?.signal ? h("span", { class: "badge bad" }, `signal ${first.data.signal}`) : null,
      first.error ? h("code", {}, first.error.kind) : null,
      h("span", { class: "quiet peek" }, peek(group))),
    body);
  let built = false;
  const build = () => {
    if (built || !element.open) return;
    built = true;
    body.append(...[errorPart(group), ...outputParts(group, base), memberPart(members)].filter(Boolean));
  };
  element.addEventListener("toggle", build);
  build();
  return element;
}

/** The first line of what a group says. */
function peek(group) {
  if (group.first.error) return text(common(group.first, group.first.error.message)).slice(0, 160);
  return text(group.outputs[0]?.[1] ?? "no output").trim().split("\n")[0].slice(0, 160);
}

function errorPart({ first }) {
  const error = first.error;
  if (!error) return null;
  return h("div", { class: "error-part" },
    h("p", {}, rich(error.message)),
    error.causes?.length ? h("ul", { class: "causes" }, error.causes.map((cause) => h("li", {}, text(cause)))) : null,
    h("p", { class: "effect" }, h("b", {}, "Effect: "), h("code", {}, first.effect), " ", effectWords(first.effect),
      error.retryable ? " The same may succeed later." : null),
    hintWords(error.hint));
}

function outputParts(group, base) {
  const compared = base && base !== group && success(group.first) + success(base.first) > 0 ? new Map(base.outputs) : null;
  return group.outputs.map(([title, value]) => {
    const other = compared?.get(title);
    if (other === undefined) return h("figure", { class: "output" }, h("figcaption", {}, title), h("pre", { tabindex: 0 }, text(value)));
    const found = lines(text(other).trimEnd(), text(value).trimEnd());
    if (found && !found.some((line) => line.kind === "same" && line.text.trim())) return h("figure", { class: "output" }, h("figcaption", {}, `${title}, nothing in common with the largest group`), h("pre", { tabindex: 0 }, text(value)));
    if (!found) return h("figure", { class: "output" }, h("figcaption", {}, `${title} (too long to be compared with the largest group)`), h("pre", { tabindex: 0 }, text(value)));
    if (found.every((line) => line.kind === "same")) return h("p", { class: "quiet" }, `The ${title} is that of the largest group.`);
    const words = { same: "", added: "only here: ", removed: "only in the largest group: " };
    const signs = { same: " ", added: "+", removed: "−" };
    const whole = h("pre", { tabindex: 0 }, text(value));
    whole.hidden = true;
    const diff = h("pre", { class: "diff", tabindex: 0 }, near(found).map((line) => line.kind === "gap"
      ? h("span", { class: "gap" }, `  … ${count(line.count, "equal line")}\n`)
      : h("span", { class: line.kind }, h("span", { "aria-hidden": "true" }, `${signs[line.kind]} `), words[line.kind] ? h("span", { class: "unseen" }, words[line.kind]) : null, `${line.text}\n`)));
    const button = h("button", { type: "button", class: "button plain small", "aria-pressed": "false", onclick: () => {
      whole.hidden = !whole.hidden;
      diff.hidden = !whole.hidden;
      button.setAttribute("aria-pressed", String(!whole.hidden));
    } }, "Whole text");
    return h("figure", { class: "output" }, h("figcaption", {}, `${title}, compared with the largest group `, button), diff, whole);
  });
}

function memberPart(members) {
  const list = h("ul", { class: "members" });
  const sorted = [...members].sort((a, b) => byName(a.host ?? "", b.host ?? "") || byName(a.vm ?? "", b.vm ?? ""));
  const item = (outcome) => h("li", { title: `${duration(outcome.duration_ms)}, ${count(outcome.attempts, "attempt")}` }, target(outcome.host, outcome.vm),
    outcome.found_on ? h("span", { class: "quiet" }, ` (on ${name(outcome.found_on)})`) : null,
    files(outcome).map((path) => [" ", fileLink(path)]));
  list.append(...sorted.slice(0, NAMED).map(item));
  if (sorted.length > NAMED) {
    const rest = h("button", { type: "button", class: "button plain small", onclick: () => {
      rest.parentElement.remove();
      list.append(...sorted.slice(NAMED).map(item));
    } }, `and ${number(sorted.length - NAMED)} more`);
    list.append(h("li", {}, rest));
  }
  return list;
}
