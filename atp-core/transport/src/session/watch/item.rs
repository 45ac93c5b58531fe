//! What a stream of domain events brings.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::domain::{DomainEvent, DomainInfo};
use crate::error::{ConnectError, ErrorKind};
use crate::host::HostId;

/// One item of the stream. Those of one host come in the order in which they happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "item", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum WatchItem {
    /// The host is watched, and these are its domains now: the first item of a host, and the first after a gap; a
    /// moment later once more, if that shows states that no event has reported. Events that follow may be in these
    /// states already.
    Present {
        /// The host.
        host: HostId,
        /// When it was learnt, by this machine's clock.
        #[serde(serialize_with = "rfc3339")]
        at: SystemTime,
        /// All of its domains, by name.
        #[serde(serialize_with = "slice")]
        domains: Arc<[DomainInfo]>,
    },
    /// Something happened to a domain.
    Event {
        /// The host.
        host: HostId,
        /// When it was learnt, by this machine's clock.
        #[serde(serialize_with = "rfc3339")]
        at: SystemTime,
        /// What happened.
        #[serde(flatten)]
        event: DomainEvent,
    },
    /// The connection was lost: what happens from here on is not reported, until [`Present`](Self::Present).
    Gap {
        /// The host.
        host: HostId,
        /// When it was learnt, by this machine's clock.
        #[serde(serialize_with = "rfc3339")]
        at: SystemTime,
    },
    /// The host cannot be reached. Sent once for each reason, not for each attempt; the attempts go on.
    Unreachable {
        /// The host.
        host: HostId,
        /// When it was learnt, by this machine's clock.
        #[serde(serialize_with = "rfc3339")]
        at: SystemTime,
        /// Why.
        #[serde(serialize_with = "reason")]
        error: Arc<ConnectError>,
    },
    /// The host was removed from the manager: nothing more comes of it.
    Removed {
        /// The host.
        host: HostId,
        /// When it was learnt, by this machine's clock.
        #[serde(serialize_with = "rfc3339")]
        at: SystemTime,
    },
    /// This subscriber was too slow, and the oldest items it had not taken are gone.
    Missed {
        /// How many.
        count: u64,
    },
}

impl WatchItem {
    /// The host it is about; none for what is about the subscriber.
    pub fn host(&self) -> Option<&HostId> {
        match self {
            WatchItem::Present { host, .. }
            | WatchItem::Event { host, .. }
            | WatchItem::Gap { host, .. }
            | WatchItem::Unreachable { host, .. }
            | WatchItem::Removed { host, .. } => Some(host),
            WatchItem::Missed { .. } => None,
        }
    }
}

fn rfc3339<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*at))
}

fn slice<S: Serializer>(domains: &Arc<[DomainInfo]>, serializer: S) -> Result<S::Ok, S::Error> {
    domains.as_ref().serialize(serializer)
}

fn reason<S: Serializer>(error: &Arc<ConnectError>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Reason<'a> {
        kind: ErrorKind,
        message: &'a str,
    }
    Reason { kind: error.kind, message: &error.reason }.serialize(serializer)
}
