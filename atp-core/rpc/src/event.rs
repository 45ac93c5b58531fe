//! What happens to domains, as the daemon reports it.

use crate::message::RemoteDomain;
use crate::numbers::Program;
use crate::xdr::{FromXdr, Reader, Result, XdrError};

/// What can be [watched](crate::Connection::watch) (`virDomainEventID`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventId {
    /// [`EventKind::Lifecycle`].
    Lifecycle,
    /// [`EventKind::Reboot`].
    Reboot,
    /// [`EventKind::Watchdog`].
    Watchdog,
    /// [`EventKind::IoError`].
    IoErrorReason,
    /// [`EventKind::ControlError`].
    ControlError,
    /// [`EventKind::DeviceRemoved`].
    DeviceRemoved,
    /// [`EventKind::BlockJob`].
    BlockJob2,
    /// [`EventKind::Agent`].
    AgentLifecycle,
    /// [`EventKind::DeviceAdded`].
    DeviceAdded,
    /// [`EventKind::DeviceRemovalFailed`].
    DeviceRemovalFailed,
    /// [`EventKind::MetadataChange`].
    MetadataChange,
}

impl EventId {
    /// All of them.
    pub const ALL: [EventId; 11] = [
        EventId::Lifecycle,
        EventId::Reboot,
        EventId::Watchdog,
        EventId::IoErrorReason,
        EventId::ControlError,
        EventId::DeviceRemoved,
        EventId::BlockJob2,
        EventId::AgentLifecycle,
        EventId::DeviceAdded,
        EventId::DeviceRemovalFailed,
        EventId::MetadataChange,
    ];

    /// Its number for the wire.
    pub fn to_wire(self) -> i32 {
        match self {
            EventId::Lifecycle => 0,
            EventId::Reboot => 1,
            EventId::Watchdog => 3,
            EventId::IoErrorReason => 6,
            EventId::ControlError => 7,
            EventId::DeviceRemoved => 15,
            EventId::BlockJob2 => 16,
            EventId::AgentLifecycle => 18,
            EventId::DeviceAdded => 19,
            EventId::DeviceRemovalFailed => 22,
            EventId::MetadataChange => 23,
        }
    }
}

/// Something that happened to a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainEvent {
    /// The domain, as it was then.
    pub domain: RemoteDomain,
    /// What happened.
    pub kind: EventKind,
}

/// What happened. Numbers are libvirt's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// The state or the definition changed.
    Lifecycle {
        /// To what (`virDomainEventType`): 0 defined, 1 undefined, 2 started, 3 suspended, 4 resumed, 5 stopped,
        /// 6 shutdown, 7 suspended by its power management, 8 crashed.
        event: i32,
        /// Why: its meaning depends on `event`.
        detail: i32,
    },
    /// The guest rebooted.
    Reboot,
    /// The watchdog fired.
    Watchdog {
        /// What was done (`virDomainEventWatchdogAction`).
        action: i32,
    },
    /// Reading or writing a disk failed.
    IoError {
        /// The file or device behind the disk.
        path: String,
        /// The disk.
        device: String,
        /// What was done (`virDomainEventIOErrorAction`).
        action: i32,
        /// Why it failed, if known: `enospc`.
        reason: String,
    },
    /// The monitor is lost.
    ControlError,
    /// A job on a disk ended, or is ready.
    BlockJob {
        /// The disk.
        disk: String,
        /// The kind of job (`virDomainBlockJobType`).
        job: i32,
        /// What became of it (`virConnectDomainEventBlockJobStatus`).
        status: i32,
    },
    /// The guest agent connected or disconnected.
    Agent {
        /// `virConnectDomainEventAgentLifecycleState`: 1 connected, 2 disconnected.
        state: i32,
        /// `virConnectDomainEventAgentLifecycleReason`: 1 the domain started, 2 the channel.
        reason: i32,
    },
    /// A device was added.
    DeviceAdded {
        /// Its alias.
        device: String,
    },
    /// A device was removed.
    DeviceRemoved {
        /// Its alias.
        device: String,
    },
    /// The guest refused to give a device up.
    DeviceRemovalFailed {
        /// Its alias.
        device: String,
    },
    /// The domain's metadata changed.
    MetadataChange {
        /// Which (`virDomainMetadataType`): 0 description, 1 title, 2 element.
        kind: i32,
        /// The namespace of an element.
        namespace: Option<String>,
    },
    /// An event of QEMU's monitor, as QEMU sent it.
    Monitor {
        /// Its name: `RTC_CHANGE`.
        name: String,
        /// Seconds since 1970.
        seconds: i64,
        /// Microseconds.
        micros: u32,
        /// Its data, JSON.
        details: Option<String>,
    },
}

impl DomainEvent {
    /// Reads a message. Before the event stands the number of the registration.
    pub(crate) fn decode(program: Program, procedure: i32, payload: &[u8]) -> Result<Self> {
        let mut from = Reader::new(payload);
        let (_registration, domain) = <(i32, RemoteDomain)>::read(&mut from)?;
        let kind = read_kind(program, procedure, &mut from)?;
        from.finish()?;
        Ok(DomainEvent { domain, kind })
    }
}

fn read_kind(program: Program, procedure: i32, from: &mut Reader<'_>) -> Result<EventKind> {
    let device = |from: &mut Reader<'_>| String::read(from);
    Ok(match (program, procedure) {
        (Program::REMOTE, 318) => {
            let (event, detail) = FromXdr::read(from)?;
            EventKind::Lifecycle { event, detail }
        }
        (Program::REMOTE, 319) => EventKind::Reboot,
        (Program::REMOTE, 321) => EventKind::Watchdog { action: i32::read(from)? },
        (Program::REMOTE, 324) => {
            let (path, device, action, reason) = FromXdr::read(from)?;
            EventKind::IoError { path, device, action, reason }
        }
        (Program::REMOTE, 325) => EventKind::ControlError,
        (Program::REMOTE, 333) => EventKind::DeviceRemoved { device: device(from)? },
        (Program::REMOTE, 339) => {
            let (disk, job, status) = FromXdr::read(from)?;
            EventKind::BlockJob { disk, job, status }
        }
        (Program::REMOTE, 348) => {
            let (state, reason) = FromXdr::read(from)?;
            EventKind::Agent { state, reason }
        }
        (Program::REMOTE, 354) => EventKind::DeviceAdded { device: device(from)? },
        (Program::REMOTE, 367) => EventKind::DeviceRemovalFailed { device: device(from)? },
        (Program::REMOTE, 379) => {
            let (kind, namespace) = FromXdr::read(from)?;
            EventKind::MetadataChange { kind, namespace }
        }
        (Program::QEMU, 6) => {
            let (name, seconds, micros, details) = FromXdr::read(from)?;
            EventKind::Monitor { name, seconds, micros, details }
        }
        // Its numbers are positive.
        _ => return Err(XdrError::Unknown { what: "an event", value: procedure.cast_unsigned() }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xdr::encode;

    #[test]
    fn events_that_are_not_known_are_no_events() {
        let payload = encode(&(1, RemoteDomain::of(Default::default()))).unwrap();
        let unknown = DomainEvent::decode(Program::REMOTE, 9999, &payload);
        assert!(matches!(unknown, Err(XdrError::Unknown { value: 9999, .. })));
        assert_eq!(DomainEvent::decode(Program::REMOTE, 319, &payload).unwrap().kind, EventKind::Reboot);
        assert!(DomainEvent::decode(Program::REMOTE, 318, &payload).is_err());
    }
}
