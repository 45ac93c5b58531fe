//! Time kept back before a deadline, for putting things in order.

use std::time::Duration;

use tokio::time::Instant;

/// When work has to end, for what comes after it to end by `deadline`. Never more than a quarter of what is left is kept
/// back.
pub(crate) fn keep_back(reserve: Duration, deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline - reserve.min(left / 4)
}
