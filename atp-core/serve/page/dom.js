// Elements. Text is only ever set as text: nothing that came from a host or a guest is parsed as HTML.

/** Makes an element: `h("p", { class: "quiet" }, "text", child)`. A property that begins with `on` is a listener. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  set(element, properties);
  element.append(...content(children));
  return element;
}

/** Sets properties as `h` does. A value of null, undefined or false leaves an attribute out. */
export function set(element, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) {
      element.addEventListener(name.slice(2), value);
    } else if (name in element && typeof element[name] !== "object" && !name.startsWith("aria")) {
      if (value !== undefined && value !== null) element[name] = value;
    } else if (value === true) {
      element.setAttribute(attribute(name), "");
    } else if (value !== undefined && value !== null && value !== false) {
      element.setAttribute(attribute(name), String(value));
    }
  }
  return element;
}

/** Replaces what is in an element. */
export function fill(element, ...children) {
  element.replaceChildren(...content(children));
  return element;
}

function content(children) {
  return children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false);
}

function attribute(name) {
  return name === "class" ? "class" : name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** A mark of a shape and a colour, and the word that says the same. */
export function mark(tone, shape, word) {
  return h("span", { class: `mark ${tone}` }, h("span", { class: "shape", "aria-hidden": "true" }, shape), word);
}

/** Calls a function once after the last of several calls, `ms` later. */
export function settle(ms, action) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(action, ms, ...values);
  };
}

/** Calls a function once in the next frame, however often it is asked for. */
export function perFrame(action) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    // A page that is not shown gets no frames, and is to be right when it is looked at again.
    const next = document.hidden ? (run) => setTimeout(run, 200) : requestAnimationFrame;
    next(() => {
      asked = false;
      action();
    });
  };
}
