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
//! A task of the connection's own drives it through these states; everyone else only looks, and tells it
//! of trouble. A suspect connection takes no new leases; those it has may go on using it, and it is closed
//! when the last of them and its last call are gone.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::Guard;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::backoff;
use crate::calls::{InFlight, Lane};
use crate::config::TransportConfig;
use crate::connector::{CallFailure, Connector};
use crate::context::HostContext;
use crate::error::{ConnectError, ErrorKind, Result, TransportError};
use crate::events::{LossCause, TransportEvent};
use crate::host::HostId;
use crate::interceptor::CallInfo;
use crate::latency::{Latencies, Percentiles};
use crate::limit::{Limit, Permit};
use crate::moment::Moment;
use crate::stats::Counts;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// Made, and its task has not run yet.
    Idle,
    /// The first attempt to connect is under way.
    Connecting,
    /// Up.
    Connected,
    /// Lost, and being opened again.
    Reconnecting {
        /// The number of the attempt that is waited for or under way, from 1.
        attempt: u32,
    },
    /// A call overran its deadline and cannot be stopped: no new work, and closed when all is returned.
    Suspect,
    /// Old, or one too many: no new work, and closed when all is returned.
    Draining,
    /// All attempts are spent. The host is tried again when `max_delay` has passed.
    Failed,
    /// Gone for good.
    Closed,
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectionState::Idle => f.write_str("idle"),
            ConnectionState::Connecting => f.write_str("connecting"),
            ConnectionState::Connected => f.write_str("connected"),
            ConnectionState::Reconnecting { attempt } => write!(f, "reconnecting (attempt {attempt})"),
            ConnectionState::Suspect => f.write_str("suspect"),
            ConnectionState::Draining => f.write_str("draining"),
            ConnectionState::Failed => f.write_str("failed"),
            ConnectionState::Closed => f.write_str("closed"),
        }
    }
}

/// What a connection has done so far.
#[derive(Debug, Clone)]
pub struct ConnectionMetrics {
    /// Leases on it now.
    pub active_uses: usize,
    /// Calls made.
    pub requests: u64,
    /// Calls that failed, for whatever reason.
    pub errors: u64,
    /// The last failure of a call, and when it was.
    pub last_error: Option<(Instant, TransportError)>,
    /// Times the link was opened again after it had been lost.
    pub reconnects: u64,
    /// When the connection was made.
    pub created: Instant,
    /// When the last call was answered, or the link opened.
    pub last_active: Instant,
    /// How long its calls took, those that failed included.
    pub latency: Percentiles,
}

/// One link to one host, kept open.
pub struct HostConnection<C: Connector> {
    id: u64,
    host: Arc<HostContext<C>>,
    state: watch::Sender<ConnectionState>,
    core: Mutex<Core<C>>,
    calls: Arc<Limit>,
    /// One token a call; when none is left, and no lease, a suspect connection may be closed.
    activity: TaskTracker,
    /// Leases. Only the making and the dropping of one change it.
    uses: AtomicUsize,
    /// The last lease came back to a connection that is out of service.
    unused: Notify,
    last_active: Moment,
    last_used: Moment,
    trouble: Notify,
    /// Tells the driving task that a call has to be looked at, at the time noted in the core.
    was_abandoned: Notify,
    closing: CancellationToken,
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
    trouble: Option<Trouble>,
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

/// What ends a link's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Lost(LossCause),
    /// With the operation that overran, where its caller was there to see it.
    Suspect(Option<&'static str>),
    Retired,
}

/// Runs when the caller of a call goes away before its answer: nobody will then see the call overrun, so
/// the driving task is told when to look.
struct OnAbandon<'a, C: Connector> {
    connection: &'a HostConnection<C>,
    deadline: Instant,
}

impl<C: Connector> Drop for OnAbandon<'_, C> {
    fn drop(&mut self) {
        let mut core = self.connection.core();
        let due = core.abandoned.map_or(self.deadline, |due| due.min(self.deadline));
        core.abandoned = Some(due);
        self.connection.was_abandoned.notify_one();
    }
}

impl<C: Connector> HostConnection<C> {
    /// Makes a connection that is driven by [`drive`](Self::drive); `on_change` is told of each change of state.
    pub(crate) fn new(
        host: Arc<HostContext<C>>,
        closing: CancellationToken,
        on_change: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        let now = Instant::now();
        let (calls, lifetime) = {
            let config = host.config();
            (Limit::new(config.calls.max_per_connection), config.pool.max_lifetime)
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
            unused: Notify::new(),
            last_active: Moment::new(now),
            last_used: Moment::new(now),
            trouble: Notify::new(),
            was_abandoned: Notify::new(),
            closing,
            on_change: Box::new(on_change),
            created: now,
            expires,
            usable: AtomicBool::new(false),
            counts: Counts::default(),
        })
    }

    /// The host it leads to.
    pub fn host_id(&self) -> &HostId {
        &self.host.id
    }

    /// The connector that opens it.
    pub fn connector(&self) -> &C {
        &self.host.connector
    }

    /// Tells the connections of one process apart; stays the same when the link is opened again.
    pub fn connection_id(&self) -> u64 {
        self.id
    }

    /// Where it stands now.
    pub fn state(&self) -> ConnectionState {
        *self.state.borrow()
    }

    /// What it has done so far.
    pub fn metrics(&self) -> ConnectionMetrics {
        let core = self.core();
        ConnectionMetrics {
            active_uses: self.active_uses(),
            requests: self.counts.requests(),
            errors: self.counts.errors(),
            last_error: core.last_error.clone(),
            reconnects: core.reconnects,
            created: self.created,
            last_active: self.last_active(),
            latency: core.latencies.percentiles(),
        }
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
        let core = self.core();
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
        self.calls.resize(config.calls.max_per_connection);
    }

    /// Leases on this connection.
    pub(crate) fn active_uses(&self) -> usize {
        self.uses.load(Ordering::Acquire)
    }

    /// Whether its attempts are spent, and no later one has succeeded.
    pub(crate) fn gave_up(&self) -> bool {
        self.core().gave_up
    }

    /// How long it has been waited for: since it was made, or lost.
    pub(crate) fn down_for(&self) -> Duration {
        self.core().down_since.elapsed()
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

    /// Ends the connection when it has no lease left; it gets no new ones. Returns false if something else was
    /// about to end it already.
    pub(crate) fn retire(&self) -> bool {
        self.usable.store(false, Ordering::Release);
        let mut core = self.core();
        if core.link.is_some() {
            let ends_anyway = core.trouble.is_some();
            core.trouble.get_or_insert(Trouble::Retired);
            self.trouble.notify_one();
            !ends_anyway
        } else {
            let ends_anyway = self.closing.is_cancelled();
            self.closing.cancel();
            !ends_anyway
        }
    }

    /// Lives the connection's life, to its end. To be run as a task.
    pub(crate) async fn drive(self: Arc<Self>) {
        tokio::select! {
            biased;
            () = self.closing.cancelled() => {}
            () = self.live() => {}
        }
        self.disconnected();
        self.enter(ConnectionState::Closed);
    }

    async fn live(&self) {
        let HostContext { id, reconnect, .. } = &*self.host;
        let mut first = true;
        let mut waiting = ConnectionState::Connecting;
        let mut attempt = 1;
        let mut last_error: Option<Arc<ConnectError>> = None;
        loop {
            self.enter(waiting);
            match (waiting, &last_error) {
                (ConnectionState::Reconnecting { attempt }, error) => self.emit_reconnecting(attempt, error),
                (ConnectionState::Failed, Some(error)) => self.host.emit(TransportEvent::Failed {
                    connection: self.id,
                    kind: error.kind,
                    error: error.to_string(),
                }),
                _ => {}
            }
            let mut began = Instant::now();
            let on_start = || {
                began = Instant::now();
                self.core().attempting = true;
                if waiting == ConnectionState::Failed {
                    self.enter(ConnectionState::Reconnecting { attempt: 1 });
                    self.emit_reconnecting(1, &last_error);
                }
            };
            let result = reconnect.attempt(&self.host, !first, on_start).await;
            self.core().attempting = false;
            match result {
                Err(error) => {
                    tracing::debug!(host = %id, attempt, %error, "cannot connect");
                    self.host.heard_of_attempt(began, &error);
                    waiting = match reconnect.failed(&self.host.config(), first) {
                        Some(next) => {
                            attempt = next;
                            ConnectionState::Reconnecting { attempt }
                        }
                        None => {
                            tracing::warn!(host = %id, %error, "host failed");
                            self.core().gave_up = true;
                            ConnectionState::Failed
                        }
                    };
                    last_error = Some(error);
                }
                Ok(link) => {
                    // That a further connection opens at once says little of a host that leaves calls unanswered;
                    // that it can be connected to again says a lot.
                    if waiting != ConnectionState::Connecting {
                        self.host.heard_of_reconnect();
                    }
                    self.connected(link, first);
                    (first, last_error) = (false, None);
                    match self.watch().await {
                        Trouble::Suspect(operation) => {
                            tracing::warn!(host = %id, operation, "a call hangs; its connection is replaced");
                            let stuck_calls = self.host.calls.stuck();
                            let connection = self.id;
                            self.host.emit(TransportEvent::Suspect { connection, operation, stuck_calls });
                            self.host.look_at_stuck_calls();
                            return self.run_out(ConnectionState::Suspect).await;
                        }
                        Trouble::Retired => return self.run_out(ConnectionState::Draining).await,
                        Trouble::Lost(cause) => {
                            let up_for = self.disconnected();
                            tracing::info!(host = %id, ?cause, ?up_for, "connection lost");
                            self.host.emit(TransportEvent::Lost { connection: self.id, cause, up_for });
                            if !self.host.config().auto_reconnect {
                                return;
                            }
                            attempt = reconnect.lost(&self.host.config(), up_for);
                            waiting = ConnectionState::Reconnecting { attempt };
                        }
                    }
                }
            }
        }
    }

    /// Waits, out of service, for the last lease and the last call to end.
    async fn run_out(&self, state: ConnectionState) {
        self.usable.store(false, Ordering::SeqCst);
        self.enter(state);
        while self.uses.load(Ordering::SeqCst) > 0 {
            self.unused.notified().await;
        }
        self.activity.close();
        self.activity.wait().await;
    }

    /// Probes a quiet link, until there is trouble with it. A probe under way holds up no other trouble.
    async fn watch(&self) -> Trouble {
        let Some(link) = self.link() else { return Trouble::Lost(LossCause::Closed) };
        tokio::select! {
            biased;
            trouble = self.reported() => trouble,
            () = self.host.connector.lost(&link) => Trouble::Lost(LossCause::Closed),
            () = self.overrun() => Trouble::Suspect(None),
            () = self.silence() => Trouble::Lost(LossCause::ProbeFailed),
        }
    }

    /// Returns when somebody has reported trouble.
    async fn reported(&self) -> Trouble {
        loop {
            if let Some(trouble) = self.core().trouble {
                return trouble;
            }
            self.trouble.notified().await;
        }
    }

    /// Returns when a call that nobody waits for any more is overdue.
    async fn overrun(&self) {
        loop {
            let due = self.core().abandoned;
            tokio::select! {
                biased;
                () = self.was_abandoned.notified() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if self.host.calls.is_stuck(&self.calls) {
                        return;
                    }
                    // Those abandoned later are looked at in their time.
                    let next = self.host.calls.next_deadline(&self.calls);
                    self.core().abandoned = next;
                }
            }
        }
    }

    /// Returns when a quiet link leaves a probe unanswered.
    async fn silence(&self) {
        loop {
            let config = self.host.config();
            let interval = backoff::spread(config.heartbeat_interval);
            while let Some(left) = interval.checked_sub(self.last_active().elapsed())
                && !left.is_zero()
            {
                tokio::time::sleep(left).await;
            }
            // While calls are in flight on it, they are its probe.
            let Some(place) = self.calls.try_acquire() else {
                tokio::time::sleep(interval).await;
                continue;
            };
            let Some(link) = self.link() else { return };
            if self.probe(&link, place, Instant::now() + config.heartbeat_timeout).await.is_err() {
                return;
            }
        }
    }

    /// Asks the far side for a sign of life, by `deadline`. The place among the calls in flight is held until the
    /// probe is really over: when its caller goes away before, it is looked at again when no link may be silent any more.
    async fn probe(
        &self,
        link: &Arc<C::Link>,
        place: Permit,
        deadline: Instant,
    ) -> Result<(), Arc<ConnectError>> {
        let began = Instant::now();
        let patience = began + self.host.config().heartbeat_timeout;
        let mut in_flight = self.host.calls.begin_probe(Some((&self.calls, place)), patience);
        in_flight.activity = Some(self.activity.token());
        let abandoned = OnAbandon { connection: self, deadline: patience };
        let probe = self.host.connector.probe(link, in_flight, patience);
        let answer = timeout_at(deadline, probe).await;
        if answer.is_ok() {
            // It is over; the guard holds nothing to free.
            std::mem::forget(abandoned);
        }
        let result = match answer {
            Ok(Ok(())) => {
                self.last_active.set(Instant::now());
                Ok(())
            }
            Ok(Err(error)) => Err(Arc::new(error)),
            Err(_) => Err(Arc::new(ConnectError::new(
                ErrorKind::CallTimeout,
                "the probe was not answered in time".to_owned(),
            ))),
        };
        self.host.heard_of_heartbeat(began, &result);
        result
    }

    /// Whether the host answers over this connection: it is up, its socket is open, and a cheap real call
    /// is answered by `deadline`.
    ///
    /// A connection that turns out dead is replaced. Cancel safe.
    pub(crate) async fn is_alive_by(&self, deadline: Instant) -> bool {
        let Some(link) = self.link() else { return false };
        // Behind the calls in flight, which say nothing of the link until they end.
        let Ok(place) = timeout_at(deadline, self.calls.acquire()).await else { return false };
        let patience = Instant::now() + self.host.config().heartbeat_timeout;
        let mut cause = LossCause::Closed;
        if self.host.connector.is_open(&link) {
            cause = LossCause::ProbeFailed;
            match self.probe(&link, place, deadline.min(patience)).await {
                Ok(()) => return true,
                // The caller had less patience than a link may ask for: that says nothing of the link.
                Err(error) if error.kind == ErrorKind::CallTimeout && deadline < patience => return false,
                Err(_) => {}
            }
        }
        self.report(Trouble::Lost(cause), &link);
        false
    }

    /// Runs one call over the link; see [`PooledConnection::call`](crate::PooledConnection::call).
    pub(crate) async fn call<T, F, Fut>(
        &self,
        operation: &'static str,
        lane: Option<Lane>,
        attempt: u32,
        deadline: Instant,
        start: F,
    ) -> Result<T>
    where
        F: FnOnce(Arc<C::Link>, InFlight) -> Fut,
        Fut: Future<Output = Result<T, CallFailure>>,
    {
        let asked = Instant::now();
        let (host, connection) = (&self.host.id, self.id);
        let span = tracing::debug_span!("call", %host, operation, connection);
        let call = CallInfo { host, operation, lane, connection, attempt, asked, deadline };
        let result = self.call_intercepted(call, start).instrument(span).await;
        self.counts.add(result.is_err());
        let now = Instant::now();
        self.host.tally.call(&result, now - asked);
        let mut core = self.core();
        core.latencies.record(now - asked);
        if let Err(error) = &result {
            core.last_error = Some((now, error.clone()));
        }
        drop(core);
        result
    }

    async fn call_intercepted<T, F, Fut>(&self, call: CallInfo<'_>, start: F) -> Result<T>
    where
        F: FnOnce(Arc<C::Link>, InFlight) -> Fut,
        Fut: Future<Output = Result<T, CallFailure>>,
    {
        let passage = self.host.interceptors.admit(call, &self.host.rate_limit).await?;
        let result = self.call_admitted(call, start).await;
        if let Some(passage) = passage {
            passage.ended(&result);
        }
        result
    }

    async fn call_admitted<T, F, Fut>(&self, call: CallInfo<'_>, start: F) -> Result<T>
    where
        F: FnOnce(Arc<C::Link>, InFlight) -> Fut,
        Fut: Future<Output = Result<T, CallFailure>>,
    {
        let CallInfo { operation, lane, asked, deadline, .. } = call;
        let host = self.host.id.clone();
        let calls = &self.host.calls;
        let not_sent = || match calls.stuck() {
            0 => TransportError::CallTimeout {
                host: host.clone(),
                operation,
                after: asked.elapsed(),
                sent: false,
            },
            stuck => TransportError::StuckCalls { host: host.clone(), operation, stuck },
        };
        let admitted = tokio::select! {
            biased;
            admitted = timeout_at(deadline, self.admit(operation, lane, deadline)) => admitted,
            () = self.closing.cancelled() => return Err(TransportError::Closed { host }),
        };
        let Ok(admitted) = admitted else { return Err(not_sent()) };
        let (link, mut in_flight) = admitted?;
        in_flight.activity = Some(self.activity.token());
        let abandoned = OnAbandon { connection: self, deadline };
        let began = Instant::now();
        let answer = timeout_at(deadline, start(link.clone(), in_flight)).await;
        // The caller is still here; the guard holds nothing to free.
        std::mem::forget(abandoned);

        let result = match answer {
            Ok(answer) => self.ended(operation, lane, &link, answer),
            Err(_) => {
                self.report(Trouble::Suspect(Some(operation)), &link);
                if let Some(lane) = lane {
                    calls.overran(lane);
                }
                Err(TransportError::CallTimeout { host, operation, after: asked.elapsed(), sent: true })
            }
        };
        self.host.heard_of_call(began, lane, &result);
        result
    }

    /// Takes note of how a call ended, and says it in our words.
    fn ended<T>(
        &self,
        operation: &'static str,
        lane: Option<Lane>,
        link: &Arc<C::Link>,
        answer: Result<T, CallFailure>,
    ) -> Result<T> {
        if matches!(answer, Ok(_) | Err(CallFailure::Refused { .. })) {
            self.last_active.set(Instant::now());
            if let Some(lane) = lane {
                self.host.calls.answered(lane);
            }
        }
        let host = self.host.id.clone();
        answer.map_err(|failure| {
            if matches!(failure, CallFailure::Lost { .. }) {
                self.report(Trouble::Lost(LossCause::CallFailed), link);
            }
            failure.into_error(host, operation)
        })
    }

    /// Waits for the link and for a place among the calls in flight.
    async fn admit(
        &self,
        operation: &'static str,
        lane: Option<Lane>,
        deadline: Instant,
    ) -> Result<(Arc<C::Link>, InFlight)> {
        loop {
            self.ready(operation).await?;
            let in_flight = self.host.calls.admit(&self.calls, lane, deadline).await;
            // The link may have been lost while the call stood in line.
            if let Some(link) = self.link() {
                return Ok((link, in_flight));
            }
        }
    }

    /// Waits for the link to be up: a lease that outlives its link waits for the reconnect.
    async fn ready(&self, operation: &'static str) -> Result<()> {
        let mut state = self.state.subscribe();
        loop {
            let now = *state.borrow_and_update();
            if self.link().is_some() {
                return Ok(());
            }
            let host = self.host.id.clone();
            match now {
                ConnectionState::Failed => {
                    return Err(match self.last_connect_error() {
                        Some(source) => TransportError::Connect { host, source },
                        None => TransportError::ConnectionLost { host, operation, sent: false, source: None },
                    });
                }
                ConnectionState::Closed => return Err(TransportError::Closed { host }),
                _ => {}
            }
            // Fails only if the sender is gone, and the sender is a field of self.
            if state.changed().await.is_err() {
                return Err(TransportError::Closed { host });
            }
        }
    }

    fn link(&self) -> Option<Arc<C::Link>> {
        self.core().link.clone()
    }

    fn connected(&self, link: C::Link, first: bool) {
        let now = Instant::now();
        let down_for = {
            let mut core = self.core();
            core.link = Some(Arc::new(link));
            core.trouble = None;
            core.connected_at = now;
            core.gave_up = false;
            if !first {
                core.reconnects += 1;
            }
            self.last_active.set(now);
            self.usable.store(!self.closing.is_cancelled(), Ordering::Release);
            core.down_since.elapsed()
        };
        tracing::debug!(host = %self.host.id, "connected");
        self.enter(ConnectionState::Connected);
        let connection = self.id;
        if !first {
            self.host.tally.reconnected();
        }
        self.host.emit(match first {
            true => TransportEvent::Connected { connection },
            false => TransportEvent::Recovered { connection, down_for },
        });
    }

    fn emit_reconnecting(&self, attempt: u32, last_error: &Option<Arc<ConnectError>>) {
        let error = last_error.as_ref().map(ToString::to_string);
        self.host.emit(TransportEvent::Reconnecting { connection: self.id, attempt, error });
    }

    /// Lets go of a lost link; tells how long it had been up.
    fn disconnected(&self) -> Duration {
        let mut core = self.core();
        if self.usable.swap(false, Ordering::AcqRel) {
            core.down_since = Instant::now();
        }
        core.link = None;
        core.connected_at.elapsed()
    }

    /// Tells the driving task of trouble with a link, unless that link has been replaced since.
    fn report(&self, trouble: Trouble, link: &Arc<C::Link>) {
        let mut core = self.core();
        let current = core.link.as_ref().is_some_and(|current| Arc::ptr_eq(current, link));
        if current && core.trouble.is_none() {
            core.trouble = Some(trouble);
            if matches!(trouble, Trouble::Lost(_)) {
                // Calls on leases that are out wait for the next link from now on.
                core.link = None;
            }
            if self.usable.swap(false, Ordering::AcqRel) {
                core.down_since = Instant::now();
            }
            self.trouble.notify_one();
        }
    }

    fn enter(&self, state: ConnectionState) {
        self.state.send_replace(state);
        (self.on_change)();
    }

    fn core(&self) -> MutexGuard<'_, Core<C>> {
        // Nothing under this lock can panic half-way, so a poisoned one still guards sound data.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
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
