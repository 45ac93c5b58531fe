//! What a pool holds at one moment, copied under its lock. Statistics are computed from the copy, when the
//! lock is free again.

use crate::config::SelectionStrategy;
use crate::connection::connector::Connector;
use crate::connection::{ConnectionState, HostConnection};
use crate::host::state::HostState;
use crate::observe::call_counters::CallCounts;
use crate::observe::health::Vitals;
use crate::observe::latency::Latencies;
use crate::pool::stats::PoolStats;

/// Counts of connections, leases and callers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Census {
    pub(crate) connecting: usize,
    pub(crate) idle: usize,
    pub(crate) active: usize,
    pub(crate) reconnecting: usize,
    pub(crate) failed: usize,
    pub(crate) suspect: usize,
    pub(crate) draining: usize,
    pub(crate) leases: usize,
    pub(crate) waiting: usize,
    pub(crate) max: usize,
}

/// A census, with what else the statistics are made of.
pub(crate) struct Snapshot {
    pub(crate) census: Census,
    pub(crate) long_held: usize,
    pub(crate) strategy: SelectionStrategy,
    pub(crate) waits: Latencies,
    pub(crate) uses: Latencies,
}

impl Census {
    /// Counts a connection by its state, whatever becomes of it meanwhile: each is counted once.
    pub(crate) fn add<C: Connector>(&mut self, connection: &HostConnection<C>) {
        let class = match connection.state() {
            ConnectionState::Closed => return,
            ConnectionState::Idle | ConnectionState::Connecting => &mut self.connecting,
            ConnectionState::Connected if connection.active_uses() == 0 => &mut self.idle,
            ConnectionState::Connected => &mut self.active,
            ConnectionState::Reconnecting { .. } => &mut self.reconnecting,
            ConnectionState::Failed => &mut self.failed,
            ConnectionState::Suspect => &mut self.suspect,
            ConnectionState::Draining => &mut self.draining,
        };
        *class += 1;
    }

    pub(crate) fn connected(&self) -> usize {
        self.idle + self.active
    }

    fn total(&self) -> usize {
        let Census { connecting, reconnecting, failed, suspect, draining, .. } = self;
        self.connected() + connecting + reconnecting + failed + suspect + draining
    }

    /// The numbers health is judged by, with what was counted lately. `unshared` is how many leases each connection
    /// can have without being shared.
    pub(crate) fn vitals<C: Connector>(
        &self,
        unshared: usize,
        host: &HostState<C>,
        lately: &CallCounts,
    ) -> Vitals {
        let is_down = self.reconnecting + self.failed > 0;
        let last_error = || host.reconnect.last_error().map(|error| error.to_string());
        Vitals {
            connected: self.connected(),
            connecting: self.connecting,
            reconnecting: self.reconnecting,
            failed: self.failed,
            utilisation: self.leases as f64 / (self.max as f64 * unshared as f64).max(1.0),
            breaker: host.breaker.status().state,
            waiting: self.waiting,
            rejected: lately.refusals,
            calls: lately.requests,
            unanswered: lately.unanswered,
            mean_latency: lately.mean(),
            p99_latency: lately.p99(),
            stuck_calls: host.calls.stuck(),
            last_connect_error: is_down.then(last_error).flatten(),
        }
    }
}

impl Snapshot {
    pub(crate) fn stats<C: Connector>(&self, host: &HostState<C>) -> PoolStats {
        let Snapshot { census, long_held, strategy, waits, uses } = self;
        let counted = host.counters.now();
        PoolStats {
            total_connections: census.total(),
            idle_connections: census.idle,
            active_connections: census.active,
            connecting: census.connecting,
            reconnecting: census.reconnecting,
            failed: census.failed,
            suspect: census.suspect,
            draining: census.draining,
            max_connections: census.max,
            waiting: census.waiting,
            total_active_uses: census.leases,
            long_held_leases: *long_held,
            calls_in_flight: host.calls.in_flight(),
            stuck_calls: host.calls.stuck(),
            unproven_calls: host.calls.unproven(),
            lanes: host.calls.lanes(),
            stuck_attempts: host.calls.stuck_attempts(),
            total_requests: counted.requests,
            total_errors: counted.errors,
            acquire_timeouts: counted.acquire_timeouts,
            reconnects: counted.reconnects,
            strategy: *strategy,
            wait_time: waits.percentiles(),
            use_time: uses.percentiles(),
        }
    }
}
