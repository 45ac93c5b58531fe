//! What a pool looks like at one moment.

use std::fmt;

use serde::Serialize;

use crate::config::Strategy;

/// The connections of one host, counted at one moment under one lock.
///
/// `idle + active + connecting + reconnecting + failed + suspect` is always `total`.
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
    /// Callers waiting for a lease.
    pub waiting: usize,
    /// Leases.
    pub active_uses: usize,
    /// Calls under way, with those that hang.
    pub calls_in_flight: usize,
    /// Calls past their deadline that have not returned.
    pub stuck_calls: usize,
    /// Calls made on connections that are in the pool now.
    pub requests: u64,
    /// Calls that failed, likewise.
    pub errors: u64,
    /// How the pool chooses.
    pub strategy: Strategy,
}

impl fmt::Display for PoolStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections", self.total_connections)?;
        for (count, what) in [
            (self.idle_connections, "idle"),
            (self.active_connections, "in use"),
            (self.connecting, "connecting"),
            (self.reconnecting, "reconnecting"),
            (self.failed, "failed"),
            (self.suspect, "suspect"),
            (self.active_uses, "leases"),
            (self.waiting, "waiting"),
            (self.stuck_calls, "stuck calls"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}
