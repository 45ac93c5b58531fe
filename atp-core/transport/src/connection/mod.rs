//! One link to one host: its states, its reconnect, its heartbeat.
//!
//! ```text
//!  Idle ──► Connecting ──ok──► Connected ──lost (heartbeat, call)──► Reconnecting(n) ◄─┐
//!               │               │     ▲                                │   │   └─failed─┘
//!               │               │     └───────────────ok───────────────┘   │ attempts spent
//!             failed            └─ a call overran ──► Suspect ──► Closed   │
//!               └────────────────────────► Failed ◄────────────────────────┘
//!                                            └─ max_delay passes ──► Reconnecting(1)
//! ```
//!
//! A task of the connection's own drives it through these states; all others only look, and report to it
//! of trouble. A suspect connection takes no new leases; those it has may go on using it, and it is closed
//! when the last of them and its last call are gone, or its link is. So is one that is draining, because it is old or one
//! too many.

mod call;
pub(crate) mod connector;
mod heartbeat;
mod life;
mod metrics;
pub(crate) mod reconnect;
mod state;
pub(crate) mod unpooled;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::Guard;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::calls::{ConnectionCalls, Lane};
use crate::config::TransportConfig;
use crate::connection::connector::Connector;
use crate::error::{ConnectError, TransportError};
use crate::host::state::HostState;
use crate::host::{HostId, HostInfo};
use crate::observe::latency::Latencies;
use crate::sync::atomic_time::AtomicInstant;
use crate::sync::backoff;
use life::LinkFault;
use metrics::Counts;

pub use metrics::ConnectionMetrics;
pub use state::ConnectionState;

/// One link to one host, kept open.
pub struct HostConnection<C: Connector> {
    id: u64,
    host: Arc<HostState<C>>,
    state: watch::Sender<ConnectionState>,
    core: Mutex<Core<C>>,
    calls: Arc<ConnectionCalls>,
    /// One token a call; when none is left, and no lease, a suspect connection may be closed.
    activity: TaskTracker,
    /// Leases. Only the making and the dropping of one change it.
    uses: AtomicUsize,
    /// Calls in flight that its link allows, as far as is known.
    max_in_flight: AtomicUsize,
    /// Whether that is all that it can allow.
    measured: AtomicBool,
    /// The last lease came back to a connection that is out of service.
    unused: Notify,
    last_active: AtomicInstant,
    last_used: AtomicInstant,
    trouble: Notify,
    /// Notifies the driving task that a call has to be looked at, at the time noted in the core.
    was_abandoned: Notify,
    /// Ends this connection.
    closing: CancellationToken,
    /// Ends all connections of the pool: the host was removed.
    pool_closing: CancellationToken,
    on_change: Box<dyn Fn() + Send + Sync>,
    created: Instant,
    /// Drawn once, so that connections opened together do not end together.
    expires: Option<Instant>,
    /// Up, and no trouble reported since.
    usable: AtomicBool,
    counts: Counts,
}

struct Core<C: Connector> {
    link: Option<Arc<C::Link>>,
    trouble: Option<LinkFault>,
    connected_at: Instant,
    /// Since when it has not been usable, if it is not.
    down_since: Instant,
    /// When the first of the calls whose callers went away should have returned.
    abandoned: Option<Instant>,
    reconnects: u64,
    /// An attempt to connect is under way, and not only waited for.
    attempting: bool,
    latencies: Latencies,
    last_error: Option<(Instant, TransportError)>,
    /// No attempt has succeeded since the last were spent.
    gave_up: bool,
}

impl<C: Connector> HostConnection<C> {
    /// Makes a connection that is driven by [`drive`](Self::drive); `on_change` is called at each change of state.
    pub(crate) fn new(
        host: Arc<HostState<C>>,
        pool_closing: &CancellationToken,
        on_change: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        let now = Instant::now();
        let (calls, lifetime) = {
            let config = host.config();
            (ConnectionCalls::new(config.calls.per_connection()), config.pool.max_lifetime)
        };
        let expires = (!lifetime.is_zero()).then(|| now + backoff::spread(lifetime));
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Arc::new(HostConnection {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            host,
            state: watch::Sender::new(ConnectionState::Idle),
            core: Mutex::new(Core {
                link: None,
                trouble: None,
                connected_at: now,
                down_since: now,
                abandoned: None,
                reconnects: 0,
                attempting: false,
                latencies: Latencies::default(),
                last_error: None,
                gave_up: false,
            }),
            calls,
            activity: TaskTracker::new(),
            uses: AtomicUsize::new(0),
            max_in_flight: AtomicUsize::new(usize::MAX),
            measured: AtomicBool::new(true),
            unused: Notify::new(),
            last_active: AtomicInstant::new(now),
            last_used: AtomicInstant::new(now),
            trouble: Notify::new(),
            was_abandoned: Notify::new(),
            closing: pool_closing.child_token(),
            pool_closing: pool_closing.clone(),
            on_change: Box::new(on_change),
            created: now,
            expires,
            usable: AtomicBool::new(false),
            counts: Counts::default(),
        })
    }

    /// The host as it is configured now: its id, address, groups and labels.
    pub fn host_info(&self) -> Arc<HostInfo> {
        self.host.info()
    }

    /// The host it leads to.
    pub fn host_id(&self) -> &HostId {
        &self.host.id
    }

    /// The connector that opens it.
    pub fn connector(&self) -> &C {
        &self.host.connector
    }

    /// Identifies the connection within the process; stays the same when the link is opened again.
    pub fn connection_id(&self) -> u64 {
        self.id
    }

    /// Where it stands now.
    pub fn state(&self) -> ConnectionState {
        *self.state.borrow()
    }

    /// What it has done so far.
    pub fn metrics(&self) -> ConnectionMetrics {
        let (last_error, reconnects, latencies) = {
            let core = self.core.lock();
            (core.last_error.clone(), core.reconnects, core.latencies.clone())
        };
        ConnectionMetrics {
            active_uses: self.active_uses(),
            requests: self.counts.requests(),
            errors: self.counts.errors(),
            last_error,
            reconnects,
            created: self.created,
            last_active: self.last_active(),
            latency: latencies.percentiles(),
        }
    }

    /// How many times the link was opened again after it had been lost. A call waits for that, so a caller that makes several
    /// learns from this that what the daemon kept for the link is gone, and that the daemon may have just started.
    pub fn reconnects(&self) -> u64 {
        self.core.lock().reconnects
    }

    /// Why the host could not be reached when it was last tried, if it could not.
    pub fn last_connect_error(&self) -> Option<Arc<ConnectError>> {
        self.host.reconnect.last_error()
    }

    /// Whether new work may be given to it.
    pub(crate) fn is_usable(&self) -> bool {
        self.usable.load(Ordering::Acquire)
    }

    /// Whether it has no lease, and stands in no state that will end by itself.
    pub(crate) fn is_settled_and_idle(&self) -> bool {
        let settled = matches!(self.state(), ConnectionState::Connected | ConnectionState::Failed);
        settled && self.active_uses() == 0
    }

    /// Whether its first attempt to connect has not begun yet.
    pub(crate) fn waits_its_turn(&self) -> bool {
        let core = self.core.lock();
        !core.attempting && matches!(self.state(), ConnectionState::Idle | ConnectionState::Connecting)
    }

    /// Whether it is older than it may get.
    pub(crate) fn has_outlived(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// When the last lease came back.
    pub(crate) fn last_used(&self) -> Instant {
        self.last_used.get()
    }

    pub(crate) fn config(&self) -> Guard<Arc<TransportConfig>> {
        self.host.config()
    }

    /// Takes over what the configuration says of every connection. Calls of this must not overlap.
    pub(crate) fn reconfigure(&self, config: &TransportConfig) {
        self.calls.resize(config.calls.per_connection().min(self.max_in_flight()));
    }

    /// Calls in flight that its link allows; `usize::MAX` until that is known.
    pub(crate) fn max_in_flight(&self) -> usize {
        self.max_in_flight.load(Ordering::Relaxed)
    }

    /// Whether it may allow more calls than is known; if so, that is found out, and then a change is told.
    pub(crate) fn may_bear_more(&self) -> bool {
        let may = self.is_usable() && !self.measured.load(Ordering::Acquire);
        if may {
            self.calls.want_more();
        }
        may
    }

    /// Most calls in flight on it.
    pub(crate) fn max_calls(&self) -> usize {
        self.host.config().calls.per_connection().min(self.max_in_flight())
    }

    /// Calls in flight that it is taken to allow. One that was not measured allows a ping beside a call, and as many as are
    /// configured until it is known better.
    pub(crate) fn places(&self) -> usize {
        match self.measured.load(Ordering::Acquire) {
            true => self.max_calls(),
            false => self.host.config().calls.per_connection(),
        }
    }

    /// Places that are spoken for: one for each lease, and one for each call that overran, whose lease is back or soon
    /// will be.
    pub(crate) fn load(&self) -> usize {
        self.active_uses() + self.calls.overrun()
    }

    /// Leases on this connection.
    pub(crate) fn active_uses(&self) -> usize {
        self.uses.load(Ordering::Acquire)
    }

    /// Whether its attempts are spent, and no later one has succeeded.
    pub(crate) fn gave_up(&self) -> bool {
        self.core.lock().gave_up
    }

    /// How long it has been waited for: since it was made, or lost.
    pub(crate) fn down_for(&self) -> Duration {
        self.core.lock().down_since.elapsed()
    }

    /// Whether another call could be sent at once.
    pub(crate) fn has_free_place(&self) -> bool {
        self.calls.has_free()
    }

    pub(crate) fn last_active(&self) -> Instant {
        self.last_active.get()
    }

    /// For a lease, before it is made. Returns false, with nothing done, if the connection has just gone out
    /// of service.
    pub(crate) fn begin_use(&self) -> bool {
        // `run_out` takes the connection out of service before it counts: one of the two sees the other.
        self.uses.fetch_add(1, Ordering::SeqCst);
        let usable = self.usable.load(Ordering::SeqCst);
        if !usable {
            self.forget_use();
        }
        usable
    }

    /// For a lease, when it is dropped.
    pub(crate) fn end_use(&self, now: Instant) {
        self.last_used.set(now);
        self.forget_use();
    }

    fn forget_use(&self) {
        if self.uses.fetch_sub(1, Ordering::SeqCst) == 1 && !self.usable.load(Ordering::SeqCst) {
            self.unused.notify_one();
        }
    }

    /// Whether the VM of this lane has answered lately.
    pub(crate) fn is_proven(&self, lane: Lane) -> bool {
        self.host.calls.is_proven(lane)
    }

    fn link(&self) -> Option<Arc<C::Link>> {
        self.core.lock().link.clone()
    }

    /// Whether this is its link now.
    fn has(&self, link: &Arc<C::Link>) -> bool {
        self.core.lock().has(link)
    }
}

impl<C: Connector> Core<C> {
    fn has(&self, link: &Arc<C::Link>) -> bool {
        self.link.as_ref().is_some_and(|current| Arc::ptr_eq(current, link))
    }
}

impl<C: Connector> fmt::Debug for HostConnection<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostConnection")
            .field("id", &self.id)
            .field("host", &self.host.id)
            .field("state", &self.state())
            .field("active_uses", &self.active_uses())
            .finish_non_exhaustive()
    }
}
