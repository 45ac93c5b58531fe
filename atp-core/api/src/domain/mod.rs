//! What libvirt says about a domain (a virtual machine).

mod graphics;
mod snapshot;
mod state_reason;
mod version;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr};
use uuid::Uuid;

pub use graphics::{Graphics, GraphicsKind, Listener};
pub use snapshot::{AfterRevert, Snapshot};
pub use state_reason::StateReason;
pub use version::{Hypervisor, InvalidVersion, Version};

/// The state of a domain, worded as `virsh list` words it.
///
/// A word that this version does not know is read as [`NoState`](Self::NoState).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, Display, IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum DomainState {
    /// Running.
    Running,
    /// Active, but blocked on a resource (Xen only; still counts as running).
    #[serde(rename = "idle")]
    #[strum(serialize = "idle")]
    Blocked,
    /// Paused: vCPUs do not run.
    Paused,
    /// Asked to shut down and on its way.
    #[serde(rename = "in shutdown")]
    #[strum(serialize = "in shutdown")]
    ShuttingDown,
    /// Defined but not running.
    #[serde(rename = "shut off")]
    #[strum(serialize = "shut off")]
    ShutOff,
    /// Crashed and not restarted.
    Crashed,
    /// Suspended by the guest's own power management.
    PmSuspended,
    /// The domain has no state, or one this version does not know.
    #[serde(rename = "no state", other)]
    #[strum(serialize = "no state")]
    NoState,
}

impl DomainState {
    /// The state of libvirt's number for it (`virDomainState`).
    pub fn from_number(number: u32) -> Self {
        match number {
            1 => DomainState::Running,
            2 => DomainState::Blocked,
            3 => DomainState::Paused,
            4 => DomainState::ShuttingDown,
            5 => DomainState::ShutOff,
            6 => DomainState::Crashed,
            7 => DomainState::PmSuspended,
            _ => DomainState::NoState,
        }
    }

    /// The words `virsh list` uses.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The states that can be waited for or asserted, by their words: those of `as_str` without spaces.
    pub const AWAITED: [(&'static str, DomainState); 5] = [
        ("running", DomainState::Running),
        ("shut-off", DomainState::ShutOff),
        ("paused", DomainState::Paused),
        ("crashed", DomainState::Crashed),
        ("pmsuspended", DomainState::PmSuspended),
    ];

    /// Whether its vCPUs run.
    pub fn is_running(self) -> bool {
        // A blocked domain waits for a resource; it runs all the same.
        matches!(self, DomainState::Running | DomainState::Blocked)
    }

    /// Whether a QEMU process (or its like) exists for the domain: running, paused, or kept after a crash.
    pub fn is_active(self) -> bool {
        !matches!(self, DomainState::ShutOff | DomainState::NoState)
    }
}

/// A domain in a listing of its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DomainInfo {
    /// The name, unique on its host. May hold any character but `/` and line feed.
    pub name: String,
    /// The identity of the domain; stays when it is renamed.
    pub uuid: Uuid,
    /// libvirt's number for the running domain; none when it is not active.
    pub id: Option<u32>,
    /// The state at the time of the call.
    pub state: DomainState,
    /// Why it is in that state; none where libvirt gives no reason, or was not asked: for one running domain it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<StateReason>,
    /// Virtual CPUs; none where only the state was asked for.
    pub vcpus: Option<u32>,
    /// Memory in use by the guest, KiB; none where only the state was asked for.
    pub memory_kib: Option<u64>,
    /// The most memory the guest may get, KiB; none where only the state was asked for.
    pub max_memory_kib: Option<u64>,
    /// Who has reserved it, if it is reserved and reservations were asked for. No host knows of this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_by: Option<String>,
    /// Until when it is reserved, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_until_ms: Option<u64>,
}

impl DomainInfo {
    /// A domain of which only the state is known.
    pub fn new(name: impl Into<String>, uuid: Uuid, state: DomainState) -> Self {
        DomainInfo {
            name: name.into(),
            uuid,
            id: None,
            state,
            reason: None,
            vcpus: None,
            memory_kib: None,
            max_memory_kib: None,
            reserved_by: None,
            reserved_until_ms: None,
        }
    }
}

/// What more is known of one domain, from its definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DomainDetails {
    /// What a listing says of it.
    #[serde(flatten)]
    pub info: DomainInfo,
    /// Whether the host keeps a definition of it when it is shut off; unknown if the host did not tell.
    pub persistent: Option<bool>,
    /// Whether it starts with the host; unknown where the driver cannot say.
    pub autostart: Option<bool>,
    /// The guest agent's channel, as the hypervisor sees it; unknown if the host did not tell the definition. The title and
    /// the graphics are missing then, too.
    pub agent: Option<AgentChannel>,
    /// The title in the definition, if any.
    pub title: Option<String>,
    /// Where its screen can be looked at over the network.
    pub graphics: Vec<Graphics>,
}

/// The state of the virtio-serial channel the guest agent listens on (`org.qemu.guest_agent.0`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AgentChannel {
    /// The domain has no such channel: no agent can ever answer.
    NotConfigured,
    /// The channel is there and nothing in the guest has opened it.
    Disconnected,
    /// A process in the guest, the agent, has the channel open.
    Connected,
}

/// A change of a domain's state that can be asked for.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumString,
    IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Lifecycle {
    /// Boot a domain that is shut off (`virDomainCreate`).
    Start,
    /// Ask the guest to power off (`virDomainShutdown`).
    Shutdown,
    /// Ask the guest to restart (`virDomainReboot`).
    Reboot,
    /// Press the reset button (`virDomainReset`).
    Reset,
    /// Pull the plug (`virDomainDestroy`).
    Destroy,
    /// Stop the vCPUs (`virDomainSuspend`).
    Suspend,
    /// Let suspended vCPUs run on (`virDomainResume`).
    Resume,
    /// Wake a guest that its own power management suspended (`virDomainPMWakeup`).
    Wakeup,
    /// Write the memory to a file of the host, and power off (`virDomainManagedSave`).
    Save,
    /// Go on from the memory that was saved (`virDomainCreate`).
    Restore,
}

impl Lifecycle {
    /// The function of libvirt that does it.
    pub const fn function(self) -> &'static str {
        match self {
            Lifecycle::Start | Lifecycle::Restore => "virDomainCreate",
            Lifecycle::Shutdown => "virDomainShutdown",
            Lifecycle::Reboot => "virDomainReboot",
            Lifecycle::Reset => "virDomainReset",
            Lifecycle::Destroy => "virDomainDestroy",
            Lifecycle::Suspend => "virDomainSuspend",
            Lifecycle::Resume => "virDomainResume",
            Lifecycle::Wakeup => "virDomainPMWakeup",
            Lifecycle::Save => "virDomainManagedSave",
        }
    }

    /// The verb, as the command line has it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
