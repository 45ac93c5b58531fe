//! Time, numbers and limits that are shared between threads.

pub(crate) mod atomic_time;
pub(crate) mod backoff;
pub(crate) mod panics;
pub(crate) mod rate_limiter;
pub(crate) mod semaphore;
pub(crate) mod sliding_window;
pub(crate) mod weighted_turns;
