//! Moments reckoned from now: what a deadline leaves for putting things in order, and when patience ends.

use std::time::Duration;

use tokio::time::Instant;

/// When work has to end, for what comes after it to end by `deadline`. Never more than a quarter of what is left is kept
/// back.
pub(crate) fn keep_back(reserve: Duration, deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline - reserve.min(left / 4)
}

/// The longest time that is counted forward; the clock reaches further.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The moment after so much time. A hundred years and more count as that, so that any length will do.
pub(crate) fn after(time: Duration) -> Instant {
    Instant::now() + time.min(LONGEST)
}
