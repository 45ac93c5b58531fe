//! What a guest's agent can do: asked once, kept, and used before a command is sent.
//!
//! Which commands an agent has depends on its version, on how it was built and on what the guest's configuration
//! forbids. `guest-info` tells. [`CheckedCarrier`] asks it once for each VM and refuses what the agent would refuse,
//! with the names of the settings that may be behind it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qapi::qga::{GuestAgentInfo, GuestFsfreezeStatus, guest_fsfreeze_status, guest_info};
use serde::Deserialize;
use tokio::time::Instant;

use crate::agent;
use crate::carrier::{Carrier, Channel};
use crate::error::{ProtocolError, Result};
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

    /// The commands that are enabled, in no particular order.
    pub fn enabled(&self) -> impl Iterator<Item = &str> {
        self.commands.iter().filter(|(_, enabled)| **enabled).map(|(name, _)| name.as_str())
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
/// An entry is good for as long as the agent runs: [`forget`](Self::forget) it when the agent disconnects or the VM
/// starts anew. An entry that is out of date does no harm: what it allows the agent may still refuse, and before it
/// refuses anything the agent is asked again.
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
        self.known().get(vm).cloned()
    }

    /// Forgets what is known of a VM's agent.
    pub fn forget(&self, vm: &K) {
        self.known().remove(vm);
    }

    fn learn(&self, vm: &K, capabilities: AgentCapabilities) -> Arc<AgentCapabilities> {
        let capabilities = Arc::new(capabilities);
        self.known().insert(vm.clone(), capabilities.clone());
        capabilities
    }

    fn known(&self) -> MutexGuard<'_, HashMap<K, Arc<AgentCapabilities>>> {
        // Nothing under this lock can panic half-way, so a poisoned one still guards sound data.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Default for CapabilityCache<K> {
    fn default() -> Self {
        CapabilityCache::new()
    }
}

/// A carrier that sends an agent no command it does not have. Monitor commands pass.
///
/// The first command to a VM costs a round trip more, in which its agent is asked what it has.
pub struct CheckedCarrier<'c, C, K> {
    carrier: &'c C,
    cache: &'c CapabilityCache<K>,
    vm: K,
}

impl<'c, C: Carrier, K: Eq + Hash + Clone + Send + Sync> CheckedCarrier<'c, C, K> {
    /// Checks commands to a VM by what the cache knows of its agent.
    pub fn new(carrier: &'c C, cache: &'c CapabilityCache<K>, vm: K) -> Self {
        CheckedCarrier { carrier, cache, vm }
    }

    /// Refuses a command the agent does not have, going by what it says now.
    async fn check(&self, command: &str, deadline: Instant) -> Result<()> {
        if let Some(known) = self.cache.get(&self.vm)
            && known.support(command) == Support::Enabled
        {
            return Ok(());
        }
        let now = AgentCapabilities::ask(self.carrier, deadline).await?;
        let (kind, desc) = match now.support(command) {
            Support::Enabled => {
                self.cache.learn(&self.vm, now);
                return Ok(());
            }
            // While the filesystems are frozen most commands are listed as disabled, which passes.
            Support::Disabled if self.is_frozen(&now, deadline).await => {
                let desc =
                    "the guest's filesystems are frozen, and the agent lists it as disabled".to_owned();
                (RefusalKind::GuestFrozen, desc)
            }
            Support::Disabled => {
                let desc = disabled_by(&now.version);
                self.cache.learn(&self.vm, now);
                (RefusalKind::CommandDisabled, desc)
            }
            Support::Unknown => {
                let desc = format!("agent {} does not have it", now.version);
                self.cache.learn(&self.vm, now);
                (RefusalKind::CommandUnknown, desc)
            }
        };
        Err(ProtocolError::Refused(Box::new(Refusal {
            channel: Channel::Agent,
            kind,
            command: command.to_owned(),
            class: None,
            desc,
            libvirt: None,
        })))
    }

    /// An agent that cannot tell has not frozen anything.
    async fn is_frozen(&self, agent: &AgentCapabilities, deadline: Instant) -> bool {
        agent.support("guest-fsfreeze-status") == Support::Enabled
            && agent::execute(self.carrier, &guest_fsfreeze_status {}, deadline)
                .await
                .is_ok_and(|status| status == GuestFsfreezeStatus::frozen)
    }
}

impl<C: Carrier, K: Eq + Hash + Clone + Send + Sync> Carrier for CheckedCarrier<'_, C, K> {
    async fn send(&self, channel: Channel, command: &str, deadline: Instant) -> Result<String> {
        if channel == Channel::Monitor {
            return self.carrier.send(channel, command, deadline).await;
        }
        let result = match name(command) {
            Some(name) if !is_always_there(&name) => match self.check(&name, deadline).await {
                Ok(()) => self.carrier.send(channel, command, deadline).await,
                Err(error) => Err(error),
            },
            _ => self.carrier.send(channel, command, deadline).await,
        };
        if let Err(error) = &result
            && error.is_agent_gone()
        {
            self.cache.forget(&self.vm);
        }
        result
    }

    fn command_max(&self, channel: Channel) -> usize {
        self.carrier.command_max(channel)
    }
}

/// The commands by which an agent is found out about, which no configuration forbids with sense.
fn is_always_there(command: &str) -> bool {
    matches!(command, "guest-info" | "guest-ping" | "guest-sync" | "guest-sync-delimited")
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

/// The name of a command, of any text.
fn name(command: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        execute: String,
    }
    serde_json::from_str::<Named>(command).ok().map(|command| command.execute)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use atp_transport::{ErrorKind, HostId, LibvirtError, TransportError};

    use super::*;
    use crate::command::RawCommand;
    use crate::script::{Script, Step};

    const INFO: &str = r#"{"return": {"version": "7.2.0", "supported_commands": [
        {"name": "guest-get-time", "enabled": true, "success-response": true},
        {"name": "guest-fsfreeze-status", "enabled": true, "success-response": true},
        {"name": "guest-exec", "enabled": false, "success-response": true}]}}"#;
    const DONE: &str = r#"{"return": {}}"#;
    const FROZEN: &str = r#"{"return": "frozen"}"#;
    const THAWED: &str = r#"{"return": "thawed"}"#;

    struct Story {
        script: Script,
        cache: CapabilityCache<&'static str>,
    }

    impl Story {
        fn new<R: Into<Step>>(replies: impl IntoIterator<Item = R>) -> Self {
            Story { script: Script::new(replies), cache: CapabilityCache::new() }
        }

        async fn send(&self, command: &str) -> Result<serde_json::Value> {
            let carrier = CheckedCarrier::new(&self.script, &self.cache, "vm");
            let deadline = Instant::now() + Duration::from_secs(5);
            agent::execute_raw(&carrier, &RawCommand::from_words([command]).unwrap(), deadline).await
        }

        fn sent(&self) -> Vec<String> {
            let sent = self.script.sent().into_iter();
            sent.map(|(_, command)| command["execute"].as_str().unwrap().to_owned()).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_agent_is_asked_once() {
        let story = Story::new([INFO, DONE]);
        for _ in 0..2 {
            story.send("guest-get-time").await.unwrap();
        }
        assert_eq!(story.sent(), ["guest-info", "guest-get-time", "guest-get-time"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disabled_command_is_not_sent_and_what_disabled_it_is_named() {
        let story = Story::new([INFO, THAWED, INFO, THAWED]);
        let error = story.send("guest-exec").await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), ("agent-command-disabled", atp_transport::Effect::None));
        assert!(error.to_string().contains("7.2.0 has it disabled, by block-rpcs"), "{error}");
        // It may have been enabled since.
        assert_eq!(story.send("guest-exec").await.unwrap_err().kind(), "agent-command-disabled");
        let once = ["guest-info", "guest-fsfreeze-status"];
        assert_eq!(story.sent(), [once, once].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_command_is_not_sent() {
        let story = Story::new([INFO]);
        let error = story.send("guest-nope").await.unwrap_err();
        assert_eq!(error.kind(), "agent-command-unknown");
        assert_eq!(story.sent(), ["guest-info"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_disabled_while_the_guest_is_frozen_is_not_remembered_as_disabled() {
        let story = Story::new([INFO, FROZEN]);
        assert_eq!(story.send("guest-exec").await.unwrap_err().kind(), "guest-frozen");
        assert_eq!(story.cache.get(&"vm"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_was_gone_is_asked_again() {
        let libvirt = LibvirtError { code: 86, domain: 20, level: 2, message: "gone".into() };
        for kind in [ErrorKind::AgentGone, ErrorKind::AgentNotConnected, ErrorKind::VmNotRunning] {
            let host: HostId = "h1".parse().unwrap();
            let gone: ProtocolError =
                TransportError::Libvirt { host, operation: "x", kind, source: libvirt.clone() }.into();
            let story = Story::new([INFO.into(), gone.into(), INFO.into(), DONE.into()] as [Step; 4]);
            assert_eq!(story.send("guest-get-time").await.unwrap_err().kind(), kind.as_str());
            assert_eq!(story.cache.get(&"vm"), None);
            story.send("guest-get-time").await.unwrap();
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

    #[tokio::test(start_paused = true)]
    async fn monitor_commands_and_those_by_which_it_is_found_out_about_pass() {
        let story = Story::new([DONE]);
        story.send("guest-ping").await.unwrap();
        let carrier = CheckedCarrier::new(&story.script, &story.cache, "vm");
        let deadline = Instant::now() + Duration::from_secs(5);
        carrier.send(Channel::Monitor, r#"{"execute":"stop"}"#, deadline).await.unwrap();
        assert_eq!(story.sent(), ["guest-ping", "stop"]);
    }
}
