// The verbs of the service, and which of them the token may use.

import { json } from "./api.js";
import { resolve } from "./form.js";

/** All verbs, each with the schema of its parameters: one for each operation, and for each change of a state. */
export async function readVerbs(signal) {
  const views = await json("/verbs", { signal });
  return views.flatMap((view) => view.names.map((one) => {
    const verb = { ...view, ...one, name: view.op, word: one.name };
    if (view.op !== "lifecycle") return verb;
    // Each change of a state is a verb of its own: `vm-start` is the action `start`.
    const action = one.name.replace(/^vm-/, "");
    const schema = resolve(view.schema, view.schema.$defs);
    const about = resolve(schema.properties.action, view.schema.$defs).oneOf?.find((known) => known.const === action)?.description ?? view.about;
    const properties = { ...schema.properties, action: { const: action } };
    if (action !== "start") delete properties.start_check;
    return { ...verb, name: one.name, about, schema: { ...schema, properties, $defs: view.schema.$defs } };
  }));
}

/** What a verb is called: by its name in tokens, the audit log and the command line, with its operation where that has another one. */
export const titleOf = (verb) => (verb.word === verb.name ? verb.name : `${verb.word} (${verb.name})`);

/** Why a verb of this name cannot be used; null if it can. */
export function refusal(verbs, name) {
  const verb = verbs.find((one) => one.name === name);
  if (!verb) return `The service does not offer ${name}.`;
  return verb.allowed ? null : `Your token may not use ${verb.word}.`;
}

let known = { session: null, verbs: [] };

/** As `refusal`, of the verbs as they were read first in a session. */
export async function refusals(session, signal) {
  if (known.session !== session) {
    const verbs = await readVerbs(signal);
    known = { session, verbs: verbs.map(({ name, word, allowed }) => ({ name, word, allowed })) };
  }
  const { verbs } = known;
  return (name) => refusal(verbs, name);
}
