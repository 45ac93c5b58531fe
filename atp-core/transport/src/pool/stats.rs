//! What a pool looks like at one moment.

use std::fmt;

use serde::Serialize;

use crate::config::SelectionStrategy;
use crate::observe::latency::Percentiles;

/// The connections of one host at one moment.
///
/// `idle + active + connecting + reconnecting + failed + suspect + draining` is always `total`, and that is
/// at most the configured maximum, suspect and draining ones not counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PoolStats {
    /// All connections, in whatever state.
    pub total_connections: usize,
    /// Connected, with no lease on them.
    pub idle_connections: usize,
    /// Connected, with at least one lease on them.
    pub active_connections: usize,
    /// Being opened for the first time.
    pub connecting: usize,
    /// Lost, and being opened again.
    pub reconnecting: usize,
    /// Given up for now.
    pub failed: usize,
    /// Out of service because a call on them hangs.
    pub suspect: usize,
    /// Out of service because they are old, or too many; closed when their last lease is back.
    pub draining: usize,
    /// Most connections there may be, suspect and draining ones not counted.
    pub max_connections: usize,
    /// Callers waiting for a lease.
    pub waiting: usize,
    /// Leases.
    pub total_active_uses: usize,
    /// Leases held for longer than [`report_leases_after`](crate::PoolConfig::report_leases_after).
    pub long_held_leases: usize,
    /// Calls under way, with those that hang.
    pub calls_in_flight: usize,
    /// Calls past their deadline that have not returned.
    pub stuck_calls: usize,
    /// Calls under way to VMs that had not answered lately, with those that hang.
    pub unproven_calls: usize,
    /// Lanes in use, or whose VM has answered lately.
    pub lanes: usize,
    /// Attempts to connect past their deadline that have not returned.
    pub stuck_attempts: usize,
    /// Calls made since the host was added.
    pub total_requests: u64,
    /// Calls that failed since the host was added.
    pub total_errors: u64,
    /// Callers that got no connection by their deadline since the host was added.
    pub acquire_timeouts: u64,
    /// Times a lost connection was opened again since the host was added.
    pub reconnects: u64,
    /// How the pool chooses.
    pub strategy: SelectionStrategy,
    /// How long callers waited for a lease.
    pub wait_time: Percentiles,
    /// How long leases were held.
    pub use_time: Percentiles,
}

impl fmt::Display for PoolStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.total_connections {
            1 => f.write_str("1 connection")?,
            n => write!(f, "{n} connections")?,
        }
        for (count, what) in [
            (self.idle_connections, "idle"),
            (self.active_connections, "in use"),
            (self.connecting, "connecting"),
            (self.reconnecting, "reconnecting"),
            (self.failed, "failed"),
            (self.suspect, "suspect"),
            (self.draining, "draining"),
            (self.total_active_uses, "leases"),
            (self.waiting, "waiting"),
            (self.stuck_calls, "stuck calls"),
            (self.stuck_attempts, "stuck attempts to connect"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}
