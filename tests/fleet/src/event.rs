//! Events of VMs, and the messages by which a daemon sends them.

use std::borrow::Cow;

use atp_rpc::RemoteDomain;
use atp_rpc::numbers::Program;
use atp_rpc::xdr::{self, XdrError};
use bytes::BytesMut;
use uuid::Uuid;

/// Something that happened to a VM.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) domain: RemoteDomain,
    pub(crate) kind: EventKind,
    /// Since 1970.
    pub(crate) at: std::time::Duration,
}

/// What happened. Numbers are libvirt's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EventKind {
    Lifecycle { event: i32, detail: i32 },
    Reboot,
    Agent { state: i32, reason: i32 },
    Metadata { kind: i32, namespace: Option<String> },
    Monitor { name: Cow<'static, str>, data: Cow<'static, str> },
}

impl EventKind {
    pub(crate) const STARTED: EventKind = EventKind::Lifecycle { event: 2, detail: 0 };
    pub(crate) const SUSPENDED: EventKind = EventKind::Lifecycle { event: 3, detail: 0 };
    pub(crate) const RESUMED: EventKind = EventKind::Lifecycle { event: 4, detail: 0 };
    pub(crate) const SHUT_DOWN: EventKind = EventKind::Lifecycle { event: 5, detail: 0 };
    pub(crate) const MIGRATED: EventKind = EventKind::Lifecycle { event: 5, detail: 3 };
    pub(crate) const DESTROYED: EventKind = EventKind::Lifecycle { event: 5, detail: 1 };
    /// The guest has ended; QEMU has not yet.
    pub(crate) const SHUTDOWN: EventKind = EventKind::Lifecycle { event: 6, detail: 0 };
    pub(crate) const AGENT_CONNECTED: EventKind = EventKind::Agent { state: 1, reason: 2 };
    pub(crate) const AGENT_DISCONNECTED: EventKind = EventKind::Agent { state: 2, reason: 2 };

    /// An event of QEMU's monitor, with its data if there are any.
    pub(crate) const fn monitor(name: &'static str, data: &'static str) -> Self {
        EventKind::Monitor { name: Cow::Borrowed(name), data: Cow::Borrowed(data) }
    }
}

/// A client's registration for events.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) callback: i32,
    pub(crate) domain: Option<Uuid>,
    pub(crate) wanted: Wanted,
}

/// The kind of events that a client registered for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// `virDomainEventID`.
    Domain(i32),
    /// Of QEMU's monitor, of this name or of all.
    Monitor(Option<String>),
}

impl Registration {
    /// The message for an event, if the client registered for it: program, number and payload.
    pub(crate) fn message(&self, event: &Event) -> Option<Result<(Program, i32, BytesMut), XdrError>> {
        if self.domain.is_some_and(|domain| domain != event.domain.uuid) {
            return None;
        }
        let head = (self.callback, &event.domain);
        let (program, number, payload) = match (&event.kind, &self.wanted) {
            (EventKind::Lifecycle { event, detail }, Wanted::Domain(0)) => {
                (Program::REMOTE, 318, xdr::encode(&(head, *event, *detail)))
            }
            (EventKind::Reboot, Wanted::Domain(1)) => (Program::REMOTE, 319, xdr::encode(&head)),
            (EventKind::Agent { state, reason }, Wanted::Domain(18)) => {
                (Program::REMOTE, 348, xdr::encode(&(head, *state, *reason)))
            }
            (EventKind::Metadata { kind, namespace }, Wanted::Domain(23)) => {
                (Program::REMOTE, 379, xdr::encode(&(head, *kind, namespace.as_ref())))
            }
            (EventKind::Monitor { name, data }, Wanted::Monitor(wanted))
                if wanted.as_ref().is_none_or(|wanted| wanted == name) =>
            {
                let data = (!data.is_empty()).then_some(&**data);
                let (seconds, micros) = (event.at.as_secs().cast_signed(), event.at.subsec_micros());
                (Program::QEMU, 6, xdr::encode(&(head, &**name, seconds, micros, data)))
            }
            _ => return None,
        };
        Some(payload.map(|payload| (program, number, payload)))
    }
}
