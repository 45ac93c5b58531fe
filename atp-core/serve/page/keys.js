// The keyboard. Single keys do nothing while someone types in a field.

import { h } from "./dom.js";
import { go } from "./route.js";

const VIEWS = { f: "fleet", v: "vms", n: "run", r: "runs", s: "screens", e: "events" };

/** What the keys do, for the help. */
const HELP = [
  ["/", "go to the filter"],
  ["j  k", "next or previous row"],
  ["enter", "open the row"],
  ["x", "select the row (VMs)"],
  ["g f", "fleet"],
  ["g v", "VMs"],
  ["g n", "new run"],
  ["g r", "runs"],
  ["g s", "screens"],
  ["g e", "events"],
  ["?", "this help"],
  ["esc", "leave a field, close a dialog, or go back"],
];

let dialog = null;
let pending = false;

/** Opens the help. */
export function help() {
  if (dialog) return;
  dialog = h("dialog", { class: "dialog", "aria-labelledby": "help-title" },
    h("h2", { id: "help-title" }, "Keyboard"),
    h("dl", { class: "keys" }, HELP.flatMap(([keys, does]) => [
      h("dt", {}, keys.split(/\s+/).map((key) => h("kbd", {}, key))), h("dd", {}, does)])),
    h("form", { method: "dialog" }, h("button", { class: "button primary", autofocus: true }, "Close")));
  dialog.addEventListener("close", () => {
    dialog.remove();
    dialog = null;
  });
  document.body.append(dialog);
  dialog.showModal();
}

/** Listens for keys. `rows` gives the element that moves between rows, if the view has one. */
export function listen() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    const field = event.target.closest?.("input:not([type=checkbox]):not([type=radio]), select, textarea");
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
      if (field) {
        // A field for a search would be cleared, and the filter with it.
        event.preventDefault();
        field.blur();
      } else if (document.querySelector("[data-back]")) document.querySelector("[data-back]").click();
      return;
    }
    if (field || document.querySelector("dialog[open]")) return;
    if (pending) {
      pending = false;
      if (VIEWS[event.key]) {
        event.preventDefault();
        go(VIEWS[event.key]);
        return;
      }
    }
    if (event.key === "g") {
      pending = true;
      setTimeout(() => (pending = false), 1500);
    } else if (event.key === "/") {
      const filter = document.querySelector("[data-filter]");
      if (filter) {
        event.preventDefault();
        filter.focus();
        filter.select?.();
      }
    } else if (event.key === "?") {
      event.preventDefault();
      help();
    } else if (event.key === "j" || event.key === "k") {
      const rows = document.querySelector("[data-rows]");
      if (rows) {
        event.preventDefault();
        rows.dispatchEvent(new CustomEvent("move", { detail: event.key === "j" ? 1 : -1 }));
      }
    }
  });
}

/** Has j and k move the focus among elements that are all there. */
export function moveAmong(container, selector) {
  container.dataset.rows = "";
  container.addEventListener("move", (event) => {
    const all = [...container.querySelectorAll(selector)];
    if (!all.length) return;
    const at = all.indexOf(document.activeElement.closest?.(selector));
    all[Math.max(0, Math.min(all.length - 1, at + event.detail))].focus();
  });
}
