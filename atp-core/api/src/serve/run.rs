//! Runs of the service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr};

use crate::outcome::Outcome;
use crate::run::StopReason;
use crate::statistics::RunStatistics;

/// A run, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunSummary {
    /// Its number in the service's store.
    pub id: u64,
    /// The operation's name. Its parameters are left out: they may be secret.
    pub op: String,
    /// The name of the token that began it.
    pub by: String,
    /// How far it is.
    pub state: RunState,
    /// When it was asked for, RFC 3339.
    pub created: String,
    /// When it ended or was interrupted, RFC 3339.
    pub ended: Option<String>,
    /// The number of its targets; none before it is planned.
    pub targets: Option<u64>,
    /// Its numbers, of the outcomes so far; none before it has begun. Of a run that was resumed they are those since then.
    pub statistics: Option<RunStatistics>,
    /// Why it ended early, if it did.
    pub stop_reason: Option<StopReason>,
    /// In the answer to a resume: the number of its last event before that. Those after it are of what is left to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_after: Option<u64>,
}

/// How far a run is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display, EnumString, IntoStaticStr,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum RunState {
    /// Its hosts are asked for their VMs.
    Planning,
    /// Targets are worked on.
    Running,
    /// Every target has its outcome.
    Ended,
    /// The service ended during the run. It can be resumed.
    Interrupted,
    /// A word of a later version.
    #[serde(other)]
    Unknown,
}

/// Outcomes of a run, in the order of its plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OutcomePage {
    /// The outcomes.
    pub outcomes: Vec<Outcome>,
    /// What to send as `after` for the next page; none if there are no more outcomes now.
    pub next: Option<u64>,
}
