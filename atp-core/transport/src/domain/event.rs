//! What happens to domains, as libvirt reports it.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use strum::{Display, IntoStaticStr};
use uuid::Uuid;

/// Something that happened to a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainEvent {
    /// The domain's name.
    #[serde(rename = "vm")]
    pub name: String,
    /// The domain's identity.
    pub uuid: Uuid,
    /// What happened.
    #[serde(flatten)]
    pub kind: DomainEventKind,
}

/// What happened to a domain (`virDomainEventID`). Details are libvirt's own words for its numbers, in kebab
/// case; `unknown` for those this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DomainEventKind {
    /// The domain's state changed.
    Lifecycle {
        /// To what.
        change: LifecycleChange,
        /// Why: `booted`, `destroyed`, `paused`, `io-error`, …
        detail: Cow<'static, str>,
    },
    /// The guest restarted; the domain went on running.
    Reboot,
    /// A process in the guest, the agent, opened or closed the agent's channel.
    Agent {
        /// Whether it is connected now.
        connected: bool,
        /// Why: `domain-started` or `channel`.
        reason: Cow<'static, str>,
    },
    /// A job on a disk ended or became ready.
    BlockJob {
        /// The disk, by its target name (`vda`) or its image's path.
        disk: String,
        /// The job: `pull`, `copy`, `commit`, `active-commit`, `backup`.
        job: Cow<'static, str>,
        /// What became of it: `completed`, `failed`, `canceled`, `ready`.
        status: Cow<'static, str>,
    },
    /// A device was added to the running domain.
    DeviceAdded {
        /// The device's alias.
        device: String,
    },
    /// A device was removed from the running domain.
    DeviceRemoved {
        /// The device's alias.
        device: String,
    },
    /// The guest refused to let a device go.
    DeviceRemovalFailed {
        /// The device's alias.
        device: String,
    },
    /// The guest's watchdog fired.
    Watchdog {
        /// What was done about it: `none`, `pause`, `reset`, `poweroff`, `shutdown`, `debug`, `inject-nmi`.
        action: Cow<'static, str>,
    },
    /// Reading or writing a disk image failed on the host.
    IoError {
        /// The image.
        path: String,
        /// The device's alias.
        device: String,
        /// What was done about it: `none`, `pause`, `report`.
        action: Cow<'static, str>,
        /// Why, where the hypervisor says: `enospc`.
        reason: String,
    },
    /// An event of QEMU's monitor, as QEMU sent it (`virConnectDomainQemuMonitorEventRegister`).
    Monitor {
        /// The event's name, such as `RTC_CHANGE`.
        name: String,
        /// Its data, as JSON.
        details: Option<String>,
    },
}

/// A change of a domain's state (`virDomainEventType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Display, IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum LifecycleChange {
    /// The host has a definition of it, or a new one.
    Defined,
    /// The host has no definition of it any more.
    Undefined,
    /// It runs, or is about to.
    Started,
    /// Its vCPUs were stopped.
    Suspended,
    /// Its vCPUs run on.
    Resumed,
    /// It is off.
    Stopped,
    /// The guest has shut down; `stopped` follows.
    Shutdown,
    /// The guest suspended itself.
    PmSuspended,
    /// The guest crashed.
    Crashed,
    /// A change this version does not know.
    #[serde(other)]
    Unknown,
}

impl LifecycleChange {
    /// The word.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for DomainEventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DomainEventKind::Lifecycle { change, detail } => write!(f, "{change} ({detail})"),
            DomainEventKind::Reboot => f.write_str("reboot"),
            DomainEventKind::Agent { connected: true, reason } => write!(f, "agent connected ({reason})"),
            DomainEventKind::Agent { connected: false, reason } => {
                write!(f, "agent disconnected ({reason})")
            }
            DomainEventKind::BlockJob { disk, job, status } => {
                write!(f, "block job {job} on {disk}: {status}")
            }
            DomainEventKind::DeviceAdded { device } => write!(f, "device added: {device}"),
            DomainEventKind::DeviceRemoved { device } => write!(f, "device removed: {device}"),
            DomainEventKind::DeviceRemovalFailed { device } => write!(f, "device not removed: {device}"),
            DomainEventKind::Watchdog { action } => write!(f, "watchdog fired: {action}"),
            DomainEventKind::IoError { path, device, action, reason } => {
                write!(f, "I/O error on {device} ({path}): {action}")?;
                if reason.is_empty() { Ok(()) } else { write!(f, ", {reason}") }
            }
            DomainEventKind::Monitor { name, details } => {
                write!(f, "QEMU {name} {}", details.as_deref().unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_one_flat_object() {
        let event = DomainEvent {
            name: "web-1".into(),
            uuid: Uuid::nil(),
            kind: DomainEventKind::Lifecycle {
                change: LifecycleChange::PmSuspended,
                detail: "memory".into(),
            },
        };
        let expected = json!({
            "vm": "web-1", "uuid": "00000000-0000-0000-0000-000000000000",
            "event": "lifecycle", "change": "pm-suspended", "detail": "memory",
        });
        assert_eq!(serde_json::to_value(&event).unwrap(), expected);
        assert_eq!(serde_json::from_value::<DomainEvent>(expected).unwrap(), event);
        assert_eq!(event.kind.to_string(), "pm-suspended (memory)");
    }
}
