//! The connections of one host: lent out, grown, reaped, drained.
//!
//! Leases are granted in the order they were asked for. Connections are opened and closed by one task of
//! the pool's own, the keeper, so that a caller who gives up never aborts a connect that others wait for,
//! and giving a lease back needs no runtime.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::Guard;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior, sleep_until, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::breaker::{BreakerStatus, Probe};
use crate::config::TransportConfig;
use crate::connection::HostConnection;
use crate::connector::Connector;
use crate::context::HostContext;
use crate::dedicated::Dedicated;
use crate::error::{AcquireStage, Result, TransportError};
use crate::events::{ReapReason, TransportEvent};
use crate::health::Health;
use crate::host::{HostId, HostInfo};
use crate::lease::PooledConnection;
use crate::leases::{LeaseKey, LongHeld};
use crate::members::Members;
use crate::stats::PoolStats;
use crate::terms::Terms;

/// The connections of one host.
pub struct ConnectionPool<C: Connector> {
    shared: Arc<Shared<C>>,
    /// Ends the keeper and all connections when the pool is dropped.
    _closing: DropGuard,
}

/// What the pool, its keeper, its connections and its leases share.
pub(crate) struct Shared<C: Connector> {
    host: Arc<HostContext<C>>,
    members: Mutex<Members<C>>,
    /// Wakes the keeper.
    attention: Notify,
    /// Wakes whoever waits for leases to come back.
    returned: Notify,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl<C: Connector> ConnectionPool<C> {
    /// Starts the pool of a host; connections up to the minimum are opened in the background.
    ///
    /// Must be called within a tokio runtime.
    pub(crate) fn new(host: Arc<HostContext<C>>) -> Self {
        let closing = CancellationToken::new();
        let members = {
            let config = host.config();
            let pool = &config.pool;
            Members::new(pool.min_connections_per_host, pool.max_connections_per_host, Terms::of(&config))
        };
        let shared = Arc::new(Shared {
            host,
            members: Mutex::new(members),
            attention: Notify::new(),
            returned: Notify::new(),
            closing: closing.clone(),
            tasks: TaskTracker::new(),
        });
        shared.tasks.spawn(keep(shared.clone()));
        ConnectionPool { shared, _closing: closing.drop_guard() }
    }

    /// The host it leads to.
    pub fn host_id(&self) -> &HostId {
        &self.shared.host.id
    }

    pub(crate) fn host(&self) -> &HostContext<C> {
        &self.shared.host
    }

    /// What is known of the host now.
    pub fn info(&self) -> Arc<HostInfo> {
        self.shared.host.info()
    }

    /// The host's configuration as it is now.
    pub fn config(&self) -> Arc<TransportConfig> {
        Guard::into_inner(self.shared.host.config())
    }

    /// The way to links of one's own beside the pool.
    pub(crate) fn dedicated(&self) -> Dedicated<C> {
        Dedicated::new(self.shared.host.clone(), self.shared.closing.clone())
    }

    /// Lends a connection, as [`acquire`](Self::acquire) does, within the configured
    /// [`acquire_timeout`](crate::PoolConfig::acquire_timeout).
    ///
    /// # Errors
    /// Those of [`acquire`](Self::acquire). Cancel safe as that is.
    #[track_caller]
    pub fn get(&self) -> impl Future<Output = Result<PooledConnection<C>>> + Send {
        let taken_at = Location::caller();
        async move {
            let asked = Instant::now();
            match self.shared.ask(asked, taken_at) {
                // As in `acquire_from`; how long to wait is looked up for those who have to.
                Asked::Granted(lease) if lease.is_fresh() => Ok(lease),
                answer => {
                    let patience = self.shared.host.config().pool.acquire_timeout;
                    self.see_through(answer, asked, asked + patience, taken_at).await
                }
            }
        }
    }

    /// Lends a connection, as soon as one can carry another lease, and by `deadline` at the latest.
    ///
    /// # Errors
    /// [`TransportError::Connect`] at once when the host counts as failed; [`TransportError::AcquireTimeout`]
    /// with what was being waited for; [`TransportError::Closed`].
    ///
    /// Cancel safe: the place in line is given up, and a lease that was on its way goes to the next.
    #[track_caller]
    pub fn acquire(&self, deadline: Instant) -> impl Future<Output = Result<PooledConnection<C>>> + Send {
        let taken_at = Location::caller();
        async move { self.acquire_from(Instant::now(), deadline, taken_at).await }
    }

    /// For a caller who asked at some moment: its place in line goes by that.
    pub(crate) async fn acquire_from(
        &self,
        asked: Instant,
        deadline: Instant,
        taken_at: &'static Location<'static>,
    ) -> Result<PooledConnection<C>> {
        match self.shared.ask(asked, taken_at) {
            // What most get: it goes straight to the caller, for each further hand it passes through costs.
            Asked::Granted(lease) if lease.is_fresh() => Ok(lease),
            answer => self.see_through(answer, asked, deadline, taken_at).await,
        }
    }

    /// What comes of asking where it takes more than being granted a lease.
    async fn see_through(
        &self,
        answer: Asked<'_, C>,
        asked: Instant,
        deadline: Instant,
        taken_at: &'static Location<'static>,
    ) -> Result<PooledConnection<C>> {
        let result = self.live_lease(answer, asked, deadline, taken_at).await;
        if let Err(error) = &result {
            self.shared.host.heard_of_acquire(asked, error);
        }
        result
    }

    /// A lease of a connection that answers, if it was quiet for long.
    async fn live_lease(
        &self,
        mut answer: Asked<'_, C>,
        asked: Instant,
        deadline: Instant,
        taken_at: &'static Location<'static>,
    ) -> Result<PooledConnection<C>> {
        loop {
            let lease = match answer {
                Asked::Granted(lease) => lease,
                Asked::Refused(error) => return Err(error),
                Asked::Waiting(granted, place) => self.granted(granted, place, deadline).await?,
            };
            if lease.is_fresh() || lease.is_alive_by(deadline).await {
                return Ok(lease);
            }
            drop(lease);
            if Instant::now() >= deadline {
                return Err(self.shared.timed_out(asked));
            }
            // A caller whose connection turns out dead keeps the place it got by asking first.
            answer = self.shared.ask(asked, taken_at);
        }
    }

    /// Waits for what comes to a place in line.
    async fn granted(
        &self,
        mut granted: oneshot::Receiver<Result<PooledConnection<C>>>,
        place: Place<'_, C>,
        deadline: Instant,
    ) -> Result<PooledConnection<C>> {
        match timeout_at(deadline, &mut granted).await {
            Ok(Ok(result)) => {
                // Served, and so out of the line already; the place holds nothing to free.
                std::mem::forget(place);
                result
            }
            Ok(Err(_)) => Err(self.shared.closed()),
            // A grant may have come in the same instant; it is in the channel then.
            Err(_) => granted.try_recv().unwrap_or_else(|_| Err(self.shared.timed_out(place.asked))),
        }
    }

    /// Asks whether work may be sent to the host; with a probe's place, if the work has to find out whether it
    /// answers.
    ///
    /// # Errors
    /// [`TransportError::CircuitOpen`]; and what [`acquire`](Self::acquire) would say at once to a host that counts
    /// as failed: while the pool cannot connect, that is the better answer, and no probe.
    pub(crate) fn admit(&self) -> Result<Option<Probe<'_>>> {
        let host = &self.shared.host;
        if host.breaker.is_closed() {
            return Ok(None);
        }
        let hopeless = self.shared.members().hopeless(host);
        hopeless.map_or_else(|| host.admit(), Err)
    }

    /// Whether work would be taken now, and not refused at once.
    pub(crate) fn is_ready(&self) -> bool {
        let host = &self.shared.host;
        self.shared.members().hopeless(host).is_none() && host.breaker.would_admit(Instant::now())
    }

    /// Leases, and callers who wait for one.
    pub(crate) fn in_flight(&self) -> usize {
        let members = self.shared.members();
        members.leases.count() + members.waiters.len()
    }

    /// The error for work whose probe was not answered.
    pub(crate) fn still_open(&self, probe: Probe<'_>) -> TransportError {
        drop(probe);
        self.shared.host.circuit_open()
    }

    /// The host's circuit breaker, at this moment.
    pub fn breaker(&self) -> BreakerStatus {
        self.shared.host.breaker.status()
    }

    /// Counts the connections and what they do, at this moment.
    pub fn stats(&self) -> PoolStats {
        self.shared.members().stats(&self.shared.host)
    }

    /// How the host was when it was last looked at: see [`TransportManager::health`](crate::TransportManager::health).
    pub fn health(&self) -> Health {
        self.shared.host.health.report()
    }

    /// The connections, whatever their state.
    pub fn connections(&self) -> Vec<Arc<HostConnection<C>>> {
        self.shared.members().connections.clone()
    }

    /// Sets how many connections there may be. Connections that are too many are closed when their leases are
    /// back; those missing to the minimum are opened in the background.
    ///
    /// # Errors
    /// [`TransportError::Config`] when `max` is 0 or less than `min`.
    pub fn resize(&self, min: usize, max: usize) -> Result<()> {
        let mut config = TransportConfig::clone(&self.shared.host.config());
        config.pool.min_connections_per_host = min;
        config.pool.max_connections_per_host = max;
        config.validate()?;
        let mut members = self.shared.members();
        (members.min, members.max, members.complete) = (min, max, false);
        drop(members);
        self.shared.attention.notify_one();
        Ok(())
    }

    /// Has the host be known and configured like this from now on, without dropping work. What is drawn or counted
    /// when a connection is made (its lifetime), and keepalive, hold for connections opened from then on. Calls
    /// of this must not overlap.
    pub(crate) fn reconfigure(&self, info: HostInfo, config: TransportConfig) {
        let shared = &self.shared;
        let before = Guard::into_inner(shared.host.config());
        let size = |config: &TransportConfig| {
            (config.pool.min_connections_per_host, config.pool.max_connections_per_host)
        };
        let (old_size, new_size) = (size(&before), size(&config));
        let mut members = shared.members();
        // A size set by `resize` stays until the configuration has another to say.
        if new_size != old_size {
            (members.min, members.max) = new_size;
        }
        members.complete = false;
        for connection in &members.connections {
            connection.reconfigure(&config);
        }
        members.terms = Terms::of(&config);
        shared.host.reconfigure(info, config);
        drop(members);
        // Those who wait may find room now.
        shared.serve();
    }

    /// Takes no new work, waits up to `drain` for leases to come back, then closes every connection.
    ///
    /// Work still running then finds its connection closed. Returns whether all leases had come back.
    /// Cancel safe: when cancelled the pool stays closed to new work.
    pub async fn close(&self, drain: Duration) -> bool {
        let deadline = Instant::now() + drain;
        self.shared.host.health.leave();
        let waiters = {
            let mut members = self.shared.members();
            members.draining = true;
            std::mem::take(&mut members.waiters)
        };
        for waiter in waiters {
            // An error means that the waiter has left already.
            let _left = waiter.grant.send(Err(self.shared.closed()));
        }
        let drained = timeout_at(deadline, self.shared.drained()).await.is_ok();
        self.shared.closing.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        drained
    }
}

impl<C: Connector> fmt::Debug for ConnectionPool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionPool")
            .field("host", &self.shared.host.id)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// The answer to a caller who asks for a lease.
enum Asked<'a, C: Connector> {
    Granted(PooledConnection<C>),
    Refused(TransportError),
    Waiting(oneshot::Receiver<Result<PooledConnection<C>>>, Place<'a, C>),
}

/// A caller's place in line, given up when the caller goes away.
struct Place<'a, C: Connector> {
    shared: &'a Shared<C>,
    asked: Instant,
    id: u64,
}

impl<C: Connector> Drop for Place<'_, C> {
    fn drop(&mut self) {
        self.shared.members().leave(self.asked, self.id);
    }
}

impl<C: Connector> Shared<C> {
    fn ask(self: &Arc<Self>, asked: Instant, taken_at: &'static Location<'static>) -> Asked<'_, C> {
        let mut members = self.members();
        if members.draining {
            return Asked::Refused(self.closed());
        }
        if members.waiters.front().is_none_or(|first| first.asked > asked)
            && let Some(connection) = members.choose(asked)
        {
            return Asked::Granted(self.lend(&mut members, connection, Duration::ZERO, asked, taken_at));
        }
        let complete = members.complete;
        if !complete && let Some(error) = members.hopeless(&self.host) {
            return Asked::Refused(error);
        }
        let (id, granted) = members.queue(asked, taken_at);
        let limit = members.newly_at_limit();
        drop(members);
        if let Some(limit) = limit {
            self.host.emit(limit);
        }
        if !complete {
            self.attention.notify_one();
        }
        Asked::Waiting(granted, Place { shared: self, asked, id })
    }

    fn lend(
        self: &Arc<Self>,
        members: &mut Members<C>,
        connection: Arc<HostConnection<C>>,
        waited: Duration,
        now: Instant,
        taken_at: &'static Location<'static>,
    ) -> PooledConnection<C> {
        members.waits.record(waited);
        let key = members.leases.take(now, taken_at);
        PooledConnection::new(self.clone(), connection, key, now, members.terms.validate_after)
    }

    /// Takes a lease back. Neither blocks nor spawns: it runs when a lease is dropped.
    pub(crate) fn give_back(
        self: &Arc<Self>,
        connection: &Arc<HostConnection<C>>,
        key: LeaseKey,
        now: Instant,
    ) {
        let mut members = self.members();
        if let Some(held_for) = members.leases.give_back(key, now) {
            members.uses.record(held_for);
        }
        if members.draining {
            self.returned.notify_waiters();
        }
        if members.waiters.is_empty() {
            return;
        }
        // Nothing else came free, or those who wait would have it: whoever is first gets what came back.
        if members.complete
            && members.use_again(connection)
            && let Some(waiter) = members.waiters.pop_front()
        {
            let waited = now - waiter.asked;
            let lease = self.lend(&mut members, connection.clone(), waited, now, waiter.taken_at);
            drop(members);
            // A lease nobody claims is dropped here, and goes to the next.
            let _unclaimed = waiter.grant.send(Ok(lease));
        } else {
            drop(members);
            self.serve();
        }
    }

    /// Grants leases to those who wait, as far as there is room, and has the keeper see to the rest. Neither
    /// blocks nor spawns.
    fn serve(self: &Arc<Self>) {
        let mut members = self.members();
        let unclaimed = self.grant(&mut members);
        drop(members);
        // A lease nobody claimed is given back here, outside the lock it takes to do so.
        drop(unclaimed);
        self.attention.notify_one();
    }

    /// Grants leases to those who wait, as far as there is room; returns those whose callers had left.
    #[must_use = "leases are given back when dropped, which takes the lock"]
    fn grant(self: &Arc<Self>, members: &mut Members<C>) -> Vec<Result<PooledConnection<C>>> {
        let now = Instant::now();
        let mut unclaimed = Vec::new();
        members.sweep();
        while let Some(waiter) = members.waiters.pop_front() {
            let result = if let Some(connection) = members.choose(waiter.asked) {
                Ok(self.lend(members, connection, now - waiter.asked, now, waiter.taken_at))
            } else if let Some(error) = members.hopeless(&self.host) {
                Err(error)
            } else {
                members.waiters.push_front(waiter);
                break;
            };
            if let Err(result) = waiter.grant.send(result) {
                unclaimed.push(result);
            }
        }
        unclaimed
    }

    /// Opens and closes connections until their number is right. Runs in the keeper's task only.
    fn maintain(self: &Arc<Self>) {
        let mut members = self.members();
        // First those who can be served: a connection is opened only for somebody who still waits then.
        let unclaimed = self.grant(&mut members);
        let (mut opened, mut events) = (Vec::new(), Vec::new());
        if !members.draining {
            while let Some(reason) = members.wants_more() {
                let connection = self.open();
                members.connections.push(connection.clone());
                members.has_grown(&connection);
                let connections = members.in_service().count();
                let id = connection.connection_id();
                events.push(TransportEvent::PoolGrown { connection: id, reason, connections });
                opened.push(connection);
            }
            for (connection, reason) in members.surplus(&self.host) {
                tracing::debug!(host = %self.host.id, ?reason, "closing a connection");
                if connection.retire() {
                    let connection = connection.connection_id();
                    events.push(TransportEvent::PoolReaped { connection, reason });
                }
            }
        }
        drop(members);
        drop(unclaimed);
        // What a connection does is told after that it was opened.
        events.into_iter().for_each(|event| self.host.emit(event));
        for connection in opened {
            self.tasks.spawn(connection.drive());
        }
    }

    /// Looks after what only time changes. Runs in the keeper's task only.
    fn look_around(self: &Arc<Self>) {
        self.host.calls.tidy();
        let now = Instant::now();
        let mut members = self.members();
        members.look_at_load(&self.host);
        let limit = self.host.config().pool.report_leases_after;
        let long_held = if limit.is_zero() { Vec::new() } else { members.leases.newly_long_held(limit, now) };
        let outlived = members.connections.iter().filter(|c| c.has_outlived(now));
        let expired: Vec<_> = outlived.filter(|c| c.retire()).map(|c| c.connection_id()).collect();
        drop(members);
        for LongHeld { held_for, taken_at } in long_held {
            tracing::warn!(
                host = %self.host.id, ?held_for, %taken_at, "a lease is held for long; was it forgotten?"
            );
            self.host.emit(TransportEvent::LeaseHeldLong { held_for, taken_at: taken_at.to_string() });
        }
        for connection in expired {
            tracing::debug!(host = %self.host.id, connection, "replacing an old connection");
            self.host.emit(TransportEvent::PoolReaped { connection, reason: ReapReason::Expired });
        }
        self.host.look_at_stuck_calls();
    }

    /// Looks at how the host is, and tells if that has changed. Runs in the keeper's task only.
    fn look_at_health(&self) {
        let Shared { host, .. } = self;
        let changed = host
            .health
            .look(&host.tally.now(), &host.config().health, |lately| self.members().vitals(host, &lately));
        if let Some(event) = changed {
            host.emit(event);
        }
        host.health.look_at_fleet();
    }

    fn open(self: &Arc<Self>) -> Arc<HostConnection<C>> {
        let pool = Arc::downgrade(self);
        let on_change = move || {
            if let Some(pool) = pool.upgrade() {
                pool.serve();
            }
        };
        HostConnection::new(self.host.clone(), self.closing.child_token(), on_change)
    }

    /// Returns when there is no lease left.
    async fn drained(&self) {
        loop {
            let mut returned = pin!(self.returned.notified());
            returned.as_mut().enable();
            if self.members().leases.count() == 0 {
                return;
            }
            returned.await;
        }
    }

    fn closed(&self) -> TransportError {
        TransportError::Closed { host: self.host.id.clone() }
    }

    fn timed_out(&self, asked: Instant) -> TransportError {
        let stats = self.members().stats(&self.host);
        let connected = stats.idle_connections + stats.active_connections;
        let stage = if connected > 0 { AcquireStage::AllInUse } else { AcquireStage::Connecting };
        let waited = asked.elapsed();
        self.host.tally.acquire_timed_out(stage);
        self.host.emit(TransportEvent::AcquireTimedOut { stage, waited });
        TransportError::AcquireTimeout {
            host: self.host.id.clone(),
            stage,
            waited,
            source: if connected > 0 { None } else { self.host.reconnect.last_error() },
            stats: Box::new(stats),
        }
    }

    fn members(&self) -> MutexGuard<'_, Members<C>> {
        // Nothing under this lock can panic half-way, so a poisoned one still guards sound data.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keeper: minds the number of connections whenever something changes, and now and then.
async fn keep<C: Connector>(shared: Arc<Shared<C>>) {
    let interval = || shared.host.config().pool.maintenance_interval;
    let mut tick = every(interval());
    let mut looked = Instant::now();
    loop {
        if tick.period() != interval() {
            tick = every(interval());
        }
        let patience_ends = shared.members().patience_ends();
        let look_every = shared.host.config().health.interval;
        tokio::select! {
            // Attention may be called for all the time, and must not keep the rest from its turn.
            biased;
            () = shared.closing.cancelled() => return,
            _ = tick.tick() => shared.look_around(),
            () = sleep_until(looked + look_every), if !look_every.is_zero() => {
                shared.look_at_health();
                looked = Instant::now();
                continue;
            }
            () = sleep_until(patience_ends.unwrap_or_else(Instant::now)), if patience_ends.is_some() => {}
            () = shared.attention.notified() => {}
        }
        shared.maintain();
    }
}

fn every(period: Duration) -> Interval {
    let mut tick = tokio::time::interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}
