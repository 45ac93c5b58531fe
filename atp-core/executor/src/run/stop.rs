//! Why a run ends early.

use atp_api::OutcomeError;
use atp_transport::ErrorKind;
use std::error::Error as _;
use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::journal::JournalError;

/// Why a run ended early.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StopReason {
    /// [`RunControl::stop`](super::RunControl::stop) was asked for.
    Requested,
    /// [`RunControl::abort`](super::RunControl::abort) was asked for, or the run was dropped.
    Aborted,
    /// [`Policy::deadline`](crate::Policy::deadline) passed.
    DeadlinePassed,
    /// As many targets failed as [`Policy::max_failures`](crate::Policy::max_failures) says.
    MaxFailures {
        /// The number of failures.
        failures: usize,
    },
    /// A target of the first batch failed; see [`Policy::serial`](crate::Policy::serial).
    CanaryFailed,
    /// The journal cannot be written any more.
    JournalFailed(JournalError),
}

impl StopReason {
    /// The kind, for programs to match on. The errors of targets that were not started have it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            StopReason::Requested => ErrorKind::Stopped,
            StopReason::Aborted => ErrorKind::Aborted,
            StopReason::DeadlinePassed => ErrorKind::RunDeadlinePassed,
            StopReason::MaxFailures { .. } => ErrorKind::MaxFailuresReached,
            StopReason::CanaryFailed => ErrorKind::CanaryFailed,
            StopReason::JournalFailed(_) => ErrorKind::JournalFailed,
        }
    }

    /// Whether the run's own policy ended it, not a request or a failure from outside.
    pub fn is_policy(&self) -> bool {
        matches!(self, StopReason::DeadlinePassed | StopReason::MaxFailures { .. } | StopReason::CanaryFailed)
    }

    /// The error of a target that was not started for this reason.
    pub(super) fn not_started(&self) -> OutcomeError {
        let error = OutcomeError::new(self.kind(), format!("not started: {self}")).retryable();
        match self {
            StopReason::JournalFailed(failure) => {
                let causes = failure.source().map(ToString::to_string).into_iter().collect();
                OutcomeError { causes, ..error.with_hint(failure.hint()) }
            }
            _ => error,
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopReason::Requested => f.write_str("the run was stopped before"),
            StopReason::Aborted => f.write_str("the run was aborted before"),
            StopReason::DeadlinePassed => f.write_str("the time for the whole run was used up"),
            StopReason::MaxFailures { failures: 1 } => {
                f.write_str("the run was to end with its first failure")
            }
            StopReason::MaxFailures { failures } => {
                write!(f, "{failures} targets had failed, with which the run was to end")
            }
            StopReason::CanaryFailed => f.write_str("a target of the first batch failed"),
            StopReason::JournalFailed(error) => write!(f, "{error}"),
        }
    }
}

/// Ends a run early, from outside and from inside. Clones share their state.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    requested: CancellationToken,
    abort: CancellationToken,
    deadline: Option<Instant>,
    inside: Arc<OnceLock<StopReason>>,
    halted: CancellationToken,
}

impl Stop {
    pub(super) fn new(
        requested: CancellationToken,
        abort: CancellationToken,
        deadline: Option<Instant>,
    ) -> Self {
        Stop { requested, abort, deadline, inside: Arc::default(), halted: CancellationToken::new() }
    }

    /// Ends the run early from inside; the first reason counts.
    pub(super) fn halt(&self, reason: StopReason) {
        let _ = self.inside.set(reason);
        self.halted.cancel();
    }

    /// The request to stop.
    pub(super) fn requested(&self) -> &CancellationToken {
        &self.requested
    }

    /// The request to abort.
    pub(super) fn abort(&self) -> &CancellationToken {
        &self.abort
    }

    /// When the time for the whole run is used up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The reason why no more targets are started; none if the run continues.
    pub(super) fn reason(&self) -> Option<StopReason> {
        if let Some(reason) = self.inside.get() {
            return Some(reason.clone());
        }
        if self.requested.is_cancelled() {
            return Some(StopReason::Requested);
        }
        if self.abort.is_cancelled() {
            return Some(StopReason::Aborted);
        }
        self.deadline.filter(|&deadline| Instant::now() >= deadline).map(|_| StopReason::DeadlinePassed)
    }

    /// Returns when there is a reason.
    pub(super) async fn asked(&self) {
        let out_of_time = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.halted.cancelled() => {}
            () = self.requested.cancelled() => {}
            () = self.abort.cancelled() => {}
            () = out_of_time => {}
        }
    }
}
