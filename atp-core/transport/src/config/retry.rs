//! How work is tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sync::backoff::Backoff;

/// How work that may be repeated is tried again, where a program asks for it: only after failures that had no effect and
/// may pass, with exponential backoff and full jitter, and within a budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Most tries of one piece of work, the first included.
    pub max_tries: u32,
    /// Longest wait before the second try.
    #[serde(with = "humantime_serde")]
    pub initial_delay: Duration,
    /// Growth of the wait from one try to the next.
    pub multiplier: f64,
    /// Longest wait before any try.
    #[serde(with = "humantime_serde")]
    pub max_delay: Duration,
    /// Most retries on a host, as a share of all work run on it within the window: a host in trouble is not given many
    /// times the work it had.
    pub budget_share: f64,
    /// Retries within the window that may be made in any case.
    pub budget_floor: usize,
    /// How far back work and retries are counted.
    #[serde(with = "humantime_serde")]
    pub budget_window: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        RetryConfig {
            max_tries: 3,
            initial_delay: Duration::from_millis(100),
            multiplier: 2.0,
            max_delay: Duration::from_secs(5),
            budget_share: 0.1,
            budget_floor: 10,
            budget_window: Duration::from_secs(10),
        }
    }
}

impl RetryConfig {
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff { initial: self.initial_delay, multiplier: self.multiplier, longest: self.max_delay }
    }
}
