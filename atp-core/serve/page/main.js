// The start of the page: the session, the top with the views, and the view that the address names.

import { setCsrf, whenReached, whenSignedOut } from "./api.js";
import { h, fill } from "./dom.js";
import { failureBox, emptyBox } from "./failure.js";
import { help, listen } from "./keys.js";
import { notice, say } from "./live.js";
import { link, read } from "./route.js";
import { current, end, signIn } from "./session.js";
import { show as fleet } from "./fleet.js";
import { show as vms } from "./vms.js";
import { show as run } from "./compose.js";
import { show as runs } from "./runs.js";
import { show as screens } from "./screens.js";
import { show as events } from "./events.js";

const VIEWS = {
  fleet: { title: "Fleet", show: fleet },
  vms: { title: "VMs", show: vms },
  run: { title: "New run", show: run },
  runs: { title: "Runs", show: runs },
  screens: { title: "Screens", show: screens },
  events: { title: "Events", show: events },
};

const main = document.getElementById("main");
const top = document.getElementById("top");
let session = null;
let shown = null;

function drawTop() {
  const at = read().view;
  fill(top,
    h("a", { class: "brand", href: link("fleet") }, h("img", { src: "/page/icon.svg", alt: "", width: 22, height: 22 }), "ATP"),
    session ? h("nav", { "aria-label": "Views" }, Object.entries(VIEWS).map(([view, { title }]) =>
      h("a", { href: link(view), "aria-current": view === at ? "page" : null }, title))) : null,
    session ? h("div", { class: "who" },
      session.read_only ? h("span", { class: "badge warn", title: "The service's settings say read_only: nothing can be started." }, "read only") : null,
      h("span", { class: "quiet", title: "The token's name and role" }, `${session.name} · ${session.role}`),
      h("button", { type: "button", class: "button plain", "aria-label": "Keyboard help", title: "Keyboard (?)", onclick: help }, "?"),
      h("button", { type: "button", class: "button plain", onclick: signOut }, "Sign out")) : null);
  // On a narrow screen the views are a row that is scrolled.
  top.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
}

function leave() {
  shown?.control.abort();
  shown = null;
}

/** Shows the view of the address. A view that is shown already may take a change of its filter itself. */
async function draw() {
  if (!session) return;
  const route = read();
  const view = VIEWS[route.view];
  if (shown && shown.view === route.view && shown.path === route.path.join("/") && shown.update) {
    shown.update(route);
    return;
  }
  leave();
  drawTop();
  document.title = `${view?.title ?? "Not found"} · ATP`;
  if (!view) {
    fill(main, emptyBox("There is no such view", "The address may be of another version of the page.", h("a", { class: "button", href: link("fleet") }, "Go to the fleet")));
    return;
  }
  const control = new AbortController();
  const mine = { view: route.view, path: route.path.join("/"), control, update: null };
  shown = mine;
  fill(main, h("p", { class: "loading" }, "Loading…"));
  main.className = `view-${route.view}`;
  main.scrollTop = 0;
  try {
    mine.update = (await view.show(main, route, { signal: control.signal, session })) ?? null;
    if (control.signal.aborted) return;
    say(`${view.title}`);
  } catch (failure) {
    if (control.signal.aborted || failure.status === 401) return;
    if (!("status" in failure)) console.error(failure);
    fill(main, failureBox(failure, () => {
      leave();
      draw();
    }));
  }
}

async function signOut() {
  leave();
  try {
    await end();
  } catch {
    // The cookie may be gone already. Signing in makes a new session in any case.
  }
  await askForToken({});
}

let asking = false;

async function askForToken(options) {
  if (asking) return;
  asking = true;
  leave();
  session = null;
  setCsrf(null);
  drawTop();
  main.className = "view-signin";
  document.title = "Sign in · ATP";
  session = await signIn(main, options);
  asking = false;
  draw();
}

async function start() {
  listen();
  whenReached((is) => notice(is ? null : "The service does not answer. What you see may be old; the page goes on by itself when the service is back."));
  whenSignedOut(() => askForToken({ ended: session !== null }));
  addEventListener("hashchange", draw);
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
  try {
    session = await current();
  } catch (failure) {
    fill(main, failureBox(failure, () => location.reload()));
    return;
  }
  if (session) await draw();
  else await askForToken({});
}

start();
