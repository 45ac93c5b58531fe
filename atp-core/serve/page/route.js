// The view and its filter are in the address, after `#`: the back button works, and a link can be shared. What comes
// after `#` is not sent to the service.

/** Reads the address: `#/vms/h1/web-1?state=running` is { view: "vms", path: ["h1", "web-1"], query }. */
export function read(hash = location.hash) {
  const [path, query] = hash.replace(/^#\/?/, "").split("?", 2);
  const [view, ...rest] = path.split("/").map(decode);
  return { view: view || "fleet", path: rest.filter((part) => part !== ""), query: new URLSearchParams(query ?? "") };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The address of a view. Empty values are left out; a list is repeated. */
export function link(view, path = [], query = {}) {
  const pairs = Object.entries(query).flatMap(([key, value]) =>
    (Array.isArray(value) ? value : [value]).filter((one) => one !== "" && one !== null && one !== undefined)
      .map((one) => [key, one]));
  const search = new URLSearchParams(pairs).toString();
  return `#/${[view, ...path].map(encodeURIComponent).join("/")}${search ? `?${search}` : ""}`;
}

/** Goes to a view. */
export function go(view, path, query) {
  location.hash = link(view, path, query);
}

/** Changes a part of the filter of the view that is shown. While someone types, no step of the history is made. */
export function change(query, { step = true } = {}) {
  const { view, path, query: old } = read();
  const merged = {};
  for (const key of new Set(old.keys())) merged[key] = old.getAll(key);
  const hash = link(view, path, { ...merged, ...query });
  if (hash === location.hash) return;
  if (step) {
    location.hash = hash;
  } else {
    history.replaceState(null, "", hash);
    dispatchEvent(new HashChangeEvent("hashchange"));
  }
}
