// The lines in which two texts differ.

/** Texts of more lines are not compared: the table below would be too large. */
const MOST = 1_500;

/** Lines as { kind: "same" | "added" | "removed", text }, or null if the texts are too long. */
export function lines(from, to) {
  const a = from.split("\n");
  const b = to.split("\n");
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
  const left = a.slice(start, a.length - end);
  const right = b.slice(start, b.length - end);
  if (left.length > MOST || right.length > MOST) return null;
  const same = (text) => ({ kind: "same", text });
  return [...a.slice(0, start).map(same), ...middle(left, right), ...a.slice(a.length - end).map(same)];
}

/** By the longest common subsequence. */
function middle(a, b) {
  const width = b.length + 1;
  const lengths = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      lengths[i * width + j] = a[i] === b[j] ? lengths[(i + 1) * width + j + 1] + 1 : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  const result = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      result.push({ kind: "same", text: a[i] });
      i += 1;
      j += 1;
    } else if (j >= b.length || (i < a.length && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1])) {
      result.push({ kind: "removed", text: a[i] });
      i += 1;
    } else {
      result.push({ kind: "added", text: b[j] });
      j += 1;
    }
  }
  return result;
}

/** Leaves out equal lines that are far from a difference: `{ kind: "gap", count }` stands for them. */
export function near(all, context = 3) {
  const keep = all.map(() => false);
  all.forEach((line, index) => {
    if (line.kind === "same") return;
    for (let at = Math.max(0, index - context); at <= Math.min(all.length - 1, index + context); at += 1) keep[at] = true;
  });
  const result = [];
  for (let index = 0; index < all.length; index += 1) {
    if (keep[index]) {
      result.push(all[index]);
    } else if (result.at(-1)?.kind === "gap") {
      result.at(-1).count += 1;
    } else {
      result.push({ kind: "gap", count: 1 });
    }
  }
  return result;
}
