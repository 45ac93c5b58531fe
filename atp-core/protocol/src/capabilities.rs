//! The commands that a guest's agent supports, and the explanation of a refusal.
//!
//! Which commands an agent supports depends on its version, on its build and on the guest's configuration. A command is
//! sent without a check first: a check would cost each short command one more round trip, and its answer may be out of
//! date, while the agent's own refusal costs nothing and is current. After a refusal the agent is asked for its version
//! and commands (`guest-info`), so that the error can name the probable cause. The answer is cached for as long as the
//! agent runs.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use qapi::qga::{GuestAgentInfo, guest_info};
use tokio::time::Instant;

use crate::agent;
use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};
use crate::guest::frozen;
use crate::nearest::nearest;
use crate::refusal::{Refusal, RefusalKind};

/// The version and commands of one agent (`guest-info`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentCapabilities {
    /// Its version, such as `7.2.0`.
    pub version: String,
    /// Its commands, and whether each is enabled.
    commands: HashMap<String, bool>,
}

/// Whether an agent supports a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// The agent has the command.
    Enabled,
    /// The agent has the command, and the guest's configuration forbids it, or the guest's filesystems are frozen.
    Disabled,
    /// The agent is too old for the command, or was built without it.
    Unknown,
}

impl AgentCapabilities {
    /// Asks an agent for its version and commands.
    ///
    /// # Errors
    /// As for any command.
    ///
    /// Dropping the future stops the wait and does not cancel the command.
    pub async fn ask(carrier: &impl Carrier, deadline: Instant) -> Result<Self> {
        Ok(agent::execute(carrier, &guest_info {}, deadline).await?.into())
    }

    /// Whether the agent supports a command.
    pub fn support(&self, command: &str) -> Support {
        match self.commands.get(command) {
            Some(true) => Support::Enabled,
            Some(false) => Support::Disabled,
            None => Support::Unknown,
        }
    }

    /// Describes why the agent refused a command that it does not have.
    fn without(&self, command: &str) -> String {
        let version = &self.version;
        match nearest(command, self.commands.keys().map(String::as_str)) {
            Some(similar) => format!("agent {version} does not have it, but {similar}"),
            None => format!("agent {version} does not have it"),
        }
    }
}

impl From<GuestAgentInfo> for AgentCapabilities {
    fn from(info: GuestAgentInfo) -> Self {
        let commands = info.supported_commands.into_iter().map(|command| (command.name, command.enabled));
        AgentCapabilities { version: info.version, commands: commands.collect() }
    }
}

/// The known capabilities of the agents of many VMs. `K` identifies a VM.
///
/// It contains only agents that have refused a command. An entry is valid for as long as the agent runs: call
/// [`forget`](Self::forget) when the agent connects anew. An outdated entry can only make an error name an old version:
/// no command is refused because of it, and if it contradicts the agent's refusal, the agent is asked again.
#[derive(Debug)]
pub struct CapabilityCache<K> {
    known: Mutex<HashMap<K, Arc<AgentCapabilities>>>,
}

impl<K: Eq + Hash + Clone> CapabilityCache<K> {
    /// An empty cache.
    pub fn new() -> Self {
        CapabilityCache { known: Mutex::default() }
    }

    /// Returns what is known of a VM's agent.
    pub fn get(&self, vm: &K) -> Option<Arc<AgentCapabilities>> {
        self.known.lock().get(vm).cloned()
    }

    /// Forgets what is known of a VM's agent.
    pub fn forget(&self, vm: &K) {
        self.known.lock().remove(vm);
    }

    /// Forgets what is known of the agents of all VMs for which `lost` is true.
    pub fn forget_all(&self, mut lost: impl FnMut(&K) -> bool) {
        self.known.lock().retain(|vm, _| !lost(vm));
    }

    /// Adds the probable cause to an error of work with a VM's agent: if the agent refused a command that it does not
    /// have, its version and the settings that may have disabled the command. This takes one command to the agent, or
    /// none if the answer is cached. If the agent does not answer by `deadline`, the error stays as it is. All other
    /// errors are returned unchanged.
    ///
    /// Forgets an agent that [is gone](ProtocolError::is_agent_gone).
    ///
    /// Cancel safe.
    pub async fn explain(
        &self,
        vm: &K,
        carrier: &impl Carrier,
        mut error: ProtocolError,
        deadline: Instant,
    ) -> ProtocolError {
        if error.is_agent_gone() {
            self.forget(vm);
        }
        let missing = [RefusalKind::CommandDisabled, RefusalKind::CommandUnknown];
        if let Some(refusal) = error.refusal_mut().filter(|refusal| missing.contains(&refusal.kind)) {
            self.explain_refusal(vm, carrier, refusal, deadline).await;
        }
        error
    }

    async fn explain_refusal(
        &self,
        vm: &K,
        carrier: &impl Carrier,
        refusal: &mut Refusal,
        deadline: Instant,
    ) {
        let Some(agent) = self.refusing(vm, carrier, &refusal.command, deadline).await else { return };
        (refusal.kind, refusal.desc) = match agent.support(&refusal.command) {
            Support::Enabled => return,
            Support::Unknown => (RefusalKind::CommandUnknown, agent.without(&refusal.command)),
            Support::Disabled
                if !names_freeze(refusal) && frozen(carrier, deadline).await.unwrap_or(false) =>
            {
                let desc = "the guest's filesystems are frozen, and the agent has this command disabled until they are thawed";
                (RefusalKind::GuestFrozen, desc.to_owned())
            }
            Support::Disabled => (RefusalKind::CommandDisabled, disabled_by(&agent.version)),
        };
    }

    /// Returns what is cached about an agent that has refused a command, or else asks the agent.
    async fn refusing(
        &self,
        vm: &K,
        carrier: &impl Carrier,
        command: &str,
        deadline: Instant,
    ) -> Option<Arc<AgentCapabilities>> {
        // An entry that says the agent has the command is outdated: the agent has just refused it.
        let known = self.get(vm).filter(|known| known.support(command) != Support::Enabled);
        if known.is_some() {
            return known;
        }
        let now = Arc::new(AgentCapabilities::ask(carrier, deadline).await.ok()?);
        self.known.lock().insert(vm.clone(), now.clone());
        Some(now)
    }
}

impl<K: Eq + Hash + Clone> Default for CapabilityCache<K> {
    fn default() -> Self {
        CapabilityCache::new()
    }
}

/// Whether the agent names a freeze, which is temporary, as the reason: `Command NAME has been disabled: the agent is
/// in frozen state`. Older agents say `The command NAME has been disabled for this instance` in all cases.
fn names_freeze(refusal: &Refusal) -> bool {
    refusal.desc.starts_with("Command ")
}

/// The settings that forbid commands have other names in older agents and in some distributions.
fn disabled_by(version: &str) -> String {
    let number = |part: Option<&str>| part.and_then(|part| part.parse::<u32>().ok()).unwrap_or(0);
    let mut parts = version.split(['.', '-']);
    let version_numbers = (number(parts.next()), number(parts.next()));
    let option = match version_numbers {
        (8.., _) => "block-rpcs, or left out of allow-rpcs,",
        (7, 2..) => "block-rpcs",
        _ => "blacklist",
    };
    format!(
        "agent {version} has it disabled, by {option} in the guest's qemu-ga.conf or on the agent's command line \
         (BLACKLIST_RPC or FILTER_RPC_ARGS in /etc/sysconfig/qemu-ga)"
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use atp_transport::{Effect, ErrorKind, HostId, LibvirtError, TransportError};

    use super::*;
    use crate::peer::Peer;
    use crate::script::{Script, Step};
    use atp_api::RawCommand;

    const INFO: &str = r#"{"return": {"version": "7.2.0", "supported_commands": [
        {"name": "guest-get-time", "enabled": true, "success-response": true},
        {"name": "guest-fsfreeze-status", "enabled": true, "success-response": true},
        {"name": "guest-exec", "enabled": false, "success-response": true}]}}"#;
    const DONE: &str = r#"{"return": {}}"#;
    const FROZEN: &str = r#"{"return": "frozen"}"#;
    const THAWED: &str = r#"{"return": "thawed"}"#;
    const DISABLED: &str = r#"{"error": {"class": "CommandNotFound",
        "desc": "Command guest-exec has been disabled"}}"#;
    const DISABLED_BY_AN_OLD_AGENT: &str = r#"{"error": {"class": "GenericError",
        "desc": "The command guest-exec has been disabled for this instance"}}"#;
    const UNKNOWN: &str = r#"{"error": {"class": "CommandNotFound",
        "desc": "The command guest-get-tmie has not been found"}}"#;

    struct Case {
        script: Script,
        cache: CapabilityCache<&'static str>,
    }

    impl Case {
        fn new<R: Into<Step>>(replies: impl IntoIterator<Item = R>) -> Self {
            Case { script: Script::new(replies), cache: CapabilityCache::new() }
        }

        async fn send(&self, command: &str) -> Result<serde_json::Value> {
            let command = RawCommand::from_words([command]).unwrap();
            let deadline = Instant::now() + Duration::from_secs(5);
            match agent::execute_raw(&self.script, &command, deadline).await {
                Ok(answer) => Ok(answer),
                Err(error) => Err(self.cache.explain(&"vm", &self.script, error, deadline).await),
            }
        }

        fn sent(&self) -> Vec<String> {
            let sent = self.script.sent().into_iter();
            sent.map(|(_, command)| command["execute"].as_str().unwrap().to_owned()).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_supported_command_costs_no_other_command() {
        let case = Case::new([DONE]);
        case.send("guest-get-time").await.unwrap();
        assert_eq!(case.sent(), ["guest-get-time"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disabled_command_names_the_setting_and_asks_the_agent_once() {
        let case = Case::new([DISABLED, INFO, DISABLED, DONE]);
        for _ in 0..2 {
            let error = case.send("guest-exec").await.unwrap_err();
            assert_eq!((error.kind().as_str(), error.effect()), ("agent-command-disabled", Effect::None));
            assert!(error.to_string().contains("7.2.0 has it disabled, by block-rpcs"), "{error}");
        }
        // The command has been enabled since: the cached answer does not prevent the attempt.
        case.send("guest-exec").await.unwrap();
        assert_eq!(case.sent(), ["guest-exec", "guest-info", "guest-exec", "guest-exec"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_that_is_the_cause_of_another_error_is_explained() {
        let case = Case::new([INFO]);
        let refusal =
            Refusal::new(Peer::Agent, "guest-exec", None, "Command guest-exec has been disabled: no", None);
        let source = Box::new(ProtocolError::Refused(Box::new(refusal)));
        let lost = ProtocolError::ResultLost { program: "p".into(), pid: 1, source };
        let soon = Instant::now() + Duration::from_secs(5);
        let error = case.cache.explain(&"vm", &case.script, lost, soon).await;
        assert!(error.refusal().unwrap().desc.contains("by block-rpcs"), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_command_is_reported_with_the_nearest_known_one() {
        let case = Case::new([UNKNOWN, INFO]);
        let error = case.send("guest-get-tmie").await.unwrap_err();
        assert_eq!(error.kind(), "agent-command-unknown");
        assert!(error.to_string().contains("agent 7.2.0 does not have it, but guest-get-time"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_contradicts_its_refusal_is_asked_again_and_its_message_is_kept() {
        let refused = DISABLED.replace("guest-exec", "guest-get-time");
        let case = Case::new([refused.as_str(), INFO, refused.as_str(), INFO]);
        for _ in 0..2 {
            let error = case.send("guest-get-time").await.unwrap_err();
            assert!(error.to_string().ends_with("Command guest-get-time has been disabled"), "{error}");
        }
        assert_eq!(case.sent().len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_agent_is_asked_whether_the_guest_is_frozen() {
        for (status, kind) in [(FROZEN, "guest-frozen"), (THAWED, "agent-command-disabled")] {
            let case = Case::new([DISABLED_BY_AN_OLD_AGENT, INFO, status]);
            assert_eq!(case.send("guest-exec").await.unwrap_err().kind(), kind);
            assert_eq!(case.sent(), ["guest-exec", "guest-info", "guest-fsfreeze-status"]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_stays_as_it_is_if_the_agent_does_not_explain_it_by_the_deadline() {
        let case = Case::new([Step::from(DISABLED), Step::late(Duration::from_secs(60), INFO)]);
        let error = case.send("guest-exec").await.unwrap_err();
        assert_eq!(error.kind(), "agent-command-disabled");
        assert!(error.to_string().ends_with("Command guest-exec has been disabled"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_is_gone_is_forgotten() {
        let libvirt = LibvirtError { code: 86, domain: 20, level: 2, message: "gone".into() };
        for kind in [
            ErrorKind::AgentGone,
            ErrorKind::AgentNotConnected,
            ErrorKind::VmNotRunning,
            ErrorKind::ConnectionLost,
        ] {
            let host: HostId = "h1".parse().unwrap();
            let gone: ProtocolError =
                TransportError::Libvirt { host, operation: "x", kind, source: libvirt.clone() }.into();
            let case = Case::new([DISABLED.into(), INFO.into(), gone.into()] as [Step; 3]);
            case.send("guest-exec").await.unwrap_err();
            assert_eq!(case.cache.get(&"vm").unwrap().support("guest-exec"), Support::Disabled);
            assert_eq!(case.send("guest-get-time").await.unwrap_err().kind(), kind.as_str());
            assert_eq!(case.cache.get(&"vm"), None);
        }
    }

    #[test]
    fn the_settings_have_the_names_that_the_agents_version_uses() {
        for (version, word) in [
            ("2.12.0", "blacklist"),
            ("7.1.90", "blacklist"),
            ("7.2.19", "block-rpcs"),
            ("9.0", "allow-rpcs"),
            ("?", "blacklist"),
        ] {
            assert!(disabled_by(version).contains(word), "{version}");
        }
    }
}
