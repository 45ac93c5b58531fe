//! The history of a run whose records are in the rows of a database.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use atp_api::Outcome;
use atp_transport::HostId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::JournalError;
use super::fingerprint::fingerprint;
use super::history::History;
use super::past::{Past, Progress};
use super::read::same_operation;
use super::record::{Head, Key, Unresolved};
use crate::plan::Plan;
use crate::verbs::Operation;

/// What a store keeps of a run beside its targets, as JSON, to resume it. It has nothing of the operation's parameters but a
/// hash.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunHead {
    version: String,
    op: String,
    operation: String,
    separate: bool,
    unresolved: Vec<Unresolved>,
}

impl RunHead {
    /// The head of a run of `plan`.
    pub fn of(plan: &Plan) -> RunHead {
        RunHead {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            op: plan.operation.name().to_owned(),
            operation: fingerprint(&placeless(&plan.operation)),
            separate: plan.operation.is_separate(),
            unresolved: Unresolved::all_of(&plan.settled),
        }
    }
}

/// The operation without the places of files on this machine. Where the history of a run is in rows, files were sent for one run,
/// and go to a folder of it: others when the run is resumed. What is copied into guests is known by its digest.
fn placeless(operation: &Operation) -> Operation {
    let mut operation = operation.clone();
    match &mut operation {
        Operation::Push(push) => push.spec.source = PathBuf::new(),
        Operation::Pull(spec) => spec.destination = PathBuf::new(),
        Operation::Screenshot(spec) => spec.folder = PathBuf::new(),
        Operation::Console(spec) => spec.folder = spec.folder.as_ref().map(|_| PathBuf::new()),
        _ => {}
    }
    operation
}

/// A target in a store, and how far it got.
#[derive(Debug, Clone)]
pub struct RecordedTarget {
    /// The host.
    pub host: HostId,
    /// The VM's name, unless the host is the target.
    pub vm: Option<String>,
    /// The VM's identity.
    pub uuid: Option<Uuid>,
    /// Whether it was a target when the run was begun, and not first when it was resumed.
    pub is_from_begin: bool,
    /// Whether its start was recorded.
    pub was_started: bool,
    /// Its outcome, if that was recorded.
    pub outcome: Option<Box<Outcome>>,
}

impl RecordedTarget {
    /// The outcome of a target that was started and has none: it is not known. None for others.
    pub fn unknown(&self, op: &str) -> Option<Outcome> {
        if !self.was_started || self.outcome.is_some() {
            return None;
        }
        let mut settled = Vec::new();
        Past { key: self.key(), progress: Progress::Started, is_from_begin: self.is_from_begin }
            .settle(op.to_owned(), &mut settled);
        // It is reported as this run's own.
        settled.pop().map(|outcome| Outcome { from_earlier_run: false, ..outcome })
    }

    fn key(&self) -> Key {
        Key { host: self.host.clone(), vm: self.vm.clone(), uuid: self.uuid }
    }
}

impl History {
    /// The history of a run of `operation`, from the rows of a store. `name` is the run's name in errors.
    ///
    /// It has no file, so that [`Journal::resume`](super::Journal::resume) cannot continue it.
    ///
    /// # Errors
    /// The run is one of another operation.
    pub fn of_rows(
        name: &str,
        head: RunHead,
        targets: impl IntoIterator<Item = RecordedTarget>,
        operation: &Operation,
    ) -> Result<History, JournalError> {
        let RunHead { version, op, operation: theirs, separate, unresolved } = head;
        same_operation(name, &op, &theirs, &version, &placeless(operation))?;
        let mut history = History {
            path: PathBuf::from(name),
            head: Head { op, operation: theirs, version, at: String::new() },
            resumed_at: Vec::new(),
            good_bytes: 0,
            batches: 0,
            length: 0,
            has_lost: false,
            separate,
            targets: BTreeMap::new(),
            hosts_of: HashMap::new(),
            unresolved,
        };
        for target in targets {
            let key = target.key();
            let progress = match target.outcome {
                Some(outcome) => Progress::Finished(outcome),
                None if target.was_started => Progress::Started,
                None => Progress::NeverStarted,
            };
            history.note(Past { key, progress, is_from_begin: target.is_from_begin });
        }
        Ok(history)
    }
}
