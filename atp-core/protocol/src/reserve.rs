//! Points in time relative to now: the end of work before a deadline, and bounded delays.

use std::time::Duration;

use tokio::time::Instant;

/// The time at which work has to end so that the cleanup after it ends by `deadline`. At most a quarter of the time
/// left is reserved.
pub(crate) fn keep_back(reserve: Duration, deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline - reserve.min(left / 4)
}

/// The longest delay that is added to the present time; the clock's range is larger.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The time after this delay. Delays above a hundred years count as a hundred years, so that any duration is valid.
pub(crate) fn after(time: Duration) -> Instant {
    Instant::now() + time.min(LONGEST)
}
