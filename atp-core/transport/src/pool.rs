//! The connections of one host: lent out, grown, reaped, drained.
//!
//! Leases are granted in the order they were asked for. Connections are opened and closed by one task of
//! the pool's own, the keeper, so that a caller who gives up never aborts a connect that others wait for,
//! and giving a lease back needs no runtime.

use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, MissedTickBehavior, sleep_until, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::config::Strategy;
use crate::connection::{ConnectionState, HostConnection};
use crate::connector::Connector;
use crate::context::HostContext;
use crate::error::{AcquireStage, Result, TransportError};
use crate::lease::PooledConnection;
use crate::stats::PoolStats;

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

struct Members<C: Connector> {
    connections: Vec<Arc<HostConnection<C>>>,
    waiters: VecDeque<Waiter<C>>,
    next_waiter: u64,
    /// Where round robin goes on.
    turn: usize,
    draining: bool,
}

struct Waiter<C: Connector> {
    id: u64,
    grant: oneshot::Sender<Result<PooledConnection<C>>>,
}

impl<C: Connector> ConnectionPool<C> {
    /// Starts the pool of a host; connections up to the minimum are opened in the background.
    ///
    /// Must be called within a tokio runtime.
    pub(crate) fn new(host: Arc<HostContext<C>>) -> Self {
        let closing = CancellationToken::new();
        let shared = Arc::new(Shared {
            host,
            members: Mutex::new(Members {
                connections: Vec::new(),
                waiters: VecDeque::new(),
                next_waiter: 0,
                turn: 0,
                draining: false,
            }),
            attention: Notify::new(),
            returned: Notify::new(),
            closing: closing.clone(),
            tasks: TaskTracker::new(),
        });
        shared.tasks.spawn(keep(shared.clone()));
        ConnectionPool { shared, _closing: closing.drop_guard() }
    }

    /// Lends a connection, as soon as one can carry another lease, and by `deadline` at the latest.
    ///
    /// # Errors
    /// [`TransportError::Connect`] at once when the host counts as failed; [`TransportError::AcquireTimeout`]
    /// with what was being waited for; [`TransportError::Closed`].
    ///
    /// Cancel safe: the place in line is given up, and a lease that was on its way goes to the next.
    pub async fn acquire(&self, deadline: Instant) -> Result<PooledConnection<C>> {
        let asked = Instant::now();
        let (id, mut granted) = match self.shared.ask() {
            Asked::Granted(lease) => return Ok(lease),
            Asked::Refused(error) => return Err(error),
            Asked::Waiting(id, granted) => (id, granted),
        };
        let _place = Place { shared: &self.shared, id };
        match timeout_at(deadline, &mut granted).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(self.shared.closed()),
            // A grant may have come in the same instant; it is in the channel then.
            Err(_) => granted.try_recv().unwrap_or_else(|_| Err(self.shared.timed_out(asked))),
        }
    }

    /// Counts the connections and what they do, at this moment.
    pub fn stats(&self) -> PoolStats {
        self.shared.stats()
    }

    /// The connections, whatever their state.
    pub fn connections(&self) -> Vec<Arc<HostConnection<C>>> {
        self.shared.members().connections.clone()
    }

    /// Takes no new work, waits up to `drain` for leases to come back, then closes every connection.
    ///
    /// Work still running then finds its connection closed. Returns whether all leases had come back.
    /// Cancel safe: when cancelled the pool stays closed to new work.
    pub async fn close(&self, drain: Duration) -> bool {
        let deadline = Instant::now() + drain;
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

enum Asked<C: Connector> {
    Granted(PooledConnection<C>),
    Refused(TransportError),
    Waiting(u64, oneshot::Receiver<Result<PooledConnection<C>>>),
}

/// A caller's place in line, given up when the caller goes away.
struct Place<'a, C: Connector> {
    shared: &'a Shared<C>,
    id: u64,
}

impl<C: Connector> Drop for Place<'_, C> {
    fn drop(&mut self) {
        self.shared.members().waiters.retain(|waiter| waiter.id != self.id);
    }
}

impl<C: Connector> Shared<C> {
    fn ask(self: &Arc<Self>) -> Asked<C> {
        let mut members = self.members();
        if members.draining {
            return Asked::Refused(self.closed());
        }
        if members.waiters.is_empty()
            && let Some(connection) = members.choose(&self.host)
        {
            return Asked::Granted(PooledConnection::new(self.clone(), connection));
        }
        if let Some(error) = members.hopeless(&self.host) {
            return Asked::Refused(error);
        }
        let (grant, granted) = oneshot::channel();
        let id = members.next_waiter;
        members.next_waiter += 1;
        members.waiters.push_back(Waiter { id, grant });
        drop(members);
        self.attention.notify_one();
        Asked::Waiting(id, granted)
    }

    /// Takes note that a lease has come back. Neither blocks nor spawns: it runs when a lease is dropped.
    pub(crate) fn give_back(self: &Arc<Self>) {
        let members = self.members();
        if members.draining {
            self.returned.notify_waiters();
        }
        let waiting = !members.waiters.is_empty();
        drop(members);
        if waiting {
            self.serve();
        }
    }

    /// Grants leases to those who wait, as far as there is room. Neither blocks nor spawns.
    fn serve(self: &Arc<Self>) {
        let mut unclaimed = Vec::new();
        {
            let mut members = self.members();
            members.connections.retain(|connection| connection.state() != ConnectionState::Closed);
            while !members.waiters.is_empty() {
                let result = if let Some(connection) = members.choose(&self.host) {
                    Ok(PooledConnection::new(self.clone(), connection))
                } else if let Some(error) = members.hopeless(&self.host) {
                    Err(error)
                } else {
                    break;
                };
                if let Some(waiter) = members.waiters.pop_front()
                    && let Err(result) = waiter.grant.send(result)
                {
                    unclaimed.push(result);
                }
            }
        }
        // A lease nobody claimed is given back here, outside the lock it takes to do so.
        drop(unclaimed);
        self.attention.notify_one();
    }

    /// Opens and closes connections until their number is right. Runs in the keeper's task only.
    fn maintain(self: &Arc<Self>) {
        self.host.calls.tidy();
        let pool = &self.host.config.pool;
        let mut members = self.members();
        members.connections.retain(|connection| connection.state() != ConnectionState::Closed);
        if members.draining {
            return;
        }
        while members.wants_more(&self.host) {
            let connection = self.open();
            members.connections.push(connection.clone());
            self.tasks.spawn(connection.drive());
        }
        let surplus = members.in_service().count().saturating_sub(pool.min_connections_per_host);
        let mut idle: Vec<_> =
            members.connections.iter().filter(|c| c.is_reapable(pool.idle_timeout)).collect();
        idle.sort_by_key(|connection| connection.last_used());
        for connection in idle.into_iter().take(surplus) {
            tracing::debug!(host = %self.host.id, "closing an idle connection");
            connection.close();
        }
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
            if self.stats().active_uses == 0 {
                return;
            }
            returned.await;
        }
    }

    fn stats(&self) -> PoolStats {
        let members = self.members();
        let mut stats = PoolStats {
            total_connections: 0,
            idle_connections: 0,
            active_connections: 0,
            connecting: 0,
            reconnecting: 0,
            failed: 0,
            suspect: 0,
            waiting: members.waiters.len(),
            active_uses: 0,
            calls_in_flight: self.host.calls.in_flight(),
            stuck_calls: self.host.calls.stuck(),
            requests: 0,
            errors: 0,
            strategy: self.host.config.pool.strategy,
        };
        for connection in &members.connections {
            let metrics = connection.metrics();
            let class = match connection.state() {
                ConnectionState::Closed => continue,
                ConnectionState::Idle | ConnectionState::Connecting => &mut stats.connecting,
                ConnectionState::Connected if metrics.active_uses == 0 => &mut stats.idle_connections,
                ConnectionState::Connected => &mut stats.active_connections,
                ConnectionState::Reconnecting { .. } => &mut stats.reconnecting,
                ConnectionState::Failed => &mut stats.failed,
                ConnectionState::Suspect => &mut stats.suspect,
            };
            *class += 1;
            stats.total_connections += 1;
            stats.active_uses += metrics.active_uses;
            stats.requests += metrics.requests;
            stats.errors += metrics.errors;
        }
        stats
    }

    fn closed(&self) -> TransportError {
        TransportError::Closed { host: self.host.id.clone() }
    }

    fn timed_out(&self, asked: Instant) -> TransportError {
        let stats = self.stats();
        let connected = stats.idle_connections + stats.active_connections;
        TransportError::AcquireTimeout {
            host: self.host.id.clone(),
            stage: if connected > 0 { AcquireStage::AllInUse } else { AcquireStage::Connecting },
            waited: asked.elapsed(),
            source: if connected > 0 { None } else { self.host.reconnect.last_error() },
            stats: Box::new(stats),
        }
    }

    fn members(&self) -> MutexGuard<'_, Members<C>> {
        // Nothing under this lock can panic half-way, so a poisoned one still guards sound data.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Connector> Members<C> {
    /// The connection for the next lease, if one can carry it.
    ///
    /// A connection is lent no more often than it may have calls in flight: a lease beyond that could find
    /// every place taken by calls that hang. Only when the pool cannot grow, or takes long to, are
    /// connections lent up to the configured limit.
    fn choose(&mut self, host: &HostContext<C>) -> Option<Arc<HostConnection<C>>> {
        let most = host.config.pool.max_uses_per_connection;
        let roomy = most.min(host.config.calls.max_per_connection);
        let at = self.next_with_room(host, roomy).or_else(|| {
            let shares = most > roomy && !self.grows(host);
            shares.then(|| self.next_with_room(host, most)).flatten()
        })?;
        self.turn = at + 1;
        self.connections.get(at).cloned()
    }

    /// Where the connection is that the strategy picks among those with fewer leases than `room`.
    fn next_with_room(&self, host: &HostContext<C>, room: usize) -> Option<usize> {
        let count = self.connections.len();
        let has_room =
            |at: &usize| self.connections.get(*at).is_some_and(|c| c.active_uses() < room && c.is_usable());
        match host.config.pool.strategy {
            Strategy::RoundRobin => (0..count).map(|step| (self.turn + step) % count).find(has_room),
        }
    }

    /// Why waiting would be in vain: there are connections, and all of them have given up.
    fn hopeless(&self, host: &HostContext<C>) -> Option<TransportError> {
        let mut members = self.connections.iter().filter(|c| c.state() != ConnectionState::Closed).peekable();
        members.peek()?;
        let source = host.reconnect.last_error()?;
        members
            .all(|connection| connection.gave_up())
            .then(|| TransportError::Connect { host: host.id.clone(), source })
    }

    /// Whether a further connection can be had before long.
    fn grows(&self, host: &HostContext<C>) -> bool {
        let pool = &host.config.pool;
        let (mut opening, mut delayed) = (false, false);
        for connection in self.in_service().filter(|c| !c.is_usable()) {
            if connection.gave_up() || connection.in_state_for() >= pool.grow_patience {
                delayed = true;
            } else {
                opening = true;
            }
        }
        opening || (!delayed && self.in_service().count() < pool.max_connections_per_host)
    }

    /// Whether another connection should be opened now. Beyond the minimum that is one at a time, for
    /// somebody who waits, and none while the host cannot be reached.
    fn wants_more(&self, host: &HostContext<C>) -> bool {
        let pool = &host.config.pool;
        let count = self.in_service().count();
        let settled = || self.in_service().all(|c| c.state() == ConnectionState::Connected);
        count < pool.min_connections_per_host
            || (!self.waiters.is_empty() && count < pool.max_connections_per_host && settled())
    }

    /// When those who wait for a connection to open should rather share one that is in use.
    fn patience_ends(&self, host: &HostContext<C>) -> Option<Instant> {
        let patience = host.config.pool.grow_patience;
        let opening = self.in_service().filter(|c| !c.is_usable() && c.in_state_for() < patience);
        let longest = opening.map(|c| c.in_state_for()).max()?;
        (!self.waiters.is_empty()).then(|| Instant::now() + (patience - longest))
    }

    /// The connections that count against the maximum.
    fn in_service(&self) -> impl Iterator<Item = &Arc<HostConnection<C>>> {
        self.connections
            .iter()
            .filter(|c| !matches!(c.state(), ConnectionState::Suspect | ConnectionState::Closed))
    }
}

/// The keeper: minds the number of connections whenever something changes, and now and then.
async fn keep<C: Connector>(shared: Arc<Shared<C>>) {
    let mut tick = tokio::time::interval(shared.host.config.pool.maintenance_interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let patience_ends = shared.members().patience_ends(&shared.host);
        tokio::select! {
            () = shared.closing.cancelled() => return,
            () = shared.attention.notified() => {}
            () = sleep_until(patience_ends.unwrap_or_else(Instant::now)), if patience_ends.is_some() => {
                shared.serve();
            }
            _ = tick.tick() => {}
        }
        shared.maintain();
    }
}
