//! Changes of a VM's state, and waiting for one.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::exec::ExecSpec;
use crate::domain::{DomainState, Lifecycle};

/// A change of a VM's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LifecycleSpec {
    /// The change.
    pub action: Lifecycle,
    /// Whether the operation ends only when the state is reached (see [`goal`](Self::goal)) or the target's deadline
    /// has passed.
    #[serde(default)]
    pub wait: bool,
    /// What is checked before the VM is started. Only a start has this.
    #[serde(default, skip_serializing_if = "StartCheck::is_default")]
    pub start_check: StartCheck,
}

/// What is checked before a VM is started: one that runs on two hosts destroys its disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StartCheck {
    /// That libvirt does not say that it was migrated away, and that it runs on none of the hosts that were listed for the
    /// run and have a VM of its UUID.
    #[default]
    Listed,
    /// As [`Listed`](Self::Listed), and that it runs on no other host of the inventory. A host that does not answer is
    /// a reason not to start it.
    AllHosts,
    /// Nothing.
    Nothing,
}

impl StartCheck {
    fn is_default(&self) -> bool {
        *self == StartCheck::default()
    }
}

impl LifecycleSpec {
    /// The change, not waited for.
    pub fn new(action: Lifecycle) -> Self {
        LifecycleSpec { action, wait: false, start_check: StartCheck::default() }
    }

    /// The change, waited for.
    pub fn awaited(action: Lifecycle) -> Self {
        LifecycleSpec { wait: true, ..LifecycleSpec::new(action) }
    }

    /// The state that the change leads to.
    ///
    /// A restart (`reboot`, `reset`) leads to `running`. libvirt shows a guest that restarts as running all the time,
    /// so waiting for a restart waits until the VM has restarted and its agent, if it has one, answers. With hypervisors
    /// other than QEMU, which may not report restarts, only the state is awaited.
    pub fn goal(&self) -> DomainState {
        match self.action {
            Lifecycle::Start
            | Lifecycle::Resume
            | Lifecycle::Wakeup
            | Lifecycle::Reboot
            | Lifecycle::Reset => DomainState::Running,
            Lifecycle::Shutdown | Lifecycle::Destroy => DomainState::ShutOff,
            Lifecycle::Suspend => DomainState::Paused,
        }
    }
}

/// The condition to wait for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "until", rename_all = "kebab-case")]
pub enum Condition {
    /// The guest's agent answers.
    Agent,
    /// The VM is in a state.
    #[serde(with = "state")]
    #[schemars(with = "state::State")]
    State(DomainState),
    /// This program, run in the guest repeatedly, ends with exit code 0.
    Exec(ExecSpec),
}

/// A state as it is serialised: an object, beside the tag.
mod state {
    use schemars::JsonSchema;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::domain::DomainState;

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[schemars(inline)]
    pub(super) struct State {
        /// The state that the VM is to be in.
        state: DomainState,
    }

    pub(super) fn serialize<S: Serializer>(state: &DomainState, serializer: S) -> Result<S::Ok, S::Error> {
        State { state: *state }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DomainState, D::Error> {
        State::deserialize(deserializer).map(|state| state.state)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Agent => f.write_str("its agent to answer"),
            Condition::State(state) => write!(f, "the state {state:?}", state = state.as_str()),
            Condition::Exec(spec) => write!(f, "{:?} to end with exit code 0", spec.program),
        }
    }
}
