//! What a stream of domain events brings.

use std::sync::Arc;
use std::time::SystemTime;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::{DomainEvent, DomainInfo};
use crate::error::{ConnectError, ErrorKind, LibvirtError};
use crate::host::HostId;

/// One item of the stream. Those of one host come in the order in which they happened.
///
/// Its JSON can be read back. Of a failure to connect the kind and the words are left.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
        #[serde(with = "rfc3339")]
        at: SystemTime,
        /// All of its domains, by name.
        #[serde(with = "slice")]
        domains: Arc<[DomainInfo]>,
    },
    /// Something happened to a domain.
    Event {
        /// The host.
        host: HostId,
        /// When it was learnt, by this machine's clock.
        #[serde(with = "rfc3339")]
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
        #[serde(with = "rfc3339")]
        at: SystemTime,
    },
    /// The host cannot be reached. Sent once for each reason, not for each attempt; the attempts go on.
    Unreachable {
        /// The host.
        host: HostId,
        /// When it was learnt, by this machine's clock.
        #[serde(with = "rfc3339")]
        at: SystemTime,
        /// Why.
        #[serde(with = "reason")]
        error: Arc<ConnectError>,
    },
    /// The host was removed from the manager: nothing more comes of it.
    Removed {
        /// The host.
        host: HostId,
        /// When it was learnt, by this machine's clock.
        #[serde(with = "rfc3339")]
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

mod rfc3339 {
    use super::*;

    pub(super) fn serialize<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_millis(*at))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        humantime::parse_rfc3339(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

mod slice {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        domains: &Arc<[DomainInfo]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        domains.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<[DomainInfo]>, D::Error> {
        Vec::deserialize(deserializer).map(Arc::from)
    }
}

mod reason {
    use std::borrow::Cow;

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Reason<'a> {
        kind: ErrorKind,
        message: Cow<'a, str>,
        /// The words of libvirt's error.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cow<'a, str>>,
    }

    pub(super) fn serialize<S: Serializer>(
        error: &Arc<ConnectError>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let cause = error.source.as_ref().map(|source| Cow::from(&source.message));
        Reason { kind: error.kind, message: Cow::from(&error.reason), cause }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<ConnectError>, D::Error> {
        let Reason { kind, message, cause } = Reason::deserialize(deserializer)?;
        // Their numbers were not sent.
        let source = cause.map(|cause| LibvirtError { code: 0, domain: 0, level: 2, message: cause.into() });
        Ok(Arc::new(ConnectError { source, ..ConnectError::new(kind, message) }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{DomainEvent, DomainEventKind, DomainState, LifecycleChange};

    #[test]
    fn items_are_read_back_from_their_json() {
        let host: HostId = "h1".parse().unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        let uuid = uuid::Uuid::nil();
        let kind = DomainEventKind::Lifecycle { change: LifecycleChange::Started, detail: "booted".into() };
        let io = DomainEventKind::IoError {
            path: "/x".into(),
            device: "vda".into(),
            action: "pause".into(),
            reason: "enospc".into(),
        };
        let event = |kind| DomainEvent { name: "web".into(), uuid, kind };
        let source = LibvirtError { code: 38, domain: 7, level: 2, message: "no route".into() };
        let error = ConnectError { source: Some(source), ..ConnectError::new(ErrorKind::ConnectFailed, "x") };
        let domains = Arc::from([DomainInfo::new("web", uuid, DomainState::Running)]);
        for item in [
            WatchItem::Present { host: host.clone(), at, domains },
            WatchItem::Event { host: host.clone(), at, event: event(kind) },
            WatchItem::Event { host: host.clone(), at, event: event(io) },
            WatchItem::Gap { host: host.clone(), at },
            WatchItem::Unreachable { host: host.clone(), at, error: Arc::new(error) },
            WatchItem::Removed { host, at },
            WatchItem::Missed { count: 7 },
        ] {
            let json = serde_json::to_string(&item).unwrap();
            let read: WatchItem = serde_json::from_str(&json).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), json);
        }
    }
}
