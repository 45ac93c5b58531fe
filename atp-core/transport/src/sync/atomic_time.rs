//! Times that many write and read without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// An instant, kept as nanoseconds since another.
pub(crate) struct AtomicInstant {
    since: Instant,
    nanos: AtomicU64,
}

impl AtomicInstant {
    pub(crate) fn new(now: Instant) -> Self {
        AtomicInstant { since: now, nanos: AtomicU64::new(0) }
    }

    pub(crate) fn set(&self, now: Instant) {
        let nanos = now.saturating_duration_since(self.since).as_nanos();
        // After five hundred years it stands still.
        self.nanos.store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Instant {
        self.since + Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

/// A length of time, to the nanosecond.
pub(crate) struct AtomicDuration(AtomicU64);

impl AtomicDuration {
    pub(crate) fn new(length: Duration) -> Self {
        let span = AtomicDuration(AtomicU64::new(0));
        span.set(length);
        span
    }

    /// Five hundred years and more count as that.
    pub(crate) fn set(&self, length: Duration) {
        self.0.store(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}
