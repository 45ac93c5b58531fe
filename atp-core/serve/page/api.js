// Requests to the service.

const BASE = "/api/v1";

/** A request that was refused or did not arrive. `problem` is what the service answered, in the form of RFC 9457. */
export class Failure extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `The service answered ${status}.`);
    this.status = status;
    this.kind = problem.kind ?? null;
    this.hint = problem.hint ?? null;
    this.errors = problem.errors ?? [];
    this.effect = problem.effect ?? null;
  }
}

let csrf = null;
let onSignedOut = () => {};
let onReach = () => {};

/** What is called when the service says that the session has ended. */
export function whenSignedOut(action) {
  onSignedOut = action;
}

/** What is told whether the service answers, whatever it answers. */
export function whenReached(action) {
  onReach = action;
}

/** The word that proves that a request that changes something is from this page. */
export function setCsrf(word) {
  csrf = word ?? null;
}

async function failure(response) {
  let problem = {};
  if ((response.headers.get("content-type") ?? "").includes("json")) {
    problem = await response.json().catch(() => ({}));
  }
  return new Failure(response.status, problem);
}

/** Sends a request and returns the response, if it was carried out. */
export async function request(path, { method = "GET", body, headers = {}, signal, quiet = false, keepalive = false } = {}) {
  const all = { accept: "application/json", ...headers };
  let payload = body;
  if (body !== undefined && !(body instanceof Blob)) {
    all["content-type"] = "application/json";
    payload = JSON.stringify(body);
  }
  if (method !== "GET" && csrf) all["x-atp-csrf"] = csrf;
  let response;
  try {
    response = await fetch(BASE + path, { method, body: payload, headers: all, signal, credentials: "same-origin", cache: "no-store", keepalive });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    onReach(false);
    throw new Failure(0, {
      title: "The service does not answer.",
      kind: "connection-lost",
      effect: method === "GET" ? "none" : "unknown",
      hint: "Check that `atp serve` runs and that the network is up. The page goes on by itself when it is back.",
    });
  }
  onReach(true);
  if (response.status === 401 && !quiet) onSignedOut();
  if (!response.ok) throw await failure(response);
  return response;
}

/** Sends a request and reads the JSON of the answer. */
export async function json(path, options) {
  const response = await request(path, options);
  return response.status === 204 ? null : response.json();
}

/** A query string of what is not empty. */
export function query(values) {
  const pairs = Object.entries(values).flatMap(([key, value]) => (Array.isArray(value) ? value : [value]).map((one) => [key, one]))
    .filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return pairs.length ? `?${new URLSearchParams(pairs)}` : "";
}

/** A word that no other request has. `crypto.randomUUID` exists only over TLS and on this machine. */
export function uniqueKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
