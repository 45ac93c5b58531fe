// The screens of VMs as a wall. A picture is asked for only while it can be seen.

import { json, query as queryString, request } from "./api.js";
import { fill, h } from "./dom.js";
import { emptyBox, failureBox, hintWords } from "./failure.js";
import { asked, filterBar, isFiltered, readFilter } from "./filter.js";
import { clock, count, name, number, target, text } from "./format.js";
import { moveAmong } from "./keys.js";
import { change, link } from "./route.js";
import { sleep } from "./stream.js";

/** The pause between two pictures of a screen, ms. */
const AGAIN = 3_000;

/** Pictures that are asked for at once. */
const AT_ONCE = 6;

/** VMs on the wall at first. */
const FIRST = 120;

let busy = 0;
const waiting = [];

/** Waits for one of the places. */
async function place(signal) {
  if (busy >= AT_ONCE) await new Promise((resolve) => waiting.push(resolve));
  busy += 1;
  if (signal.aborted) {
    release();
    return false;
  }
  return true;
}

function release() {
  busy -= 1;
  waiting.shift()?.();
}

/** The screen of a VM as an element, drawn again while it is looked at. */
export function screen(host, vm, { signal }) {
  const canvas = h("canvas", { role: "img", "aria-label": `Screen of ${target(host, vm)}`, width: 320, height: 200 });
  const note = h("p", { class: "screen-note" }, "Waiting…");
  const element = h("div", { class: "screen" }, canvas, note);
  let visible = false;
  let wake = () => {};
  const observer = new IntersectionObserver(([entry]) => {
    visible = entry.isIntersecting;
    if (visible) wake();
  }, { rootMargin: "50px" });
  observer.observe(element);
  signal.addEventListener("abort", () => (observer.disconnect(), wake()), { once: true });
  document.addEventListener("visibilitychange", () => wake(), { signal });

  const path = `/vms/${encodeURIComponent(host)}/${encodeURIComponent(vm)}/screenshot`;
  (async () => {
    while (!signal.aborted) {
      if (!visible || document.hidden) {
        await new Promise((resolve) => (wake = resolve));
        continue;
      }
      if (await place(signal)) {
        try {
          const response = await request(path, { signal, headers: { accept: "image/png" } });
          const picture = await createImageBitmap(await response.blob());
          if (canvas.width !== picture.width || canvas.height !== picture.height) {
            canvas.width = picture.width;
            canvas.height = picture.height;
          }
          canvas.getContext("2d").drawImage(picture, 0, 0);
          picture.close();
          element.classList.remove("off");
          fill(note, clock(Date.now()));
        } catch (failure) {
          if (signal.aborted) return;
          element.classList.add("off");
          fill(note, text(failure.message), hintWords(failure.hint, "span"));
        } finally {
          release();
        }
      }
      await sleep(AGAIN, signal);
    }
  })();
  return element;
}

export async function show(main, route, { signal }) {
  let control = new AbortController();
  let filter = readFilter(route.query);
  const { bar, update } = filterBar({ states: false });
  const status = h("p", { class: "count" });
  const wall = h("div", { class: "wall" });
  const more = h("div", {});
  fill(main, h("div", { class: "head" }, h("h1", {}, "Screens"), bar), h("div", { class: "bar" }, status), wall, more);
  moveAmong(wall, "a");
  update(filter);
  signal.addEventListener("abort", () => control.abort(), { once: true });

  async function ask() {
    control.abort();
    control = new AbortController();
    const mine = control.signal;
    try {
      const part = (from) => json(`/vms${queryString({ ...asked(filter), state: "running", allow_stale: "true", offset: from, limit: FIRST })}`, { signal: mine });
      const answer = await part(0);
      fill(status, h("b", {}, count(answer.total, "running VM")), h("span", { class: "quiet" }, " · a screen is asked for again every 3 s while you look at it"));
      fill(wall);
      fill(more);
      if (!answer.total) {
        fill(wall, isFiltered(filter)
          ? emptyBox("No running VM matches", "Only VMs that run have a screen.", h("button", { type: "button", class: "button", onclick: () => change({ selector: "", label: "" }) }, "Clear the filter"))
          : emptyBox("No VM runs", "Start one, and its screen appears here.", h("a", { class: "button", href: link("vms") }, "Go to the VMs")));
        return;
      }
      const put = ({ vms, total }, from) => {
        wall.append(...vms.map((vm) => h("figure", {},
          screen(vm.host, vm.vm, { signal: mine }),
          h("figcaption", {}, h("a", { href: link("vms", [vm.host, vm.vm]) }, name(vm.vm)), h("span", { class: "quiet" }, ` ${name(vm.host)}`)))));
        const next = from + FIRST;
        const left = total - next;
        fill(more, left > 0 ? h("p", { class: "actions" }, h("button", { type: "button", class: "button", onclick: () => part(next).then((found) => put(found, next), (failure) => fill(more, failureBox(failure, ask))) }, `Show ${number(Math.min(FIRST, left))} more of ${number(left)}`)) : null);
      };
      put(answer, 0);
    } catch (failure) {
      if (!mine.aborted) fill(wall, failureBox(failure, ask));
    }
  }

  await ask();
  return (next) => {
    filter = readFilter(next.query);
    update(filter);
    ask();
  };
}
