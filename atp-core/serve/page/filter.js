// The filter of VMs that several views have: a selector, a state and a label. It is in the address.

import { h, settle } from "./dom.js";
import { change } from "./route.js";

/** The states that VMs can be filtered by, as the service takes them. */
const STATES = {
  any: "any state",
  running: "running",
  "shut-off": "shut off",
  paused: "paused",
  crashed: "crashed",
  pmsuspended: "asleep",
  "io-error": "disk failed",
  saved: "saved",
  migrating: "migrating",
};

/** The words of a field: white space is between them, and with a `\` before it is part of one. */
export const words = (value) => value.match(/(?:\\[^]|[^\s\\]|\\$)+/g) ?? [];

/** What is in a field, as it is in the address. */
export const tidy = (input) => words(input.value).join(" ");

/** A word as it is meant, where `\` has no other meaning than that. */
export const plainWord = (word) => word.replace(/\\([\s\\])/g, "$1");

/** The filter that an address has. */
export function readFilter(query) {
  return {
    selector: query.getAll("selector").flatMap(words),
    state: query.get("state") ?? "",
    label: query.getAll("label").flatMap(words),
  };
}

/** The reverse: a text as one word of a field. */
export const writtenWord = (text) => text.replace(/[\s\\]/g, "\\$&");

/** A selector as one word of a field: white space has a `\` before it, as it may have already. */
export const oneWord = (selector) => selector.replace(/\\[^]|\s/g, (part) => (part.length > 1 ? part : `\\${part}`));

/** A filter as the service takes it. */
export const asked = (filter) => ({ ...filter, label: filter.label.map(plainWord) });

/** How many VMs are named one by one in an address. */
const NAMED = 50;

/** Selectors as part of an address: many of them are kept beside it. */
export function selectorsQuery(selectors) {
  if (selectors.length <= NAMED) return { selector: selectors };
  sessionStorage.setItem("selectors", JSON.stringify(selectors));
  return { kept: selectors.length };
}

/** Whether anything is filtered. */
export const isFiltered = (filter) => filter.selector.length > 0 || filter.state !== "" || filter.label.length > 0;

/** A row with the fields of the filter. Changes go to the address; `update` writes the address into the fields. */
export function filterBar({ states = true, labels = true, placeholder = "web-*   h1/   @rack-2/db-*   /^web-[0-9]+$/" } = {}) {
  const typed = settle(30, (values) => change(values, { step: false }));
  const selector = h("input", { id: "selector", type: "search", spellcheck: false, autocapitalize: "off", autocomplete: "off", placeholder, "data-filter": true,
    title: "A name, a glob, HOST/VM, HOST/ for all VMs of a host, @GROUP/, or /REGEX/. Several are separated by spaces; a space that is part of one has a \\ before it.",
    oninput: () => typed({ selector: tidy(selector) }), onchange: () => typed({ selector: tidy(selector) }) });
  const state = h("select", { id: "state", onchange: () => change({ state: state.value === "any" ? "" : state.value }) },
    Object.entries(STATES).map(([value, word]) => h("option", { value }, word)));
  const label = h("input", { id: "label", type: "search", spellcheck: false, autocapitalize: "off", autocomplete: "off", placeholder: "rack=2",
    title: "KEY=VALUE. Several are separated by spaces, and then all must match; a space in a value has a \\ before it.",
    oninput: () => typed({ label: tidy(label) }) });
  const bar = h("form", { class: "filter", role: "search", onsubmit: (event) => event.preventDefault() },
    h("div", { class: "field wide" }, h("label", { htmlFor: "selector" }, "Selector ", h("kbd", { "aria-hidden": "true" }, "/")), selector),
    states ? h("div", { class: "field" }, h("label", { htmlFor: "state" }, "State"), state) : null,
    labels ? h("div", { class: "field" }, h("label", { htmlFor: "label" }, "Label"), label) : null);
  const update = (filter) => {
    const put = (field, value) => {
      // What someone is typing is not replaced.
      if (document.activeElement !== field) field.value = value;
    };
    put(selector, filter.selector.join(" "));
    put(state, filter.state || "any");
    put(label, filter.label.join(" "));
  };
  return { bar, update };
}
