//! What a connection has done so far.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::error::TransportError;
use crate::observe::latency::Percentiles;

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

/// Calls made, and calls that failed.
#[derive(Default)]
pub(super) struct Counts {
    requests: AtomicU64,
    errors: AtomicU64,
}

impl Counts {
    pub(super) fn add(&self, failed: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if failed {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }
}
