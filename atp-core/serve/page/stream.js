// Server-sent events over fetch. EventSource would lose the number of the last event once a response is an error, and
// does not show why.

import { request } from "./api.js";

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 10_000;

/** Splits a stream of text into events. Exported for tests. */
export function parser(onEvent) {
  let rest = "";
  let event = { id: null, name: "message", data: [] };
  return (chunk) => {
    rest += chunk;
    const lines = rest.split(/\r\n|\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (event.data.length) onEvent({ id: event.id, name: event.name, data: event.data.join("\n") });
        event = { id: event.id, name: "message", data: [] };
        continue;
      }
      const colon = line.indexOf(":");
      if (colon === 0) continue;
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "data") event.data.push(value);
      else if (field === "event") event.name = value;
      else if (field === "id") event.id = value;
    }
  };
}

/**
 * Follows a stream until `signal`, and continues after the last event when the connection was lost. When the service has closed
 * it, `isOver` says whether there is more to come. `onState` is told "open", "lost" with the failure, and "ended". A refusal that
 * a repeat cannot help ends it.
 */
export async function follow(path, { onEvent, onState = () => {}, isOver = async () => false, signal }) {
  let last = null;
  let pause = FIRST_PAUSE;
  while (!signal.aborted) {
    try {
      const headers = { accept: "text/event-stream" };
      if (last !== null) headers["last-event-id"] = last;
      const response = await request(path, { headers, signal });
      onState("open");
      const parse = parser((event) => {
        if (event.id !== null) last = event.id;
        pause = FIRST_PAUSE;
        onEvent({ ...event, data: JSON.parse(event.data) });
      });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        parse(value);
      }
      if (await isOver()) {
        onState("ended");
        return;
      }
      onState("lost", null);
    } catch (error) {
      if (signal.aborted) return;
      onState("lost", error);
      if (error.status >= 400 && error.status < 500 && error.status !== 429 && error.status !== 408) return;
    }
    await sleep(pause, signal);
    pause = Math.min(pause * 2, LONGEST_PAUSE);
  }
}

/** Waits, or until the signal. */
export function sleep(ms, signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
    return undefined;
  });
}
