//! The clock of leases.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time since the machine has started, suspended or not.
pub(super) fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}
