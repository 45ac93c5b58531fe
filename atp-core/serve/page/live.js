// What is said to those who do not see the page, and short notices to all.

/** Has a screen reader say a text when it has time. */
export function say(text) {
  const live = document.getElementById("live");
  // The same text twice in a row would not be read a second time.
  live.textContent = live.textContent === text ? `${text}\u00a0` : text;
}

/** Shows a line below the top of the page until it is called with null. */
export function notice(text) {
  const place = document.getElementById("notice");
  place.hidden = text === null;
  if (place.textContent !== (text ?? "")) place.textContent = text ?? "";
}
