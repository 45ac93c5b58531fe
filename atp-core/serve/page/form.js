// A form made from the JSON Schema of an operation.

import { h } from "./dom.js";

/** Values that do not fit their field: names the field and says what is expected. */
export class Unfit extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

/** Fields whose text has several lines. */
const LONG = new Set(["text", "stdin"]);

/** What a field is called where its name alone would mislead. */
const TITLES = { args: "Arguments", env: "Environment", cwd: "Working folder", stdin: "Standard input", hold_ms: "Hold (ms)", sha256: "SHA-256" };

/** The order of fields: a schema has them by name. */
const ORDER = ["program", "command", "path", "source", "args", "arguments", "shell", "destination", "chords", "action", "text"];

const place = (name) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);

let ids = 0;

/** Follows `$ref`, keeping what stands beside it. */
export function resolve(schema, defs) {
  let at = schema;
  const seen = new Set();
  while (at && at.$ref && !seen.has(at.$ref)) {
    seen.add(at.$ref);
    const { $ref, ...beside } = at;
    const to = defs[$ref.split("/").pop()] ?? {};
    at = { ...to, ...beside, properties: to.properties || beside.properties ? { ...to.properties, ...beside.properties } : undefined,
      required: [...(to.required ?? []), ...(beside.required ?? [])] };
  }
  return at ?? {};
}

/** The first paragraph of a description, without the marks of its source. */
export function plain(description) {
  return (description ?? "").split(/\n\s*\n/)[0].replace(/\[([^\]]*)\](\([^)]*\))?/g, "$1").replaceAll("`", "").replace(/\s+/g, " ").trim();
}

function title(name) {
  const words = TITLES[name] ?? name.replaceAll("_", " ").replace(/ ms$/, " (ms)");
  return words[0].toUpperCase() + words.slice(1);
}

function options(schema, defs) {
  const consts = (list) => list.map((one) => resolve(one, defs)).flatMap((one) => one.const !== undefined ? [[one.const, plain(one.description)]] : (one.enum ?? []).map((value) => [value, ""]));
  if (schema.enum) return schema.enum.map((value) => [value, ""]);
  const list = schema.oneOf ?? schema.anyOf;
  if (!list) return null;
  const found = consts(list);
  const boolean = list.some((one) => one.type === "boolean");
  if (boolean && found.length) return [[false, ""], [true, ""], ...found];
  return found.length >= list.length ? found : null;
}

/**
 * Makes the fields of an object's schema. The answer has the element and `read()`, which gives the value, or throws `Unfit`.
 * `values` are what the fields have at first. `widgets` are fields of their own by name: each makes { element, read }.
 */
export function form(schema, defs, { values = {}, widgets = {} } = {}) {
  const whole = resolve(schema, defs);
  const variants = (whole.oneOf ?? []).map((one) => resolve(one, defs));
  if (variants.length && variants.every((one) => one.properties)) return variantForm(whole, variants, defs, { values, widgets });
  const required = new Set(whole.required ?? []);
  const readers = [];
  const main = [];
  const further = [];
  for (const [name, raw] of Object.entries(whole.properties ?? {}).sort(([a], [b]) => place(a) - place(b))) {
    const property = resolve(raw, defs);
    if (property.const !== undefined) {
      readers.push([name, () => property.const]);
      continue;
    }
    const made = (widgets[name] ?? field)(name, property, defs, required.has(name), values[name]);
    readers.push([name, made.read]);
    if (made.element) (required.has(name) || made.main ? main : further).push(made.element);
  }
  const element = h("div", { class: "fields" }, main,
    further.length ? h("details", { class: "more" }, h("summary", {}, "More options"), h("div", { class: "fields" }, further)) : null);
  return {
    element,
    read() {
      const value = {};
      for (const [name, read] of readers) {
        const one = read();
        if (one !== undefined) value[name] = one;
      }
      return value;
    },
  };
}

/** A choice between objects, each told by a constant. */
function variantForm(whole, variants, defs, options) {
  const tag = Object.keys(variants[0].properties).find((name) => variants.every((one) => one.properties[name]?.const !== undefined));
  const id = `field-${(ids += 1)}`;
  const forms = variants.map((one) => form({ ...one, oneOf: undefined }, defs, options));
  const select = h("select", { id, onchange: () => show() }, variants.map((one, index) => h("option", { value: index }, String(one.properties[tag].const).replaceAll("-", " "))));
  const about = h("p", { class: "hint" });
  const show = () => {
    forms.forEach((one, index) => (one.element.hidden = index !== Number(select.value)));
    about.textContent = plain(variants[select.value].description);
  };
  show();
  const shared = whole.properties ? form({ ...whole, oneOf: undefined }, defs, options) : null;
  return {
    element: h("div", { class: "fields" }, shared?.element,
      h("div", { class: "field" }, h("label", { htmlFor: id }, title(tag)), select, about), forms.map((one) => one.element)),
    read: () => ({ ...shared?.read(), ...forms[select.value].read() }),
  };
}

function withLabel(name, input, hint, required) {
  input.id = `field-${(ids += 1)}`;
  input.dataset.name = name;
  const note = hint ? h("p", { class: "hint", id: `${input.id}-hint` }, hint) : null;
  if (note) input.setAttribute("aria-describedby", note.id);
  return h("div", { class: "field" }, h("label", { htmlFor: input.id }, title(name), required ? null : h("span", { class: "quiet" }, " optional")), input, note);
}

function field(name, schema, defs, required, value) {
  const hint = plain(schema.description);
  const nullable = Array.isArray(schema.type) ? schema.type.includes("null") : (schema.anyOf ?? []).some((one) => one.type === "null");
  if (nullable && schema.anyOf) {
    const inner = resolve(schema.anyOf.find((one) => one.type !== "null"), defs);
    return { ...field(name, { ...inner, description: schema.description ?? inner.description, default: undefined }, defs, false, value), main: false };
  }
  const main = !nullable && schema.default !== undefined && !(typeof schema.default === "object" && !Array.isArray(schema.default)) && typeof schema.default !== "number";
  const type = Array.isArray(schema.type) ? schema.type.find((one) => one !== "null") : schema.type;
  const choices = options(schema, defs);
  if (choices) {
    const initial = value ?? schema.default;
    const select = h("select", {}, required || schema.default !== undefined ? null : h("option", { value: "" }, "as by default"),
      choices.map(([choice], index) => h("option", { value: index, selected: choice === initial }, choice === false ? "no" : choice === true ? "yes" : String(choice).replaceAll("-", " "))));
    return { element: withLabel(name, select, hint, true), main, read: () => (select.value === "" ? undefined : choices[Number(select.value)][0]) };
  }
  if (type === "boolean") {
    const input = h("input", { type: "checkbox", checked: value ?? schema.default ?? false, id: `field-${(ids += 1)}` });
    input.dataset.name = name;
    return { element: h("div", { class: "field tick" }, h("label", {}, input, title(name)), hint ? h("p", { class: "hint" }, hint) : null), main, read: () => input.checked };
  }
  if (type === "integer" || type === "number") {
    const input = h("input", { type: "number", min: schema.minimum ?? "", max: schema.maximum ?? "", required, value: value ?? schema.default ?? "" });
    return { element: withLabel(name, input, hint, required || schema.default !== undefined), main, read: () => {
      if (input.value === "") return required ? fail(name, input, "a number") : undefined;
      if (!input.checkValidity()) fail(name, input, "a whole number in its range");
      return Number(input.value);
    } };
  }
  if (type === "array") {
    const input = h("textarea", { rows: 3, spellcheck: false, value: (value ?? schema.default ?? []).join("\n") });
    return { element: withLabel(name, input, `${hint} One on each line.`.trim(), required), main, read: () => {
      const lines = input.value === "" ? [] : input.value.replace(/\n$/, "").split("\n");
      return required && !lines.length ? fail(name, input, "at least one line") : lines;
    } };
  }
  if (type === "object") {
    const pairs = schema.additionalProperties && schema.additionalProperties !== true;
    const input = h("textarea", { rows: 3, spellcheck: false, placeholder: pairs ? "KEY=VALUE" : "{}" });
    return { element: withLabel(name, input, `${hint} ${pairs ? "KEY=VALUE, one on each line." : "A JSON object."}`.trim(), required), main: false, read: () =>
      input.value.trim() === "" ? undefined : pairs ? readPairs(name, input) : readObject(name, input) };
  }
  const input = LONG.has(name)
    ? h("textarea", { rows: 4, spellcheck: false, required, value: value ?? schema.default ?? "" })
    : h("input", { type: "text", spellcheck: false, autocapitalize: "off", autocomplete: "off", required, value: value ?? schema.default ?? "" });
  return { element: withLabel(name, input, hint, required || Boolean(main)), main, read: () => {
    if (input.value !== "") return input.value;
    return required ? fail(name, input, "a text") : main ? "" : undefined;
  } };
}

function readPairs(name, input) {
  return Object.fromEntries(input.value.split("\n").filter((line) => line.trim() !== "").map((line) => {
    const at = line.indexOf("=");
    if (at < 1) fail(name, input, `KEY=VALUE on each line, not "${line}"`);
    return [line.slice(0, at).trim(), line.slice(at + 1)];
  }));
}

function readObject(name, input) {
  let value;
  try {
    value = JSON.parse(input.value);
  } catch (error) {
    fail(name, input, `JSON: ${error.message}`);
  }
  return value && typeof value === "object" && !Array.isArray(value) ? value : fail(name, input, "a JSON object");
}

function fail(name, input, expected) {
  input.closest("details")?.setAttribute("open", "");
  input.setAttribute("aria-invalid", "true");
  input.addEventListener("input", () => input.removeAttribute("aria-invalid"), { once: true });
  input.focus();
  throw new Unfit(name, `${title(name)}: expected ${expected}.`);
}
