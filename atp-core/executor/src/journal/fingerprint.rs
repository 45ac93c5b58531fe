//! What identifies the operation of a journal without repeating its parameters, which may be secret.
//!
//! A fingerprint is a hash of the operation's canonical JSON, with the number of the schema that the JSON is written in
//! ([`OperationSpec::SCHEMA`]): `schema-1:sha256:…`. Journals from before there were schemas have `sha256:…` alone, a hash
//! of the operation as Rust's `Debug` printed it. What it printed then is printed again here, as far as it can be.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use atp_api::{Await, Condition, ExecSpec, OperationSpec, RawCommand, ScreenshotSpec, canonical_json};
use atp_protocol::files::{Digest, Source};
use atp_protocol::input::{Chord, KeyTiming, MouseAction, MouseTiming};
use atp_transport::domain::Lifecycle;
use serde_json::{Map, Value};

use crate::verbs::{Operation, key, mouse, type_text};

/// The result of comparing a journal's operation with another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Same,
    Other,
    /// The journal identifies its operation in a way that this version does not know.
    Unknown,
}

/// The fingerprint of an operation as it was requested, without what planning changed.
pub(super) fn fingerprint(operation: &Operation) -> String {
    let spec = operation.clone().separated(false).spec();
    // Every key in it is text, so that serialising it cannot fail.
    let json = canonical_json(&serde_json::to_value(spec).unwrap_or_default());
    format!("schema-{}:{}", OperationSpec::SCHEMA, sha256(&json))
}

/// Compares an operation with the one of a journal: its fingerprint, and the version of the program that wrote it.
pub(super) fn compare(theirs: &str, version: &str, operation: &Operation) -> Comparison {
    let ours = if theirs.starts_with("sha256:") {
        match debug(&operation.clone().separated(false)) {
            Some(debug) => sha256(&format!("{version} {debug}")),
            None => return Comparison::Unknown,
        }
    } else if theirs.starts_with(&format!("schema-{}:", OperationSpec::SCHEMA)) {
        fingerprint(operation)
    } else {
        return Comparison::Unknown;
    };
    if theirs == ours { Comparison::Same } else { Comparison::Other }
}

fn sha256(text: &str) -> String {
    format!("sha256:{}", Digest::of(text.as_bytes()))
}

/// The operation as version 0.1.0 printed it before there were schemas; none for a scenario, which had parts that are gone, and
/// for what came later.
fn debug(operation: &Operation) -> Option<String> {
    Some(match operation {
        Operation::HostCheck => "HostCheck".to_owned(),
        Operation::DiagnoseHost => "DiagnoseHost".to_owned(),
        Operation::DiagnoseAgent => "DiagnoseAgent".to_owned(),
        Operation::VmList => "VmList".to_owned(),
        Operation::VmInfo => "VmInfo".to_owned(),
        Operation::Lifecycle(spec) => {
            // There was one way to wait.
            let wait = match spec.wait {
                Await::Nothing => false,
                Await::Completion => true,
                Await::State | Await::Agent => return None,
            };
            format!("{:?}", Old::Lifecycle(LifecycleSpec { action: spec.action, wait }))
        }
        Operation::Exec(spec) => format!("{:?}", Old::Exec(OldExec(spec))),
        // Folders were not copied.
        Operation::Push(push) if push.spec.recursive => return None,
        Operation::Pull(spec) if spec.recursive => return None,
        Operation::Push(push) => {
            let (local_path, destination) = (&push.spec.source, &push.spec.destination);
            format!("{:?}", Old::Push(PushSpec { source: &push.source, local_path, destination }))
        }
        Operation::Pull(spec) => {
            let (path, destination) = (&spec.path, &spec.destination);
            format!("{:?}", Old::Pull(PullSpec { path, destination, separate: spec.separate }))
        }
        Operation::Wait(condition) => match condition {
            Condition::Agent => "Wait(Agent)".to_owned(),
            // There was no such condition.
            Condition::Port { .. } => return None,
            Condition::State(state) => format!("Wait(State({state:?}))"),
            Condition::Exec(spec) => format!("Wait({:?})", Old::Exec(OldExec(spec))),
        },
        Operation::Qmp(command) => format!("{:?}", Old::Qmp(OldCommand(command))),
        Operation::Qga(command) => format!("{:?}", Old::Qga(OldCommand(command))),
        Operation::Key(spec) => {
            let chords = key::parse(&spec.chords).ok()?;
            format!("{:?}", Old::Key(KeySpec { chords, timing: KeyTiming { hold: spec.hold } }))
        }
        Operation::Type(spec) => {
            let chords = type_text::strokes(spec).ok()?;
            format!("{:?}", Old::Type(KeySpec { chords, timing: KeyTiming { hold: spec.hold } }))
        }
        Operation::Mouse(spec) => {
            let timing = MouseTiming { hold: spec.hold, ..MouseTiming::default() };
            format!("{:?}", Old::Mouse(MouseSpec { action: mouse::parse(spec).ok()?, timing }))
        }
        Operation::Screenshot(spec) => format!("{:?}", Old::Screenshot(spec)),
        _ => return None,
    })
}

/// The variants with parameters, for their names.
#[derive(Debug)]
#[expect(dead_code, reason = "they are printed")]
enum Old<'a> {
    Lifecycle(LifecycleSpec),
    Exec(OldExec<'a>),
    Push(PushSpec<'a>),
    Pull(PullSpec<'a>),
    Qmp(OldCommand<'a>),
    Qga(OldCommand<'a>),
    Key(KeySpec),
    Type(KeySpec),
    Mouse(MouseSpec),
    Screenshot(&'a ScreenshotSpec),
}

#[derive(Debug)]
#[expect(dead_code, reason = "they are printed")]
struct LifecycleSpec {
    action: Lifecycle,
    wait: bool,
}

#[derive(Debug)]
#[expect(dead_code, reason = "they are printed")]
struct PushSpec<'a> {
    source: &'a Arc<Source>,
    local_path: &'a Path,
    destination: &'a str,
}

#[derive(Debug)]
#[expect(dead_code, reason = "they are printed")]
struct PullSpec<'a> {
    path: &'a str,
    destination: &'a Path,
    separate: bool,
}

#[derive(Debug)]
#[expect(dead_code, reason = "they are printed")]
struct KeySpec {
    chords: Vec<Chord>,
    timing: KeyTiming,
}

#[derive(Debug)]
#[expect(dead_code, reason = "they are printed")]
struct MouseSpec {
    action: MouseAction,
    timing: MouseTiming,
}

struct OldExec<'a>(&'a ExecSpec);

impl fmt::Debug for OldExec<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ExecSpec { program, args, env, stdin, shell, cwd, spool, encoding } = self.0;
        f.debug_struct("ExecSpec")
            .field("program", program)
            .field("args", args)
            .field("env", env)
            .field("stdin", stdin)
            .field("shell", shell)
            .field("cwd", cwd)
            .field("spool", spool)
            .field("encoding", encoding)
            .finish()
    }
}

struct OldCommand<'a>(&'a RawCommand);

impl fmt::Debug for OldCommand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arguments = OldMap(self.0.arguments());
        f.debug_struct("RawCommand").field("name", &self.0.name()).field("arguments", &arguments).finish()
    }
}

struct OldMap<'a>(&'a Map<String, Value>);

impl fmt::Debug for OldMap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_stable() {
        let spec = ExecSpec::new("uname").arg("-r").with_env("B", "2").with_env("A", "1");
        let json = canonical_json(&serde_json::to_value(OperationSpec::Exec(spec.clone())).unwrap());
        assert_eq!(
            json,
            r#"{"args":["-r"],"cwd":null,"encoding":null,"env":{"A":"1","B":"2"},"op":"exec","program":"uname","shell":false,"spool":null,"stdin":null}"#
        );
        let theirs = fingerprint(&Operation::Exec(spec));
        assert!(theirs.starts_with("schema-1:sha256:"), "{theirs}");
        assert_eq!(
            theirs,
            "schema-1:sha256:02b1ac3fb04ce4bdbe7fe410a2f764080d6de7d7d4c38a39743828b0087cc53d"
        );
    }

    #[test]
    fn what_planning_changed_is_not_in_it() {
        let pull = |separate| {
            let (path, destination) = ("/x".into(), "y".into());
            Operation::Pull(atp_api::PullSpec {
                path,
                destination,
                separate,
                recursive: false,
                packed: false,
            })
        };
        assert_eq!(fingerprint(&pull(true)), fingerprint(&pull(false)));
    }

    #[test]
    fn a_schema_that_is_not_known_is_not_compared() {
        for theirs in ["schema-2:sha256:00", "schema-11:sha256:00", "md5:00", ""] {
            assert_eq!(compare(theirs, "9.9.9", &Operation::VmInfo), Comparison::Unknown, "{theirs}");
        }
        assert_eq!(compare("sha256:00", "0.1.0", &Operation::VmInfo), Comparison::Other);
    }
}
