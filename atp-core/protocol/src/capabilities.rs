//! What a guest's agent can do, and what is said when it cannot.
//!
//! Which commands an agent has depends on its version, on how it was built and on what the guest's configuration
//! forbids. A command is sent without asking first: a question would cost each short command a round trip more, and its
//! answer may be out of date, while the agent's own refusal is neither. Once an agent has refused a command it is asked
//! what it is and has (`guest-info`), so that the refusal can name what may be behind it. The answer is kept for
//! as long as the agent runs.

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

/// What one agent says of itself (`guest-info`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentCapabilities {
    /// Its version, such as `7.2.0`.
    pub version: String,
    /// Its commands, and whether each is enabled.
    commands: HashMap<String, bool>,
}

/// How an agent stands to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It has it.
    Enabled,
    /// It has it, and the guest's configuration forbids it; or the guest's filesystems are frozen.
    Disabled,
    /// It is too old for it, or was built without it.
    Unknown,
}

impl AgentCapabilities {
    /// Asks an agent.
    ///
    /// # Errors
    /// As any command's.
    ///
    /// Dropping the future gives up the wait, not the command.
    pub async fn ask(carrier: &impl Carrier, deadline: Instant) -> Result<Self> {
        Ok(agent::execute(carrier, &guest_info {}, deadline).await?.into())
    }

    /// How the agent stands to a command.
    pub fn support(&self, command: &str) -> Support {
        match self.commands.get(command) {
            Some(true) => Support::Enabled,
            Some(false) => Support::Disabled,
            None => Support::Unknown,
        }
    }

    /// Why it does not have a command that it has refused.
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

/// What the agents of many VMs can do, by whatever key tells VMs apart.
///
/// Only agents that have refused a command are in it. An entry is good for as long as the agent runs:
/// [`forget`](Self::forget) it when the agent connects anew. One that is out of date does no harm beyond naming an old
/// version: it refuses nothing, and where it says that the agent has what the agent has just refused, the agent is
/// asked again.
#[derive(Debug)]
pub struct CapabilityCache<K> {
    known: Mutex<HashMap<K, Arc<AgentCapabilities>>>,
}

impl<K: Eq + Hash + Clone> CapabilityCache<K> {
    /// A cache that knows nothing.
    pub fn new() -> Self {
        CapabilityCache { known: Mutex::default() }
    }

    /// What is known of a VM's agent.
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

    /// Has the failure of some work with a VM's agent say what is behind it: where the agent refused a command that it
    /// does not have, its version and the settings that may have disabled it. That takes a question to the agent, or
    /// none if it is known already; if it is not answered by `deadline`, the failure stays as it is. So does any other.
    ///
    /// Forgets what is known of an agent that [is gone](ProtocolError::is_agent_gone).
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
            self.put_into_words(vm, carrier, refusal, deadline).await;
        }
        error
    }

    async fn put_into_words(&self, vm: &K, carrier: &impl Carrier, refusal: &mut Refusal, deadline: Instant) {
        let Some(agent) = self.refusing(vm, carrier, &refusal.command, deadline).await else { return };
        (refusal.kind, refusal.desc) = match agent.support(&refusal.command) {
            Support::Enabled => return,
            Support::Unknown => (RefusalKind::CommandUnknown, agent.without(&refusal.command)),
            Support::Disabled
                if !tells_of_freeze(refusal) && frozen(carrier, deadline).await.unwrap_or(false) =>
            {
                let desc = "the guest's filesystems are frozen, and the agent has it disabled meanwhile";
                (RefusalKind::GuestFrozen, desc.to_owned())
            }
            Support::Disabled => (RefusalKind::CommandDisabled, disabled_by(&agent.version)),
        };
    }

    /// What is known of an agent that has refused a command, or else what it says now.
    async fn refusing(
        &self,
        vm: &K,
        carrier: &impl Carrier,
        command: &str,
        deadline: Instant,
    ) -> Option<Arc<AgentCapabilities>> {
        // One that is thought to have the command is not the one that refused it.
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

/// Whether an agent says so when it has the command disabled for a freeze only, which passes: `Command NAME has been
/// disabled: the agent is in frozen state`. Older ones say `The command NAME has been disabled for this instance` always.
fn tells_of_freeze(refusal: &Refusal) -> bool {
    refusal.desc.starts_with("Command ")
}

/// The settings that forbid commands had other names in older agents, and others again in some distributions.
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
    use crate::command::RawCommand;
    use crate::peer::Peer;
    use crate::script::{Script, Step};

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

    struct Story {
        script: Script,
        cache: CapabilityCache<&'static str>,
    }

    impl Story {
        fn new<R: Into<Step>>(replies: impl IntoIterator<Item = R>) -> Self {
            Story { script: Script::new(replies), cache: CapabilityCache::new() }
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
    async fn an_agent_that_has_a_command_is_asked_nothing_else() {
        let story = Story::new([DONE]);
        story.send("guest-get-time").await.unwrap();
        assert_eq!(story.sent(), ["guest-get-time"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_disabled_a_command_is_named_and_asked_for_once() {
        let story = Story::new([DISABLED, INFO, DISABLED, DONE]);
        for _ in 0..2 {
            let error = story.send("guest-exec").await.unwrap_err();
            assert_eq!((error.kind().as_str(), error.effect()), ("agent-command-disabled", Effect::None));
            assert!(error.to_string().contains("7.2.0 has it disabled, by block-rpcs"), "{error}");
        }
        // It has been enabled since: what was known keeps nobody from trying.
        story.send("guest-exec").await.unwrap();
        assert_eq!(story.sent(), ["guest-exec", "guest-info", "guest-exec", "guest-exec"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_underneath_another_failure_is_explained_as_well() {
        let story = Story::new([INFO]);
        let refusal =
            Refusal::new(Peer::Agent, "guest-exec", None, "Command guest-exec has been disabled: no", None);
        let source = Box::new(ProtocolError::Refused(Box::new(refusal)));
        let lost = ProtocolError::ResultLost { program: "p".into(), pid: 1, source };
        let soon = Instant::now() + Duration::from_secs(5);
        let error = story.cache.explain(&"vm", &story.script, lost, soon).await;
        assert!(error.refusal().unwrap().desc.contains("by block-rpcs"), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_an_agent_does_not_have_is_told_with_one_that_it_has() {
        let story = Story::new([UNKNOWN, INFO]);
        let error = story.send("guest-get-tmie").await.unwrap_err();
        assert_eq!(error.kind(), "agent-command-unknown");
        assert!(error.to_string().contains("agent 7.2.0 does not have it, but guest-get-time"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_thinks_it_has_the_command_is_asked_again_and_then_left_its_words() {
        let refused = DISABLED.replace("guest-exec", "guest-get-time");
        let story = Story::new([refused.as_str(), INFO, refused.as_str(), INFO]);
        for _ in 0..2 {
            let error = story.send("guest-get-time").await.unwrap_err();
            assert!(error.to_string().ends_with("Command guest-get-time has been disabled"), "{error}");
        }
        assert_eq!(story.sent().len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_agent_is_asked_whether_it_is_for_a_freeze() {
        for (status, kind) in [(FROZEN, "guest-frozen"), (THAWED, "agent-command-disabled")] {
            let story = Story::new([DISABLED_BY_AN_OLD_AGENT, INFO, status]);
            assert_eq!(story.send("guest-exec").await.unwrap_err().kind(), kind);
            assert_eq!(story.sent(), ["guest-exec", "guest-info", "guest-fsfreeze-status"]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_explains_nothing_by_the_deadline_has_refused_all_the_same() {
        let story = Story::new([Step::from(DISABLED), Step::late(Duration::from_secs(60), INFO)]);
        let error = story.send("guest-exec").await.unwrap_err();
        assert_eq!(error.kind(), "agent-command-disabled");
        assert!(error.to_string().ends_with("Command guest-exec has been disabled"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_of_an_agent_is_forgotten_with_it() {
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
            let story = Story::new([DISABLED.into(), INFO.into(), gone.into()] as [Step; 3]);
            story.send("guest-exec").await.unwrap_err();
            assert_eq!(story.cache.get(&"vm").unwrap().support("guest-exec"), Support::Disabled);
            assert_eq!(story.send("guest-get-time").await.unwrap_err().kind(), kind.as_str());
            assert_eq!(story.cache.get(&"vm"), None);
        }
    }

    #[test]
    fn the_settings_are_named_as_the_agents_version_names_them() {
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
