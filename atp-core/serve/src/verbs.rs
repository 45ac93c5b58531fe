//! The verbs, for clients that compose a run.

use atp_api::OperationSpec;
use atp_api::serve::{Role, VerbName, VerbView};
use axum::extract::State;
use axum::response::Response;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::auth::{Caller, has_verb};
use crate::body::{Query, answer};
use crate::problem::Refusal;
use crate::route::Route;
use crate::state::Service;

/// A name that outcomes may have, and permissions are given by.
struct Name {
    op: &'static str,
    name: &'static str,
    disruptive: bool,
    read_only: bool,
}

const fn look(op: &'static str, name: &'static str) -> Name {
    Name { op, name, disruptive: false, read_only: true }
}

const fn change(op: &'static str, name: &'static str) -> Name {
    Name { op, name, disruptive: false, read_only: false }
}

const fn disrupt(op: &'static str, name: &'static str) -> Name {
    Name { op, name, disruptive: true, read_only: false }
}

/// Every name. A wait for a program, and a scenario, need the verbs of what they do too; a test compares the facts with those
/// of the executor.
const NAMES: &[Name] = &[
    look("host-check", "host-check"),
    look("diagnose-host", "doctor"),
    look("diagnose-agent", "doctor"),
    look("vm-list", "vm-list"),
    look("vm-info", "vm-info"),
    change("lifecycle", "vm-start"),
    disrupt("lifecycle", "vm-shutdown"),
    disrupt("lifecycle", "vm-reboot"),
    disrupt("lifecycle", "vm-reset"),
    disrupt("lifecycle", "vm-destroy"),
    disrupt("lifecycle", "vm-suspend"),
    change("lifecycle", "vm-resume"),
    disrupt("lifecycle", "vm-save"),
    change("lifecycle", "vm-restore"),
    look("vm-xml", "vm-xml"),
    change("vm-autostart", "vm-autostart"),
    disrupt("vm-nmi", "vm-nmi"),
    look("snapshot-list", "snapshot-list"),
    change("snapshot-create", "snapshot-create"),
    disrupt("snapshot-revert", "snapshot-revert"),
    disrupt("snapshot-delete", "snapshot-delete"),
    change("exec", "exec"),
    change("pull", "cp"),
    look("wait", "wait"),
    change("qmp", "qmp"),
    change("qga", "qga"),
    change("key", "key"),
    change("type", "type"),
    change("mouse", "mouse"),
    look("screenshot", "screenshot"),
    look("console", "console"),
    change("push", "cp"),
    change("scenario", "run"),
];

/// Names that permissions are given by, of what is no operation: reserving and releasing VMs, measuring them, and talking with them.
const OTHERS: [&str; 4] = ["attach", "channel", "reserve", "stats"];

/// Whether the service carries out operations of this name. Services of a cluster do not share files.
fn is_offered(op: &str, is_shared: bool) -> bool {
    !(is_shared && matches!(op, "push" | "pull" | "screenshot" | "console"))
}

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/verbs", list)
            .about("The verbs: their facts, and the schema of their operations.")
            .answers::<Vec<VerbView>>(200),
    ]
}

/// The names of verbs that permissions can be given by.
pub fn verb_names() -> Vec<&'static str> {
    let mut names: Vec<_> = NAMES.iter().map(|name| name.name).chain(OTHERS).collect();
    names.sort_unstable();
    names.dedup();
    names
}

async fn list(State(service): State<Service>, caller: Caller, query: Query) -> Result<Response, Refusal> {
    query.end()?;
    let is_shared = service.cluster().is_some();
    let token = &caller.token;
    let is_allowed =
        |name: &Name| (name.read_only || token.role >= Role::Operator) && has_verb(token, name.name);
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let root = generator.root_schema_for::<OperationSpec>().to_value();
    let definitions = root.get("$defs").cloned().unwrap_or_else(|| json!({}));
    let variants = root.get("oneOf").and_then(Value::as_array).cloned().unwrap_or_default();
    let view = |mut schema: Value| {
        let op = schema.pointer("/properties/op/const")?.as_str()?.to_owned();
        let about = schema.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
        let names: Vec<_> = NAMES.iter().filter(|name| name.op == op).collect();
        schema.as_object_mut()?.insert("$defs".to_owned(), definitions.clone());
        Some(VerbView {
            names: names
                .iter()
                .map(|name| VerbName {
                    name: name.name.to_owned(),
                    disruptive: name.disruptive,
                    read_only: name.read_only,
                    allowed: is_allowed(name),
                })
                .collect(),
            for_hosts: matches!(op.as_str(), "host-check" | "diagnose-host"),
            op,
            about,
            schema,
        })
    };
    let views = variants.into_iter().filter_map(view).filter(|view| is_offered(&view.op, is_shared));
    let views: Vec<VerbView> = views.collect();
    Ok(answer(&views))
}

#[cfg(test)]
mod tests {
    use atp_executor::Operation;

    use super::*;

    #[test]
    fn a_token_can_be_given_each_verb_that_is_no_operation() {
        // As they are passed to `permit_other`, and as files are permitted.
        for verb in ["attach", "channel", "cp", "reserve", "stats"] {
            assert!(verb_names().contains(&verb), "{verb}");
        }
    }

    #[test]
    fn a_cluster_offers_no_verb_with_files() {
        let left_out = |is_shared| {
            let ops = NAMES.iter().map(|name| name.op).filter(|op| !is_offered(op, is_shared));
            ops.collect::<Vec<_>>()
        };
        assert!(left_out(false).is_empty());
        assert_eq!(left_out(true), ["pull", "screenshot", "console", "push"]);
    }

    #[tokio::test]
    async fn the_facts_are_those_of_the_executor() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let scenario = |step: &str| format!("name: a\ntargets: a\nsteps:\n  - {step}");
        let actions = [
            "start", "shutdown", "reboot", "reset", "destroy", "suspend", "resume", "wakeup", "save",
            "restore",
        ];
        let mut specs: Vec<Value> =
            actions.iter().map(|action| json!({"op": "lifecycle", "action": action})).collect();
        specs.extend([
            json!({"op": "host-check"}),
            json!({"op": "diagnose-host"}),
            json!({"op": "diagnose-agent"}),
            json!({"op": "vm-list"}),
            json!({"op": "vm-info"}),
            json!({"op": "vm-xml"}),
            json!({"op": "vm-autostart", "on": true}),
            json!({"op": "vm-nmi"}),
            json!({"op": "snapshot-list"}),
            json!({"op": "snapshot-create", "name": "a"}),
            json!({"op": "snapshot-revert", "name": "a"}),
            json!({"op": "snapshot-delete", "name": "a"}),
            json!({"op": "exec", "program": "true"}),
            json!({"op": "pull", "path": "/a", "destination": "/b"}),
            json!({"op": "push", "source": file.path(), "destination": "/b"}),
            json!({"op": "wait", "until": "agent"}),
            json!({"op": "qmp", "command": "query-status"}),
            json!({"op": "qga", "command": "guest-ping"}),
            json!({"op": "key", "chords": ["a"]}),
            json!({"op": "type", "text": "a"}),
            json!({"op": "mouse", "action": "click left"}),
            json!({"op": "screenshot", "folder": "/a"}),
            json!({"op": "console"}),
            json!({"op": "scenario", "text": scenario("exec: true")}),
        ]);
        let mut seen = std::collections::BTreeSet::new();
        for spec in specs {
            let op = spec["op"].as_str().unwrap().to_owned();
            let spec: OperationSpec =
                serde_json::from_value(spec.clone()).unwrap_or_else(|error| panic!("{spec}: {error}"));
            let operation = Operation::prepare(spec).await.unwrap();
            let facts = operation.facts();
            let name = NAMES.iter().find(|name| name.op == op && name.name == facts.name);
            let name = name.unwrap_or_else(|| panic!("{op} {}", facts.name));
            assert_eq!((name.disruptive, name.read_only), (facts.disruptive, facts.only_looks), "{op}");
            seen.insert((name.op, name.name));
        }
        assert_eq!(seen.len(), NAMES.len());
    }
}
