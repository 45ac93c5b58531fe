//! What happens in a run, from its start to its end.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::OutcomeError;
use crate::host_id::HostId;
use crate::kind::ErrorKind;
use crate::outcome::Outcome;
use crate::policy::Policy;
use crate::statistics::RunStatistics;

/// Something that happened in a run. Events come in the order in which they happened.
///
/// ```
/// use atp_api::RunEvent;
///
/// let event: RunEvent = serde_json::from_str(r#"{"event": "started", "host": "h1", "vm": "web-1"}"#)?;
/// assert!(matches!(event, RunEvent::Started { vm: Some(vm), .. } if vm == "web-1"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum RunEvent {
    /// The run starts. Comes once, before all others.
    Begun(Box<RunStart>),
    /// A target was admitted; its deadline runs.
    Started {
        /// The host.
        host: HostId,
        /// The VM's name, unless the host is the target.
        vm: Option<String>,
    },
    /// The progress of long work on a target, such as a copy of a file. Comes between its `Started` and its `Finished`, and
    /// is dropped if events are not read fast enough.
    Progress {
        /// The host.
        host: HostId,
        /// The VM's name, unless the host is the target.
        vm: Option<String>,
        /// How much is done, bytes.
        done: u64,
        /// How much there is in all, bytes.
        total: u64,
    },
    /// A line of a VM's serial console, or a mark for what is missing between two. Comes between its `Started` and its
    /// `Finished`.
    Console {
        /// The host.
        host: HostId,
        /// The VM's name.
        vm: String,
        /// The line, without control characters and without its end.
        line: String,
    },
    /// A target has its outcome. Targets that never started have no `Started` before.
    Finished(Box<Outcome>),
    /// The run ends early: from here on no more targets are started. Comes at most once.
    Stopping(StopReason),
    /// Every target has its outcome. Comes once, after all others.
    Ended(Box<RunStatistics>),
    /// An event of a later version. Passed over.
    #[serde(other)]
    Unknown,
}

/// What a run is going to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunStart {
    /// The version of these types that the run's events are written in; see [`VERSION`](crate::VERSION).
    pub version: u32,
    /// The operation's name. Its parameters are left out: they may be secret.
    pub op: Cow<'static, str>,
    /// The number of targets.
    pub targets: usize,
    /// The number of hosts that the targets are on.
    pub hosts: usize,
    /// The number of outcomes that were known when the plan was made. They come first.
    pub settled: usize,
    /// The number of targets that an earlier run of the same journal has done, and that are not repeated.
    pub done_before: usize,
    /// The limits and deadlines.
    pub policy: Policy,
}

impl RunStart {
    /// The number of outcomes there will be.
    pub fn outcomes(&self) -> usize {
        self.targets.saturating_add(self.settled)
    }
}

/// Why a run ended early.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum StopReason {
    /// It was asked to start no more targets.
    Requested,
    /// It was asked to end at once, or everyone who read its events has left.
    Aborted,
    /// [`Policy::deadline`] passed.
    DeadlinePassed,
    /// As many targets failed as [`Policy::max_failures`] says.
    MaxFailures {
        /// The number of failures.
        failures: usize,
    },
    /// A target of the first batch failed; see [`Policy::serial`].
    CanaryFailed,
    /// The journal cannot be written any more.
    JournalFailed {
        /// Why.
        error: OutcomeError,
    },
    /// A reason of a later version.
    #[serde(other)]
    Unknown,
}

impl StopReason {
    /// The kind, for programs to match on. The errors of targets that were not started have it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            StopReason::Requested => ErrorKind::Stopped,
            StopReason::Aborted => ErrorKind::Aborted,
            StopReason::DeadlinePassed => ErrorKind::RunDeadlinePassed,
            StopReason::MaxFailures { .. } => ErrorKind::MaxFailuresReached,
            StopReason::CanaryFailed => ErrorKind::CanaryFailed,
            StopReason::JournalFailed { .. } => ErrorKind::JournalFailed,
            StopReason::Unknown => ErrorKind::Unknown,
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopReason::Requested => f.write_str("the run was stopped before"),
            StopReason::Aborted => f.write_str("the run was aborted before"),
            StopReason::DeadlinePassed => f.write_str("the time for the whole run was used up"),
            StopReason::MaxFailures { failures: 1 } => f.write_str("the run ends after its first failure"),
            StopReason::MaxFailures { failures } => {
                write!(f, "{failures} targets failed, which is the limit of the run")
            }
            StopReason::CanaryFailed => f.write_str("a target of the first batch failed"),
            StopReason::JournalFailed { error } => f.write_str(&error.message),
            StopReason::Unknown => f.write_str("for a reason of a later version"),
        }
    }
}
