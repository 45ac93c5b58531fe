// A new run: a verb, its parameters, the targets; then its plan; then the start.

import { Failure, json, query as queryString, uniqueKey } from "./api.js";
import { fill, h } from "./dom.js";
import { failureBox } from "./failure.js";
import { form, plain, Unfit } from "./form.js";
import { byName, count, name } from "./format.js";
import { plainWord, readFilter, tidy, words } from "./filter.js";
import { say } from "./live.js";
import { change, go, link } from "./route.js";
import { planElement } from "./plan.js";
import { readVerbs, refusal, titleOf } from "./verbs.js";

/** The limits that are shown, with the words for them. The others are in the second part. */
const LIMITS = {
  timeout_ms: ["Time for each target (s)", "Everything is included: waiting for a connection, connecting, every attempt."],
  parallel: ["Targets at once", "Over all hosts."],
  max_failures: ["Stop after failures", "A number, or a share such as 10%. Empty: it goes on to the end."],
  serial: ["Batches of", "A number, or a share. The first batch is the canary: if one of its targets fails, the run ends with it."],
  per_host: ["Targets at once on one host", "Empty: as many as in all."],
  retries: ["Retries", "Only after a failure that changed nothing and that may pass."],
  deadline_ms: ["Time for the whole run (s)", "When it is used up nothing more is started, and what is under way is cancelled. Empty: no limit."],
};

/** What the form had when the plan was shown. It may hold secrets, so it is neither in the address nor in storage. */
let kept = { verb: null, operation: {} };

export async function show(main, route, { signal, session }) {
  const verbs = await readVerbs(signal);
  const allowed = verbs.filter((verb) => verb.allowed);
  let wanted = route.query.get("verb");
  let current = allowed.find((verb) => verb.name === wanted) ?? null;
  // The number of a run of which what is left is done.
  const resumed = route.query.get("resume");
  let operation = null;

  const choice = h("div", { class: "verbs", role: "radiogroup", "aria-label": "Verb" });
  const about = h("div", {});
  const fields = h("div", {});
  const result = h("div", { id: "plan", "aria-live": "off" });
  const refused = h("div", {});
  const targets = targetFields(route.query);
  const limits = limitFields();
  const button = h("button", { class: "button primary" }, "Show the plan");
  const composer = h("form", { class: "composer", novalidate: true, onsubmit: submit },
    h("fieldset", {}, h("legend", {}, h("span", { class: "step" }, "1"), "What is done"), choice, about, fields),
    h("fieldset", {}, h("legend", {}, h("span", { class: "step" }, "2"), "To which"), targets.element),
    h("details", { class: "more card" }, h("summary", {}, "Limits: time, targets at once, failures"), limits.element),
    h("div", { class: "submit" }, button, h("span", { class: "quiet" }, "Nothing is done yet: the plan says what would be done to which targets.")),
    refused);
  fill(main, h("div", { class: "head" }, resumed ? h("a", { class: "back", href: link("runs", [resumed]), "data-back": true }, "← Run") : null,
    h("h1", {}, resumed ? `Resume run ${name(resumed)}` : "New run")),
    resumed ? h("p", { class: "notice-box" }, "Choose what the run was begun with: the same verb and the same parameters. Of its targets only those are worked on that were never started, or that failed without an effect.") : null,
    session.read_only ? h("p", { class: "notice-box" }, "The service is read only: plans can be made, and nothing can be started.") : null,
    h("div", { class: "compose" }, composer, result));
  // Changes of the form make the plan old.
  composer.addEventListener("input", () => {
    if (!result.firstChild) return;
    fill(result, h("p", { class: "quiet card" }, "The form was changed. Show the plan again."));
  });

  function drawChoice() {
    const groups = [["Look", (verb) => verb.read_only], ["Change", (verb) => !verb.read_only && !verb.disruptive], ["Take away from users", (verb) => verb.disruptive]];
    fill(choice, groups.map(([title, belongs]) => {
      const members = allowed.filter(belongs).sort((a, b) => byName(titleOf(a), titleOf(b)));
      return members.length ? h("div", { class: "verb-group" }, h("span", { class: "verb-title" }, title), h("div", {}, members.map((verb) =>
        h("label", { class: `verb ${verb.disruptive ? "bad" : ""}`, title: plain(verb.about) },
          h("input", { type: "radio", name: "verb", value: verb.name, checked: verb === current, onchange: () => choose(verb) }), titleOf(verb))))) : null;
    }));
    if (!allowed.length) fill(choice, h("p", {}, "Your token may use no verb. Ask an administrator for another role."));
  }

  function choose(verb) {
    current = verb;
    wanted = verb.name;
    change({ verb: verb.name }, { step: false });
    drawForm();
  }

  function drawForm() {
    button.disabled = !current;
    if (!current) {
      fill(about, wanted ? h("p", { class: "notice-box" }, refusal(verbs, wanted), " Choose another verb, or sign in with another token.") : h("p", { class: "hint" }, "Choose a verb: here stands then what it does, and what it needs."));
      fill(fields);
      return;
    }
    fill(about, h("p", { class: "hint" }, plain(current.about), current.disruptive ? h("b", {}, " It takes running VMs away from their users.") : null));
    const values = kept.verb === current.name ? kept.operation : {};
    operation = form(current.schema, current.schema.$defs ?? {}, { values, widgets: FILES[current.name] });
    fill(fields, operation.element);
    targets.forHosts(Boolean(current.for_hosts));
  }

  async function submit(event) {
    event.preventDefault();
    fill(refused);
    let body;
    try {
      const parameters = await withFileSent(operation.read(), signal);
      kept = { verb: current.name, operation: parameters };
      body = { targets: targets.read(), operation: parameters, policy: limits.read() };
    } catch (problem) {
      if (signal.aborted) return;
      fill(refused, problem instanceof Unfit ? h("p", { class: "failure", role: "alert" }, problem.message) : failureBox(problem));
      return;
    }
    button.disabled = true;
    fill(result, h("p", { class: "loading" }, "Asking the hosts for their VMs…"));
    try {
      const report = await json("/plans", { method: "POST", body, signal });
      const key = uniqueKey();
      const asPlanned = queryString({ plan: report.id });
      const start = async () => {
        const run = resumed
          ? await json(`/runs/${encodeURIComponent(resumed)}/resume${asPlanned}`, { method: "POST", body, signal })
          : await json(`/runs${asPlanned}`, { method: "POST", body, headers: { "idempotency-key": key }, signal });
        go("runs", [String(run.id)]);
      };
      fill(result, planElement(report, { start: session.read_only ? null : start, verb: current, resumed }));
      result.querySelector("h2")?.focus();
      say(`Plan: ${count(report.targets.length, "target")}`);
    } catch (failure) {
      if (signal.aborted) return;
      fill(result, failureBox(failure instanceof Failure ? failure : new Failure(0, { detail: failure.message }), () => composer.requestSubmit()));
    } finally {
      button.disabled = false;
    }
  }

  drawChoice();
  drawForm();
  return (next) => {
    const before = wanted;
    wanted = next.query.get("verb");
    if (wanted !== before) {
      current = allowed.find((one) => one.name === wanted) ?? null;
      drawChoice();
      drawForm();
    }
    targets.write(next.query);
  };
}

/** Fields that name files: those of a push are sent to the service first, and what is pulled is kept by the service. */
const FILES = {
  push: { source: fileField },
  pull: { destination: () => ({ element: null, read: () => "." }), separate: () => ({ element: null, read: () => undefined }) },
  screenshot: { folder: () => ({ element: null, read: () => "." }) },
  scenario: { files: filesField },
};

/** The files that steps of a scenario push: each is known by its name. */
function filesField() {
  const input = h("input", { type: "file", id: "files", multiple: true, "aria-describedby": "files-hint" });
  return {
    main: true,
    element: h("div", { class: "field" }, h("label", { htmlFor: "files" }, "Files", h("span", { class: "quiet" }, " optional")), input,
      h("p", { class: "hint", id: "files-hint" }, "Those that steps push, by their names, as in ", h("code", {}, "cp: {push: app.conf, to: /etc/app.conf}"), ".")),
    read: () => (input.files.length ? [...input.files] : undefined),
  };
}

function fileField() {
  const input = h("input", { type: "file", id: "file", required: true, "aria-describedby": "file-hint" });
  return {
    element: h("div", { class: "field" }, h("label", { htmlFor: "file" }, "File"), input, h("p", { class: "hint", id: "file-hint" }, "It is sent to the service, and from there to each target.")),
    read: () => {
      if (input.files.length) return input.files[0];
      input.focus();
      throw new Unfit("source", "File: choose the file to copy.");
    },
  };
}

/** Sends the files among the parameters, and puts their ids in their places. */
async function withFileSent(parameters, signal) {
  const send = (file) => json(`/files?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file, headers: { "content-type": "application/octet-stream" }, signal });
  if (Array.isArray(parameters.files)) {
    const files = {};
    for (const file of parameters.files) files[file.name] = (await send(file)).id;
    return { ...parameters, files };
  }
  if (!(parameters.source instanceof File)) return parameters;
  const answer = await send(parameters.source);
  return { ...parameters, source: answer.id, sha256: answer.sha256 };
}

/** How VMs are selected. */
const VMS = "Names, globs, HOST/VM, HOST/, @GROUP/, /REGEX/, separated by spaces; a space in a name has a \\ before it.";

function targetFields(query) {
  const line = (id, label, hint, placeholder) => {
    const input = h("input", { type: "text", id, spellcheck: false, autocapitalize: "off", autocomplete: "off", placeholder, "aria-describedby": `${id}-hint` });
    return { input, element: h("div", { class: "field" }, h("label", { htmlFor: id }, label), input, h("p", { class: "hint", id: `${id}-hint` }, hint)) };
  };
  const selector = line("run-selector", "Selectors", VMS, "web-*  h1/");
  selector.input.dataset.filter = "";
  const exclude = line("run-exclude", "Except", "What is left out, in the same form.", "");
  const label = line("run-label", "Labels", "KEY=VALUE, separated by spaces: all must match.", "rack=2");
  const state = h("select", { id: "run-state" }, ["any", "running", "shut-off", "paused", "crashed", "pmsuspended", "io-error", "saved", "migrating"].map((one) => h("option", { value: one }, one.replaceAll("-", " "))));
  const vmsOnly = h("div", { class: "pair" }, h("div", { class: "field" }, h("label", { htmlFor: "run-state" }, "State"), state), label.element);
  let many = null;
  const manyNote = h("p", { class: "notice-box" });
  const put = (input, value) => {
    if (document.activeElement !== input) input.value = value;
  };
  const write = (from) => {
    const filter = readFilter(from);
    const stored = from.get("kept") ? JSON.parse(sessionStorage.getItem("selectors") ?? "[]") : [];
    many = stored.length ? stored : null;
    manyNote.hidden = !many;
    manyNote.textContent = many ? `${count(many.length, "VM")} that you selected. What you write below is added to them.` : "";
    put(selector.input, filter.selector.join(" "));
    put(label.input, filter.label.join(" "));
    put(exclude.input, from.getAll("exclude").join(" "));
    state.value = filter.state || "any";
  };
  write(query);
  const store = () => change({ selector: tidy(selector.input), exclude: tidy(exclude.input), label: tidy(label.input), state: state.value === "any" ? "" : state.value }, { step: false });
  for (const input of [selector.input, exclude.input, label.input, state]) input.addEventListener("change", store);
  const split = (input) => words(input.value);
  return {
    element: h("div", { class: "fields" }, manyNote, selector.element, exclude.element, vmsOnly),
    write,
    forHosts(hosts) {
      vmsOnly.hidden = hosts;
      selector.element.querySelector(".hint").textContent = hosts
        ? "Hosts: HOST/, a glob such as h*/, or @GROUP/, separated by spaces; */ means all." : VMS;
    },
    read() {
      const selectors = [...(many ?? []), ...split(selector.input)];
      if (!selectors.length) {
        selector.input.focus();
        throw new Unfit("selectors", "Selectors: say which targets are meant; * means all.");
      }
      const result = { selectors };
      if (split(exclude.input).length) result.exclude = split(exclude.input);
      if (vmsOnly.hidden) return result;
      if (state.value !== "any") result.state = state.value;
      const labels = split(label.input).map(plainWord).map((one) => {
        const at = one.indexOf("=");
        if (at < 1) {
          label.input.focus();
          throw new Unfit("labels", `Labels: expected KEY=VALUE, not "${one}".`);
        }
        return [one.slice(0, at), one.slice(at + 1)];
      });
      if (labels.length) result.labels = Object.fromEntries(labels);
      return result;
    },
  };
}

function limitFields() {
  const inputs = {};
  const element = h("div", { class: "fields limits" }, Object.entries(LIMITS).map(([name, [label, hint]]) => {
    const share = name === "max_failures" || name === "serial";
    inputs[name] = h("input", { type: share ? "text" : "number", min: share ? null : name === "retries" ? 0 : 1, step: name.endsWith("_ms") ? "any" : "1", id: `limit-${name}`, pattern: share ? "[0-9]+%?" : null, placeholder: { timeout_ms: "60", parallel: "64", retries: "0" }[name] ?? "none" });
    return h("div", { class: "field" }, h("label", { htmlFor: `limit-${name}` }, label), inputs[name], h("p", { class: "hint" }, hint));
  }));
  return {
    element,
    read() {
      const policy = {};
      for (const [name, input] of Object.entries(inputs)) {
        const value = input.value.trim();
        if (value === "" && input.checkValidity()) continue;
        if (!input.checkValidity()) {
          input.closest("details").open = true;
          input.focus();
          throw new Unfit(name, `${LIMITS[name][0]}: expected a number${input.pattern ? ", or a share such as 10%" : ""}.`);
        }
        policy[name] = input.pattern ? (value.endsWith("%") ? value : Number(value)) : name.endsWith("_ms") ? Math.round(Number(value) * 1000) : Number(value);
      }
      return policy;
    },
  };
}
