//! How work is run.

use tokio::time::Instant;

use super::unanswered::Unanswered;

/// How work is run. The default: on all hosts at once, without a deadline of its own.
#[derive(Debug, Clone, Default)]
pub struct ExecuteOptions {
    /// When the work has to be done, waiting and connecting included. Every call made through its lease
    /// ends by then. Without one, [`acquire_timeout`](crate::PoolConfig::acquire_timeout) bounds the wait for
    /// a connection and [`call_timeout`](crate::TransportConfig::call_timeout) each call.
    pub deadline: Option<Instant>,
    /// Most hosts worked on at once; all of them without it. Hosts that wait their turn do so under the same
    /// deadline.
    pub concurrency: Option<usize>,
    /// Most tries of work that may be repeated, the first included; 0 counts as 1. Without it,
    /// [`max_tries`](crate::RetryConfig::max_tries) on one host, and all hosts of a group. Other work is tried once.
    pub max_tries: Option<u32>,
    /// Shows since when the work waits for the answer to a call.
    pub unanswered: Option<Unanswered>,
}

impl ExecuteOptions {
    /// Work that has to be done by `deadline`.
    pub fn by(deadline: Instant) -> Self {
        ExecuteOptions { deadline: Some(deadline), ..ExecuteOptions::default() }
    }

    /// Shows in `unanswered` since when the work waits for the answer to a call.
    pub fn watched_by(mut self, unanswered: &Unanswered) -> Self {
        self.unanswered = Some(unanswered.clone());
        self
    }

    /// Tries work that may be repeated at most so often.
    pub fn with_max_tries(mut self, tries: u32) -> Self {
        self.max_tries = Some(tries);
        self
    }

    /// Works on at most `hosts` at once; 0 counts as 1.
    pub fn with_concurrency(mut self, hosts: usize) -> Self {
        self.concurrency = Some(hosts);
        self
    }
}
