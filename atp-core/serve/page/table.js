// A table of many rows: only those that can be seen are elements.

import { fill, h, perFrame } from "./dom.js";

const ROW = 36;
const SPARE = 8;

/**
 * Makes a table. `columns` are { title, width, cell(row), align, wide } with widths of a CSS grid, `key(row)` is a row's identity,
 * `open(row)` is what Enter and a click do, `select` whether rows can be selected. Rows that are not known yet are holes of the list;
 * `need(from, to)` is called for those that come into sight.
 */
export function table({ label, columns, key, open, select = null, describe = () => null, need = null }) {
  // On a narrow screen the columns that are marked so are left out.
  const narrow = matchMedia("(max-width: 45rem)");
  const shown = () => columns.filter((column) => !(narrow.matches && column.wide));
  const template = () => shown().map((column) => column.width).join(" ");
  const body = h("div", { class: "rows", role: "rowgroup" });
  const head = h("div", { class: "row head", role: "row", "aria-rowindex": 1 });
  const drawHead = () => {
    fill(head, shown().map((column) => h("div", { role: "columnheader", class: column.align ?? "" }, column.title)));
    head.style.gridTemplateColumns = template();
  };
  drawHead();
  const grid = h("div", { class: "table", role: "grid", "aria-label": label, "data-rows": true, tabindex: 0 },
    h("div", { role: "rowgroup", class: "heads" }, head), body);
  let rows = [];
  let at = 0;
  const made = new Map();

  function element(index) {
    const row = rows[index];
    const line = h("div", { class: row ? "row" : "row awaited", role: "row", tabindex: -1, id: `row-${index}`, "aria-rowindex": index + 2, "data-index": index },
      shown().map((column) => h("div", { role: "gridcell", class: column.align ?? "" }, row ? column.cell(row) ?? "" : "")));
    line.style.gridTemplateColumns = template();
    line.style.transform = `translateY(${index * ROW}px)`;
    const words = row ? describe(row) : "Not read yet";
    if (words) line.setAttribute("aria-label", words);
    return line;
  }

  function draw() {
    const first = Math.max(0, Math.floor((grid.scrollTop - ROW) / ROW) - SPARE);
    const last = Math.min(rows.length, Math.ceil((grid.scrollTop + grid.clientHeight) / ROW) + SPARE);
    for (const [index, line] of made) {
      if (index < first || index >= last) {
        line.remove();
        made.delete(index);
      }
    }
    let lacking = false;
    for (let index = first; index < last; index += 1) {
      lacking ||= !rows[index];
      let line = made.get(index);
      if (!line) {
        line = element(index);
        made.set(index, line);
        body.append(line);
      }
      line.tabIndex = index === at ? 0 : -1;
      if (select && rows[index]) line.setAttribute("aria-selected", String(select.has(key(rows[index]))));
    }
    if (lacking) need?.(first, last);
    // One stop of the Tab key: the current row, or the table while that row is scrolled away.
    grid.tabIndex = made.has(at) ? -1 : 0;
  }

  const later = perFrame(draw);

  function goTo(index) {
    if (!rows.length) return;
    at = Math.max(0, Math.min(rows.length - 1, index));
    const top = at * ROW;
    const height = grid.clientHeight - ROW;
    if (top < grid.scrollTop) grid.scrollTop = top;
    else if (top + ROW > grid.scrollTop + height) grid.scrollTop = top + ROW - height;
    draw();
    made.get(at)?.focus({ preventScroll: true });
  }

  function toggle(index) {
    if (!rows[index]) return;
    const identity = key(rows[index]);
    if (select.has(identity)) select.delete(identity);
    else select.set(identity, rows[index]);
    const line = made.get(index);
    if (line) {
      const fresh = element(index);
      line.replaceWith(fresh);
      made.set(index, fresh);
    }
    draw();
    grid.dispatchEvent(new CustomEvent("select"));
  }

  const rowOf = (event) => {
    const line = event.target.closest?.(".rows .row");
    return line ? Number(line.dataset.index) : -1;
  };
  grid.addEventListener("scroll", later, { passive: true });
  grid.addEventListener("move", (event) => goTo(made.get(at) === document.activeElement ? at + event.detail : at));
  grid.addEventListener("focusin", (event) => {
    const index = rowOf(event);
    if (index >= 0) at = index;
    else if (event.target === grid && rows.length && !grid.matches(":active")) goTo(at);
  });
  grid.addEventListener("click", (event) => {
    const index = rowOf(event);
    if (index < 0 || event.target.closest("a, button")) return;
    at = index;
    if (select && event.target.closest(".check")) toggle(index);
    else if (rows[index]) open?.(rows[index]);
  });
  grid.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("a, button, input")) return;
    const page = Math.max(1, Math.floor(grid.clientHeight / ROW) - 2);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -rows.length, End: rows.length };
    if (event.key in moves) {
      event.preventDefault();
      goTo(at + moves[event.key]);
    } else if (event.key === "Enter" && rows[at]) {
      event.preventDefault();
      open?.(rows[at]);
    } else if (select && (event.key === "x" || event.key === " ") && rows[at]) {
      event.preventDefault();
      toggle(at);
      made.get(at)?.focus({ preventScroll: true });
    }
  });
  let wasNarrow = narrow.matches;
  new ResizeObserver(() => {
    if (wasNarrow !== narrow.matches) {
      wasNarrow = narrow.matches;
      drawHead();
      clear();
    }
    later();
  }).observe(grid);

  function clear() {
    for (const line of made.values()) line.remove();
    made.clear();
  }

  return {
    element: grid,
    /** Shows other rows. The place stays, as far as there are rows. */
    setRows(next) {
      const focused = grid.contains(document.activeElement);
      rows = next;
      clear();
      at = Math.max(0, Math.min(at, rows.length - 1));
      body.style.height = `${rows.length * ROW}px`;
      grid.setAttribute("aria-rowcount", String(rows.length + 1));
      draw();
      if (focused && rows.length) made.get(at)?.focus({ preventScroll: true });
    },
    /** The rows that are in sight, as far as they are known. */
    inSight() {
      return [...made.keys()].map((index) => rows[index]).filter(Boolean);
    },
    /** The numbers of the first row that is in sight, and of the one after the last. */
    range() {
      return made.size ? [Math.min(...made.keys()), Math.max(...made.keys()) + 1] : [0, 0];
    },
    /** Draws what is shown again. */
    refresh() {
      const focused = body.contains(document.activeElement);
      clear();
      draw();
      if (focused) made.get(at)?.focus({ preventScroll: true });
    },
  };
}
