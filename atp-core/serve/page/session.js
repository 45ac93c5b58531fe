// Who is signed in.

import { json, setCsrf, Failure } from "./api.js";
import { h, fill } from "./dom.js";
import { failureBox } from "./failure.js";

/** The session that the browser has a cookie of, or null. */
export async function current() {
  try {
    const session = await json("/session", { quiet: true });
    setCsrf(session.csrf);
    return session;
  } catch (failure) {
    if (failure.status === 401) return null;
    throw failure;
  }
}

/** Ends the session. */
export async function end() {
  await json("/session", { method: "DELETE", quiet: true });
  setCsrf(null);
}

/** Shows the form to sign in, and resolves with the session. */
export function signIn(main, { ended = false } = {}) {
  return new Promise((resolve) => {
    const failed = h("div", {});
    const field = h("input", { id: "token", type: "password", name: "token", required: true, autocomplete: "current-password", spellcheck: false, "aria-describedby": "token-hint" });
    const button = h("button", { class: "button primary" }, "Sign in");
    const form = h("form", { class: "signin card", onsubmit: async (event) => {
      event.preventDefault();
      button.disabled = true;
      fill(failed);
      try {
        const session = await json("/session", { method: "POST", body: { token: field.value.trim() }, quiet: true });
        field.value = "";
        setCsrf(session.csrf);
        resolve((await current()) ?? session);
      } catch (failure) {
        fill(failed, failureBox(failure.status === 401
          ? new Failure(401, { detail: "The service does not know this token.", hint: "Check that it was copied whole. An administrator lists the tokens with `atp serve token list`." })
          : failure));
        field.select();
      } finally {
        button.disabled = false;
      }
    } },
      h("h1", {}, "Sign in to ATP"),
      ended ? h("p", { role: "alert", class: "ended" }, "Your session has ended. Sign in to go on where you were.") : null,
      h("p", {}, "This service works on the virtual machines of many hosts at once. You need a token of this service."),
      h("label", { htmlFor: "token" }, "Token"),
      field,
      h("p", { id: "token-hint", class: "hint" }, "An administrator makes one with ", h("code", {}, "atp serve token add NAME --role operator"), ", which shows it once."),
      failed, button);
    fill(main, form);
    field.focus();
  });
}
