//! What happened to the fleet, as one stream for all of a manager's hosts.
//!
//! Whoever listens gets every event in the order in which it was emitted. Nobody ever waits for a listener: one
//! that is slow loses the oldest events, and is told how many. An event that nobody listens to is counted and
//! goes no further.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, Stream};
use serde::{Serialize, Serializer};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::Instant;

use crate::config::EventConfig;
use crate::error::{AcquireStage, ErrorKind};
use crate::fleet::Changes;
use crate::health::HealthState;
use crate::host::HostId;

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

/// What can happen. Connections are named by their [`connection_id`](crate::HostConnection::connection_id).
///
/// `docs/operations.md` says what an operator does about each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
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
    /// The pool let go of a connection; it closes when its leases are back.
    PoolReaped {
        /// Which.
        connection: u64,
        /// What for.
        reason: ReapReason,
    },
    /// Work waits for a connection, and the pool has as many as it may. Emitted when that begins, and again only
    /// after nobody waited at a look of the pool's ([`maintenance_interval`](crate::PoolConfig::maintenance_interval)).
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
    /// A call overran its deadline and cannot be stopped. Its connection gets no new work and is replaced.
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
    /// Nobody waits any more for it to open.
    NotNeeded,
    /// Few of the connections have many leases.
    LowLoad,
    /// There are more than the maximum, which was lowered.
    OverMaximum,
    /// It is older than [`max_lifetime`](crate::PoolConfig::max_lifetime).
    Expired,
}

/// The name of an event, without what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is the kind of the TransportEvent of the same name")]
pub enum EventKind {
    HostAdded,
    HostRemoved,
    Connected,
    Lost,
    Reconnecting,
    Recovered,
    Failed,
    PoolGrown,
    PoolReaped,
    PoolLimitReached,
    AcquireTimedOut,
    Suspect,
    StuckCapReached,
    LeaseHeldLong,
    BreakerOpened,
    BreakerHalfOpen,
    BreakerClosed,
    RetryBudgetSpent,
    HealthChanged,
    ConfigurationApplied,
    ConfigurationRefused,
    Missed,
}

impl EventKind {
    /// All of them.
    pub const ALL: [EventKind; 22] = [
        EventKind::HostAdded,
        EventKind::HostRemoved,
        EventKind::Connected,
        EventKind::Lost,
        EventKind::Reconnecting,
        EventKind::Recovered,
        EventKind::Failed,
        EventKind::PoolGrown,
        EventKind::PoolReaped,
        EventKind::PoolLimitReached,
        EventKind::AcquireTimedOut,
        EventKind::Suspect,
        EventKind::StuckCapReached,
        EventKind::LeaseHeldLong,
        EventKind::BreakerOpened,
        EventKind::BreakerHalfOpen,
        EventKind::BreakerClosed,
        EventKind::RetryBudgetSpent,
        EventKind::HealthChanged,
        EventKind::ConfigurationApplied,
        EventKind::ConfigurationRefused,
        EventKind::Missed,
    ];

    /// The word for it: what stands under `event` in a serialised [`Event`].
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::HostAdded => "host_added",
            EventKind::HostRemoved => "host_removed",
            EventKind::Connected => "connected",
            EventKind::Lost => "lost",
            EventKind::Reconnecting => "reconnecting",
            EventKind::Recovered => "recovered",
            EventKind::Failed => "failed",
            EventKind::PoolGrown => "pool_grown",
            EventKind::PoolReaped => "pool_reaped",
            EventKind::PoolLimitReached => "pool_limit_reached",
            EventKind::AcquireTimedOut => "acquire_timed_out",
            EventKind::Suspect => "suspect",
            EventKind::StuckCapReached => "stuck_cap_reached",
            EventKind::LeaseHeldLong => "lease_held_long",
            EventKind::BreakerOpened => "breaker_opened",
            EventKind::BreakerHalfOpen => "breaker_half_open",
            EventKind::BreakerClosed => "breaker_closed",
            EventKind::RetryBudgetSpent => "retry_budget_spent",
            EventKind::HealthChanged => "health_changed",
            EventKind::ConfigurationApplied => "configuration_applied",
            EventKind::ConfigurationRefused => "configuration_refused",
            EventKind::Missed => "missed",
        }
    }
}

impl TransportEvent {
    /// Its name.
    pub fn kind(&self) -> EventKind {
        match self {
            TransportEvent::HostAdded => EventKind::HostAdded,
            TransportEvent::HostRemoved => EventKind::HostRemoved,
            TransportEvent::Connected { .. } => EventKind::Connected,
            TransportEvent::Lost { .. } => EventKind::Lost,
            TransportEvent::Reconnecting { .. } => EventKind::Reconnecting,
            TransportEvent::Recovered { .. } => EventKind::Recovered,
            TransportEvent::Failed { .. } => EventKind::Failed,
            TransportEvent::PoolGrown { .. } => EventKind::PoolGrown,
            TransportEvent::PoolReaped { .. } => EventKind::PoolReaped,
            TransportEvent::PoolLimitReached { .. } => EventKind::PoolLimitReached,
            TransportEvent::AcquireTimedOut { .. } => EventKind::AcquireTimedOut,
            TransportEvent::Suspect { .. } => EventKind::Suspect,
            TransportEvent::StuckCapReached { .. } => EventKind::StuckCapReached,
            TransportEvent::LeaseHeldLong { .. } => EventKind::LeaseHeldLong,
            TransportEvent::BreakerOpened { .. } => EventKind::BreakerOpened,
            TransportEvent::BreakerHalfOpen => EventKind::BreakerHalfOpen,
            TransportEvent::BreakerClosed { .. } => EventKind::BreakerClosed,
            TransportEvent::RetryBudgetSpent { .. } => EventKind::RetryBudgetSpent,
            TransportEvent::HealthChanged { .. } => EventKind::HealthChanged,
            TransportEvent::ConfigurationApplied { .. } => EventKind::ConfigurationApplied,
            TransportEvent::ConfigurationRefused { .. } => EventKind::ConfigurationRefused,
            TransportEvent::Missed { .. } => EventKind::Missed,
        }
    }
}

/// Listens to a manager's events from the moment it was made on.
///
/// Holds nobody up: when more events wait than [`events.capacity`](crate::EventConfig::capacity), the oldest are
/// lost and a [`Missed`](TransportEvent::Missed) stands in their place.
#[derive(Debug)]
pub struct EventStream {
    receiver: broadcast::Receiver<Arc<Event>>,
    /// The number of the event that comes next.
    next: u64,
}

impl EventStream {
    /// The next event; none when the manager is gone and all has been heard. Cancel safe.
    pub async fn recv(&mut self) -> Option<Arc<Event>> {
        match self.receiver.recv().await {
            Ok(event) => Some(self.heard(event)),
            Err(RecvError::Lagged(count)) => Some(self.missed(count)),
            Err(RecvError::Closed) => None,
        }
    }

    /// The next event, if one has been emitted and not heard yet.
    pub fn try_recv(&mut self) -> Option<Arc<Event>> {
        match self.receiver.try_recv() {
            Ok(event) => Some(self.heard(event)),
            Err(TryRecvError::Lagged(count)) => Some(self.missed(count)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }

    /// As a [`Stream`], which ends when the manager is gone.
    pub fn into_stream(self) -> impl Stream<Item = Arc<Event>> + Send {
        stream::unfold(self, |mut events| async move { events.recv().await.map(|event| (event, events)) })
    }

    fn heard(&mut self, event: Arc<Event>) -> Arc<Event> {
        self.next = event.sequence + 1;
        event
    }

    fn missed(&mut self, count: u64) -> Arc<Event> {
        self.next += count;
        let what = TransportEvent::Missed { count };
        Arc::new(Event::now(self.next - 1, None, what))
    }
}

impl Event {
    fn now(sequence: u64, host: Option<HostId>, what: TransportEvent) -> Self {
        Event { sequence, time: SystemTime::now(), at: Instant::now(), host, what }
    }
}

/// Where events are emitted; one for a manager.
pub(crate) struct EventBus {
    sender: broadcast::Sender<Arc<Event>>,
    /// Held while an event is sent, so that the numbers go up for every listener. Nothing waits under it.
    emitted: Mutex<Emitted>,
}

struct Emitted {
    sequence: u64,
    by_kind: [u64; EventKind::ALL.len()],
}

impl EventBus {
    pub(crate) fn new(config: &EventConfig) -> Self {
        // Checked only when the first host is added.
        let capacity = config.capacity.clamp(1, EventConfig::MOST);
        let emitted = Emitted { sequence: 0, by_kind: [0; EventKind::ALL.len()] };
        EventBus { sender: broadcast::Sender::new(capacity), emitted: Mutex::new(emitted) }
    }

    /// Tells whoever listens. Not to be called under a lock of the pool's or a connection's.
    pub(crate) fn emit(&self, host: Option<&HostId>, what: TransportEvent) {
        let mut emitted = self.emitted();
        emitted.sequence += 1;
        if let Some(count) = emitted.by_kind.get_mut(what.kind() as usize) {
            *count += 1;
        }
        if self.sender.receiver_count() > 0 {
            let event = Event::now(emitted.sequence, host.cloned(), what);
            // Fails only if the last listener has just left.
            let _nobody = self.sender.send(Arc::new(event));
        }
    }

    pub(crate) fn subscribe(&self) -> EventStream {
        let emitted = self.emitted();
        EventStream { receiver: self.sender.subscribe(), next: emitted.sequence + 1 }
    }

    /// How many of each kind have been emitted, heard or not.
    pub(crate) fn counts(&self) -> BTreeMap<EventKind, u64> {
        EventKind::ALL.into_iter().zip(self.emitted().by_kind).collect()
    }

    fn emitted(&self) -> MutexGuard<'_, Emitted> {
        // Nothing under this lock can panic half-way, so a poisoned one still guards sound data.
        self.emitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Durations stand as seconds in what is written for programs.
pub(crate) fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
