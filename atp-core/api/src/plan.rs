//! What a run would do, as an answer to a client.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::data::Finding;
use crate::domain::{DomainInfo, DomainState};
use crate::error::OutcomeError;
use crate::host_id::HostId;
use crate::outcome::Outcome;
use crate::policy::Policy;
use crate::targets::Targets;

/// What a run would do: the targets, and the outcomes that are known without running anything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanReport {
    /// The version of these types that it is written in; see [`VERSION`](crate::VERSION).
    pub version: u32,
    /// The operation's name. Its parameters are left out: they may be secret.
    pub op: Cow<'static, str>,
    /// Whether it takes a running VM away from its users.
    pub disruptive: bool,
    /// The limits and deadlines.
    pub policy: Policy,
    /// The targets, by host and then VM, each once.
    pub targets: Vec<PlannedTarget>,
    /// Outcomes that no run can change: hosts that could not be listed, VMs that do not exist.
    pub settled: Vec<Outcome>,
    /// What a person should know about how the plan was made.
    pub notices: Vec<String>,
    /// The notices about the inventory, as a diagnosis reports them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// The number of targets that an earlier run of the same journal has done, and that are not repeated.
    pub done_before: usize,
    /// By what a service knows the plan, for a while: a run of the same request may be started as it was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// What chose the targets, in the plan of a run of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen_by: Option<Targets>,
}

/// One target of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedTarget {
    /// The host.
    pub host: HostId,
    /// The VM's name, unless the host is the target.
    pub vm: Option<String>,
    /// The VM's identity.
    pub uuid: Option<Uuid>,
    /// The VM's state when it was listed.
    pub state: Option<DomainState>,
    /// All that the host's listing says of the VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<DomainInfo>,
    /// What would be done to it.
    pub dry_run: DryRun,
    /// The error that it would have, where its state does not allow the operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<OutcomeError>,
}

/// What an operation will do to a VM, as far as the VM's state tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DryRun {
    /// It will be carried out.
    Proceed,
    /// The requested state is reached already: nothing will be sent.
    Unchanged,
    /// The VM's state does not allow it: nothing will be sent.
    NotRunning,
    /// A word of a later version.
    #[serde(other)]
    Unknown,
}
