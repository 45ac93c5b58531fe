// How a failure is shown: what happened, whether it took effect, and what to try.

import { h } from "./dom.js";
import { text } from "./format.js";

const EFFECTS = {
  none: "Nothing was changed.",
  done: "The change was made.",
  unknown: "It was sent, and it is not known whether it happened. Look before you repeat it.",
};

/** The words for an effect. */
export const effectWords = (effect) => EFFECTS[effect] ?? EFFECTS.unknown;

/** The text of a hint, which is a text or an object with an id and a text. */
export const hintText = (hint) => (hint && typeof hint === "object" ? hint.text : hint) || "";

/** A text in which what stands between backticks is code. */
export function rich(words) {
  return text(words).split("`").map((part, index, all) =>
    index % 2 === 1 && index < all.length - 1 ? h("code", {}, part) : index % 2 === 1 ? `\`${part}` : part);
}

/** A hint as words, or null. */
export function hintWords(hint, tag = "p") {
  const words = hintText(hint);
  return words ? h(tag, { class: "hint" }, tag === "span" ? " " : null, h("b", {}, "Try: "), rich(words)) : null;
}

/** A box with a failure of a request, and an action to try again. */
export function failureBox(failure, again) {
  return h("div", { class: "failure", role: "alert" },
    h("p", { class: "failure-what" }, rich(failure.message)),
    failure.errors?.length
      ? h("ul", {}, failure.errors.map((one) =>
        h("li", {}, typeof one === "string" ? text(one) : text([one.field ?? one.path, one.message ?? one.detail].filter(Boolean).join(": ")))))
      : null,
    failure.effect ? h("p", {}, effectWords(failure.effect)) : null,
    hintWords(failure.hint),
    failure.kind ? h("p", { class: "quiet" }, "Kind: ", h("code", {}, failure.kind)) : null,
    // What is wrong in the request stays wrong.
    again && !(failure.status >= 400 && failure.status < 429) ? h("button", { type: "button", class: "button", onclick: again }, "Try again") : null);
}

/** A box for a view without content: what that means, and what to do next. */
export function emptyBox(title, next, ...actions) {
  return h("div", { class: "empty" }, h("h2", {}, title), h("p", {}, next),
    actions.length ? h("p", { class: "actions" }, ...actions) : null);
}

/** The words for the state of a stream. */
export function streamWords(state) {
  if (state === "open") return ["good", "●", "Live"];
  if (state === "paused") return ["idle", "❙❙", "Paused"];
  if (state === "ended") return ["idle", "■", "Ended"];
  return ["warn", "◌", "Reconnecting…"];
}
