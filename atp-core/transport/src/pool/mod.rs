//! The connections of one host: lent out, grown, reaped, drained.
//!
//! Leases are granted in the order they were asked for. Connections are opened and closed by one task of
//! the pool's own, the keeper, so that a caller who gives up never aborts a connect that others wait for,
//! and giving a lease back needs no runtime.

mod acquire;
mod autoscale;
mod keeper;
mod lease;
mod leases;
mod shared;
mod snapshot;
mod state;
pub(crate) mod stats;
mod strategy;
mod terms;
mod wait_queue;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::Guard;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::admission::breaker::{BreakerStatus, Probe};
use crate::config::TransportConfig;
use crate::connection::HostConnection;
use crate::connection::connector::Connector;
use crate::connection::unpooled::UnpooledLinks;
use crate::error::{Result, TransportError};
use crate::host::state::HostState;
use crate::host::{HostId, HostInfo};
use crate::observe::health::Health;
use crate::pool::stats::PoolStats;
use keeper::keep;
use shared::PoolShared;
use state::PoolState;
use terms::Terms;

pub use lease::PooledConnection;

/// The connections of one host.
pub struct ConnectionPool<C: Connector> {
    shared: Arc<PoolShared<C>>,
    /// Ends the keeper and all connections when the pool is dropped.
    _closing: DropGuard,
}

impl<C: Connector> ConnectionPool<C> {
    /// Starts the pool of a host; connections up to the minimum are opened in the background.
    ///
    /// Must be called within a tokio runtime.
    pub(crate) fn new(host: Arc<HostState<C>>) -> Self {
        let closing = CancellationToken::new();
        let state = {
            let config = host.config();
            let pool = &config.pool;
            let terms = Terms::of(&config);
            PoolState::new(pool.min_connections_per_host, pool.max_connections_per_host, terms)
        };
        let shared = Arc::new(PoolShared {
            host,
            state: Mutex::new(state),
            attention: Notify::new(),
            returned: Notify::new(),
            closing: closing.clone(),
            tasks: TaskTracker::new(),
            unplaced: AtomicUsize::new(0),
        });
        shared.tasks.spawn(keep(shared.clone()));
        ConnectionPool { shared, _closing: closing.drop_guard() }
    }

    /// The host it leads to.
    pub fn host_id(&self) -> &HostId {
        &self.shared.host.id
    }

    pub(crate) fn host(&self) -> &HostState<C> {
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
    pub(crate) fn dedicated(&self) -> UnpooledLinks<C> {
        UnpooledLinks::new(self.shared.host.clone(), self.shared.closing.clone())
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
        let fail_fast = self.shared.state().fail_fast(host);
        fail_fast.map_or_else(|| host.admit(), Err)
    }

    /// Whether work would be taken now, and not refused at once.
    pub(crate) fn is_ready(&self) -> bool {
        let host = &self.shared.host;
        self.shared.state().fail_fast(host).is_none() && host.breaker.would_admit(Instant::now())
    }

    /// Leases, and callers who wait for one.
    pub(crate) fn in_flight(&self) -> usize {
        let state = self.shared.state();
        state.leases.count() + state.wait_queue.len()
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
        self.shared.stats()
    }

    /// How the host was when it was last looked at: see [`TransportManager::health`](crate::TransportManager::health).
    pub fn health(&self) -> Health {
        self.shared.host.health.report()
    }

    /// The connections, whatever their state.
    pub fn connections(&self) -> Vec<Arc<HostConnection<C>>> {
        self.shared.state().connections.clone()
    }

    /// Sets how many connections there may be, as far as [links of this kind](Connector::adapt) allow that. Connections
    /// that are too many are closed when their leases are back; those missing to the minimum are opened in the
    /// background.
    ///
    /// # Errors
    /// [`TransportError::Config`] when `max` is 0 or less than `min`.
    pub fn resize(&self, min: usize, max: usize) -> Result<()> {
        let mut config = TransportConfig::clone(&self.shared.host.config());
        config.pool.min_connections_per_host = min;
        config.pool.max_connections_per_host = max;
        config.validate()?;
        let pool = self.shared.host.connector.adapt(&self.shared.host.info(), config).pool;
        let mut state = self.shared.state();
        (state.min, state.max) = (pool.min_connections_per_host, pool.max_connections_per_host);
        state.complete = false;
        drop(state);
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
        let mut state = shared.state();
        // A size set by `resize` stays until the configuration has another to say.
        if new_size != old_size {
            (state.min, state.max) = new_size;
        }
        state.complete = false;
        shared.host.reconfigure(info, config.clone());
        for connection in &state.connections {
            connection.reconfigure(&config);
        }
        state.terms = Terms::of(&config);
        drop(state);
        shared.host.breaker_reconfigured();
        // Those who wait may find room now.
        shared.serve();
    }

    /// Takes no new work, waits up to `drain` for leases to come back, then closes every connection.
    ///
    /// Work still running then finds its connection closed. Returns whether all leases had come back.
    /// Cancel safe: when cancelled the pool stays closed to new work.
    pub async fn close(&self, drain: Duration) -> bool {
        self.shared.host.health.leave();
        let waiters = {
            let mut state = self.shared.state();
            state.draining = true;
            state.wait_queue.clear()
        };
        for waiter in waiters {
            // An error means that the waiter has left already.
            let _left = waiter.grant.send(Err(Box::new(self.shared.closed())));
        }
        let drained = timeout(drain, self.shared.drained()).await.is_ok();
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
