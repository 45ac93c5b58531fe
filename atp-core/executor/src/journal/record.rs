//! The lines of a journal.

use std::collections::BTreeSet;
use std::time::SystemTime;

use atp_api::{Outcome, Policy};
use atp_transport::HostId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::fingerprint::fingerprint;
use crate::plan::{Notice, Plan};
use crate::target::Target;

/// The format that is written: lines in batches, each with a seal line at its end.
pub(super) const FORMAT: u32 = 2;

/// The earlier format without seals, which is read as well. Such a file is continued in the present format.
pub(super) const UNSEALED: u32 = 1;

/// A line as it is written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Record<'a> {
    Begun {
        format: u32,
        /// The version of the program that wrote it.
        version: &'a str,
        op: &'a str,
        /// Identifies the operation without repeating its parameters, which may be secret.
        operation: String,
        /// Whether each VM's files go to a folder of their own.
        separate: bool,
        /// For people who read the file.
        policy: &'a Policy,
        targets: Vec<Key>,
        /// What was selected and could not be resolved to targets.
        unresolved: Vec<Unresolved>,
        at: String,
    },
    Resumed {
        format: u32,
        version: &'a str,
        /// VMs that this run works on, and that the file has under another host so far.
        moved: Vec<Moved>,
        /// Whether records that stood behind the last batch were lost to damage.
        lost: bool,
        at: String,
    },
    /// Ends a batch.
    Sealed(Seal),
    Started {
        #[serde(flatten)]
        target: Key,
        at: String,
    },
    Finished {
        #[serde(flatten)]
        outcome: &'a Outcome,
        at: String,
    },
}

/// Shows whether a batch is on disk as it was written: a loss of power can leave the blocks of one write on disk in any
/// order, with zeros between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seal {
    /// Its number in the file, from 0.
    pub(super) batch: u64,
    /// CRC-32 (IEEE) of the batch's lines.
    pub(super) crc32: u32,
}

impl Seal {
    pub(super) fn of(batch: u64, lines: &[u8]) -> Self {
        Seal { batch, crc32: crc32fast::hash(lines) }
    }
}

/// The lines of a batch with their seal.
pub(super) fn sealed(batch: u64, mut lines: String) -> String {
    let seal = Record::Sealed(Seal::of(batch, lines.as_bytes())).to_line();
    lines.push_str(&seal);
    lines
}

/// A line as it is read, with only the parts that are needed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ReadRecord {
    Begun {
        format: u32,
        #[serde(default)]
        version: String,
        op: String,
        operation: String,
        separate: bool,
        targets: Vec<Key>,
        #[serde(default)]
        unresolved: Vec<Unresolved>,
        #[serde(default)]
        at: String,
    },
    Resumed {
        #[serde(default)]
        format: u32,
        #[serde(default)]
        moved: Vec<Moved>,
        #[serde(default)]
        lost: bool,
        #[serde(default)]
        at: String,
    },
    Sealed(Seal),
    Started {
        #[serde(flatten)]
        target: Key,
    },
    Finished {
        #[serde(flatten)]
        target: Key,
        /// Without its target.
        #[serde(flatten)]
        outcome: Box<Outcome>,
    },
}

/// What the first line says of the run.
#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    pub(super) op: String,
    /// Identifies the operation.
    pub(super) operation: String,
    /// The version of the program that wrote it.
    pub(super) version: String,
    /// When it was begun.
    pub(super) at: String,
}

/// The identity of a target. A VM stays the same VM when it is renamed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) host: HostId,
    pub(super) vm: Option<String>,
    pub(super) uuid: Option<Uuid>,
}

/// A VM that a run works on under another host than the one in the file so far.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Moved {
    pub(super) uuid: Uuid,
    pub(super) from: HostId,
    pub(super) host: HostId,
}

/// A selection that planning could not resolve to targets: all VMs of a host that could not be listed, one VM of it, or a
/// VM that was on none of the hosts that were listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Unresolved {
    pub(super) host: Option<HostId>,
    pub(super) vm: Option<String>,
}

impl<'a> Record<'a> {
    pub(super) fn begun(plan: &'a Plan) -> Self {
        Record::Begun {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION"),
            op: plan.operation.name(),
            operation: fingerprint(&plan.operation),
            separate: plan.operation.is_separate(),
            policy: &plan.policy,
            targets: plan.targets.iter().map(Key::of).collect(),
            unresolved: Unresolved::all_of(&plan.settled),
            at: now(),
        }
    }

    pub(super) fn resumed(plan: &Plan, lost: bool) -> Self {
        let moved = Moved::all_of(&plan.notices);
        Record::Resumed { format: FORMAT, version: env!("CARGO_PKG_VERSION"), moved, lost, at: now() }
    }

    pub(super) fn started(target: &Target) -> Self {
        Record::Started { target: Key::of(target), at: now() }
    }

    pub(super) fn finished(outcome: &'a Outcome) -> Self {
        Record::Finished { outcome, at: now() }
    }

    /// The line, with its line feed.
    pub(super) fn to_line(&self) -> String {
        // Every key in an outcome is text, so that serialising it cannot fail.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}

impl Key {
    pub(super) fn of(target: &Target) -> Self {
        Key { host: target.host.clone(), vm: target.vm().map(str::to_owned), uuid: target.uuid() }
    }

    /// The outcome as that of this target.
    pub(super) fn named(self, outcome: Outcome) -> Outcome {
        Outcome { host: Some(self.host), vm: self.vm, uuid: self.uuid, ..outcome }
    }
}

impl Moved {
    fn all_of(notices: &[Notice]) -> Vec<Self> {
        let of = |notice: &Notice| match notice {
            Notice::Moved { uuid, from, host, .. } => {
                Some(Moved { uuid: *uuid, from: from.clone(), host: host.clone() })
            }
            _ => None,
        };
        notices.iter().filter_map(of).collect()
    }
}

impl Unresolved {
    /// The unresolved selections of these outcomes of a planning, each once.
    pub(super) fn all_of(settled: &[Outcome]) -> Vec<Self> {
        let of = |outcome: &Outcome| Unresolved { host: outcome.host.clone(), vm: outcome.vm.clone() };
        let all: BTreeSet<_> = settled.iter().map(of).collect();
        all.into_iter().collect()
    }

    /// Whether the unresolved selection covers this VM.
    pub(super) fn covers(&self, host: &HostId, vm: Option<&str>) -> bool {
        self.host.as_ref().is_none_or(|id| id == host)
            && self.vm.as_deref().is_none_or(|name| Some(name) == vm)
    }
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}
