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
    /// What has to be reached before the operation ends, if the target's deadline does not end it.
    #[serde(default)]
    pub wait: Await,
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

/// What an operation that changes a VM's state waits for after it has asked for the change. In JSON it is `false`, `true`,
/// `"state"` or `"agent"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(from = "AwaitForm", into = "AwaitForm")]
#[schemars(with = "AwaitForm")]
pub enum Await {
    /// Nothing: the operation ends when the host has accepted the change.
    #[default]
    Nothing,
    /// That the VM can be used as the change intends: the state is reached and, where that state is `running` and the VM
    /// has an agent, the agent answers.
    Completion,
    /// The state (see [`goal`](LifecycleSpec::goal)), whether the agent answers or not.
    State,
    /// The state, and that the agent answers. A VM without an agent fails.
    Agent,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
enum AwaitForm {
    /// `false` for nothing, `true` for completion.
    Whether(bool),
    What(AwaitWord),
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum AwaitWord {
    State,
    Agent,
}

impl From<AwaitForm> for Await {
    fn from(form: AwaitForm) -> Self {
        match form {
            AwaitForm::Whether(false) => Await::Nothing,
            AwaitForm::Whether(true) => Await::Completion,
            AwaitForm::What(AwaitWord::State) => Await::State,
            AwaitForm::What(AwaitWord::Agent) => Await::Agent,
        }
    }
}

impl From<Await> for AwaitForm {
    fn from(wait: Await) -> Self {
        match wait {
            Await::Nothing => AwaitForm::Whether(false),
            Await::Completion => AwaitForm::Whether(true),
            Await::State => AwaitForm::What(AwaitWord::State),
            Await::Agent => AwaitForm::What(AwaitWord::Agent),
        }
    }
}

impl LifecycleSpec {
    /// The change, not waited for.
    pub fn new(action: Lifecycle) -> Self {
        LifecycleSpec { action, wait: Await::Nothing, start_check: StartCheck::default() }
    }

    /// The change, waited for.
    pub fn awaited(action: Lifecycle) -> Self {
        LifecycleSpec { wait: Await::Completion, ..LifecycleSpec::new(action) }
    }

    /// The state that the change leads to.
    ///
    /// A restart (`reboot`, `reset`) leads to `running`. libvirt shows a guest that restarts as running all the time,
    /// so waiting for a restart waits until the VM has restarted. With hypervisors other than QEMU, which may not report
    /// restarts, only the state is awaited.
    pub fn goal(&self) -> DomainState {
        match self.action {
            Lifecycle::Start
            | Lifecycle::Resume
            | Lifecycle::Wakeup
            | Lifecycle::Restore
            | Lifecycle::Reboot
            | Lifecycle::Reset => DomainState::Running,
            Lifecycle::Shutdown | Lifecycle::Destroy | Lifecycle::Save => DomainState::ShutOff,
            Lifecycle::Suspend => DomainState::Paused,
        }
    }

    /// Refuses to wait for an agent where the change takes the guest away: it would not answer.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        match (self.wait, self.goal()) {
            (Await::Agent, goal) if goal != DomainState::Running => {
                let action = self.action;
                Err(format!("{action} cannot wait for the agent: no agent answers when the VM is {goal}"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the operation ends only when the guest's agent answers, if the VM has one.
    pub fn awaits_agent(&self) -> bool {
        match self.wait {
            Await::Nothing | Await::State => false,
            Await::Completion => self.goal() == DomainState::Running,
            Await::Agent => true,
        }
    }
}

/// Which definition of a VM is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct XmlSpec {
    /// The one that holds from the next start, and not the one of now.
    #[serde(default)]
    pub inactive: bool,
}

/// Whether a VM is started with its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AutostartSpec {
    /// Start it with its host, or not.
    pub on: bool,
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
    /// A process in the guest listens on this TCP port. Looked up in the guest, so that no network between is needed.
    Port {
        /// The port.
        port: u16,
    },
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
            Condition::Port { port } => write!(f, "a process that listens on port {port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_a_truth_value_or_a_word() {
        let read = |wait: &str| serde_json::from_str::<Await>(wait);
        for (text, wait) in [
            ("false", Await::Nothing),
            ("true", Await::Completion),
            (r#""state""#, Await::State),
            (r#""agent""#, Await::Agent),
        ] {
            assert_eq!(read(text).unwrap(), wait);
            assert_eq!(serde_json::to_string(&wait).unwrap(), text);
        }
        assert!(read(r#""boot""#).is_err());
        let spec: LifecycleSpec = serde_json::from_str(r#"{"action": "start"}"#).unwrap();
        assert_eq!(spec, LifecycleSpec::new(Lifecycle::Start));
    }
}
