// The serial console of a VM, shown line by line while it is looked at. It is only read: nothing is sent to the guest.

import { json, request, uniqueKey } from "./api.js";
import { fill, h, mark } from "./dom.js";
import { failureBox, hintWords, rich, streamWords } from "./failure.js";
import { selectorOf, target, text } from "./format.js";
import { say } from "./live.js";
import { follow } from "./stream.js";

/** How long a console is captured if nobody ends it, ms: the daemon gives it to nobody else in that time. */
const LONGEST = 10 * 60_000;

/** Lines that are kept on the page. */
const KEPT = 1_000;

/** The console of a VM as a card's content. `state` is that of the VM when the page was drawn, `refused` why it cannot be watched. */
export function consoleOf(host, vm, { state, signal, refused = null }) {
  if (refused) return h("p", { class: "quiet" }, refused);
  const status = h("span", { class: "quiet" });
  const actions = h("p", { class: "actions" });
  const lines = h("pre", { class: "console", role: "log", "aria-label": `Console of ${target(host, vm)}`, tabIndex: 0, hidden: true });
  const failed = h("div", {});
  const element = h("div", {}, actions, failed, lines);
  let watched = null;

  function draw(words) {
    fill(status, words ?? "What the guest writes from now on. You can only read it.");
    fill(actions, h("button", { type: "button", class: "button", onclick: watched ? stop : start }, watched ? "Stop watching" : lines.hidden ? "Watch the console" : "Watch again"), status);
  }

  /** Adds a line, and goes on to it if the reader is at the end. */
  function add(line) {
    const isAtEnd = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 4;
    const isMark = line.startsWith("--- ") && line.endsWith(" ---");
    lines.append(h("span", { class: isMark ? "line quiet" : "line" }, `${text(line)}\n`));
    while (lines.childElementCount > KEPT) lines.firstElementChild.remove();
    if (isAtEnd) lines.scrollTop = lines.scrollHeight;
  }

  async function start() {
    const mine = new AbortController();
    watched = { control: mine, run: null };
    const own = watched;
    fill(failed);
    lines.hidden = false;
    draw(mark("warn", "◌", "Opening…"));
    try {
      const body = {
        targets: { selectors: [selectorOf(host, vm)] },
        operation: { op: "console", lines: true },
        policy: { timeout_ms: LONGEST },
      };
      const run = await json("/runs", { method: "POST", body, headers: { "idempotency-key": uniqueKey() } });
      own.run = run.id;
      if (mine.signal.aborted) return end(own);
      let isOver = false;
      await follow(`/runs/${run.id}/events`, {
        signal: mine.signal,
        isOver: async () => isOver,
        onState: (now) => {
          if (watched === own && now !== "ended") draw(mark(...streamWords(now)));
        },
        onEvent: ({ name, data }) => {
          if (name === "console") add(data.line);
          if (name === "finished" && data.error) fill(failed, h("div", { class: "failure", role: "alert" }, h("p", { class: "failure-what" }, rich(data.error.message)), hintWords(data.error.hint)));
          if (name === "ended" || name === "interrupted") isOver = true;
        },
      });
    } catch (failure) {
      if (failure.status !== 401) fill(failed, failureBox(failure, start));
    }
    if (watched === own) {
      watched = null;
      draw("It is watched no more.");
      say("The console is watched no more");
    }
    return undefined;
  }

  function stop() {
    const own = watched;
    watched = null;
    own?.control.abort();
    end(own);
    draw("It is watched no more.");
  }

  /** Has the service end the capture, so that others can have the console; also when the page is left. */
  function end(own) {
    if (own?.run) request(`/runs/${own.run}/stop`, { method: "POST", keepalive: true }).catch(() => {});
  }

  signal.addEventListener("abort", () => watched && stop(), { once: true });
  addEventListener("pagehide", () => watched && stop(), { signal });
  if (state === "shut off") fill(actions, h("span", { class: "quiet" }, "It is shut off. Watch the console before you start it, to see it boot."), h("button", { type: "button", class: "button", onclick: start }, "Watch the console"));
  else draw();
  return element;
}
