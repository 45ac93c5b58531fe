//! What can happen.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use strum::{EnumDiscriminants, IntoStaticStr, VariantArray};
use tokio::time::Instant;

use crate::error::{AcquireStage, ErrorKind};
use crate::fleet::Changes;
use crate::host::HostId;
use crate::observe::health::HealthState;
use crate::observe::seconds::seconds;

/// Something that happened, with where and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Counts a manager's events from 1, without a gap. That of a [`Missed`](TransportEvent::Missed) is the number
    /// of the last event that was lost.
    pub sequence: u64,
    /// When, by the clock on the wall.
    #[serde(with = "humantime_serde")]
    pub time: SystemTime,
    /// When, by the clock that never jumps.
    #[serde(skip)]
    pub at: Instant,
    /// The host, where it was one host's matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostId>,
    /// What.
    #[serde(flatten)]
    pub what: TransportEvent,
}

impl Event {
    pub(super) fn now(sequence: u64, host: Option<HostId>, what: TransportEvent) -> Self {
        Event { sequence, time: SystemTime::now(), at: Instant::now(), host, what }
    }
}

/// What can happen. Connections are named by their [`connection_id`](crate::HostConnection::connection_id).
///
/// `docs/operations.md` says what an operator does about each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, EnumDiscriminants)]
#[serde(tag = "event", rename_all = "snake_case")]
#[strum_discriminants(
    name(EventKind),
    doc = "The name of an event, without what belongs to it: the [`TransportEvent`] of that name says what it means.",
    derive(PartialOrd, Ord, Hash, Serialize, IntoStaticStr, VariantArray),
    serde(rename_all = "snake_case"),
    strum(serialize_all = "snake_case"),
    non_exhaustive
)]
#[non_exhaustive]
pub enum TransportEvent {
    /// A host was registered. Nothing is known yet of whether it can be reached.
    HostAdded,
    /// A host was taken out. It gets no new work; its connections close when the work under way has ended.
    HostRemoved,
    /// A new connection is up.
    Connected {
        /// Which.
        connection: u64,
    },
    /// A connection that was up is gone. The calls on it have failed, or wait for the next link.
    Lost {
        /// Which.
        connection: u64,
        /// How that was noticed.
        cause: LossCause,
        /// For how long it had been up.
        #[serde(serialize_with = "seconds")]
        up_for: Duration,
    },
    /// A lost connection is waiting for an attempt to open it again, or that attempt is under way.
    Reconnecting {
        /// Which.
        connection: u64,
        /// The number of the attempt since the connection was lost, or since the host was given up; from 1.
        attempt: u32,
        /// Why the attempt before failed, where there was one.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A lost connection is up again.
    Recovered {
        /// Which.
        connection: u64,
        /// How long it had been down.
        #[serde(serialize_with = "seconds")]
        down_for: Duration,
    },
    /// The attempts to open a connection are spent. Work for the host fails at once as long as it has no other
    /// connection; the host is tried again at the pace of [`max_delay`](crate::ReconnectConfig::max_delay).
    Failed {
        /// Which.
        connection: u64,
        /// Why the last attempt failed.
        kind: ErrorKind,
        /// That in words.
        error: String,
    },
    /// The pool began to open a further connection.
    PoolGrown {
        /// Which.
        connection: u64,
        /// What for.
        reason: GrowthReason,
        /// Connections in service, with this one.
        connections: usize,
    },
    /// The pool let go of a connection; it closes when its leases are back, or its link is lost; an event reports that.
    PoolReaped {
        /// Which.
        connection: u64,
        /// What for.
        reason: ReapReason,
    },
    /// Work waits for a connection, and the pool has as many as it may. Emitted when that begins, and again only
    /// after a look of the pool's at which no caller waited ([`maintenance_interval`](crate::PoolConfig::maintenance_interval)).
    PoolLimitReached {
        /// The limit.
        max_connections: usize,
        /// Leases that were out.
        active_uses: usize,
    },
    /// Work got no connection by its deadline, and was not done.
    AcquireTimedOut {
        /// What it was waiting for.
        stage: AcquireStage,
        /// For how long.
        #[serde(serialize_with = "seconds")]
        waited: Duration,
    },
    /// So many calls on a connection, or a probe, overran their deadlines and cannot be stopped that it gets no new work and
    /// is replaced.
    Suspect {
        /// Which.
        connection: u64,
        /// The operation, by libvirt's name for it; none if its caller had left before.
        #[serde(skip_serializing_if = "Option::is_none")]
        operation: Option<&'static str>,
        /// Calls to the host that hang, with this one.
        stuck_calls: usize,
    },
    /// So many calls to the host hang that VMs which have not answered lately get no calls. Emitted when the
    /// limit is reached, and again only after it was not.
    StuckCapReached {
        /// Calls that hang.
        stuck_calls: usize,
        /// The limit: [`max_unproven_per_host`](crate::CallConfig::max_unproven_per_host).
        cap: usize,
    },
    /// A lease has been out for longer than [`report_leases_after`](crate::PoolConfig::report_leases_after).
    /// Emitted once a lease.
    LeaseHeldLong {
        /// For how long.
        #[serde(serialize_with = "seconds")]
        held_for: Duration,
        /// The line of code that took it.
        taken_at: String,
    },
    /// The host failed so often that work for it is refused for a while.
    BreakerOpened {
        /// What it was that tripped it, in words.
        reason: String,
        /// When it is probed at the earliest, from now.
        #[serde(serialize_with = "seconds")]
        cool_down: Duration,
    },
    /// The breaker lets one call through, to see how the host is.
    BreakerHalfOpen,
    /// The host answers; it gets work again.
    BreakerClosed {
        /// How long work had been refused.
        #[serde(serialize_with = "seconds")]
        open_for: Duration,
    },
    /// Retries have used up their share of all calls; failed work is not repeated until others have succeeded.
    /// Emitted when that begins, and again only after a window in which no retry was refused.
    RetryBudgetSpent {
        /// Retries in the window.
        retries: u64,
        /// Calls in the window.
        calls: u64,
    },
    /// The health of a host, or without a host, of the fleet, has changed.
    HealthChanged {
        /// What it was.
        from: HealthState,
        /// What it is.
        to: HealthState,
        /// Why, in words.
        reason: String,
    },
    /// A new configuration is in force.
    ConfigurationApplied {
        /// What that changed, by host.
        changes: Changes,
    },
    /// A new configuration could not be used; the one before stays in force.
    ConfigurationRefused {
        /// What is wrong with it.
        problems: Vec<String>,
    },
    /// This listener was too slow: events were lost to it. Others may have got them.
    Missed {
        /// How many.
        count: u64,
    },
}

/// How a lost connection was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LossCause {
    /// The link said so by itself: the far side closed it, the network reset it, or the keepalive ran out.
    Closed,
    /// A call failed because of it.
    CallFailed,
    /// It was quiet, and a probe went wrong or was not answered in time.
    ProbeFailed,
}

/// Why a pool opens a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GrowthReason {
    /// There were fewer than the minimum.
    Minimum,
    /// Somebody waited for one.
    Waiting,
    /// Most of the connections there were had many leases.
    Load,
}

/// Why a pool lets go of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReapReason {
    /// It was not used for [`idle_timeout`](crate::PoolConfig::idle_timeout).
    Idle,
    /// No caller waits any more for it to open.
    NotNeeded,
    /// Few of the connections have many leases.
    LowLoad,
    /// There are more than the maximum, which was lowered.
    OverMaximum,
    /// It is older than [`max_lifetime`](crate::PoolConfig::max_lifetime).
    Expired,
}

impl TransportEvent {
    /// Its name.
    pub fn kind(&self) -> EventKind {
        self.into()
    }
}

impl EventKind {
    /// All of them.
    pub const ALL: &[EventKind] = EventKind::VARIANTS;

    /// The word for it: what stands under `event` in a serialised [`Event`].
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
