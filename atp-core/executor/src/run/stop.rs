//! Why a run ends early.

use std::sync::{Arc, OnceLock};

use atp_api::{OutcomeError, StopReason};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::journal::JournalError;

/// The reason that the journal cannot be written.
pub(super) fn journal_failed(error: &JournalError) -> StopReason {
    StopReason::JournalFailed { error: error.into() }
}

/// The error of a target that was not started for this reason.
pub(super) fn not_started(reason: &StopReason) -> OutcomeError {
    let error = OutcomeError::new(reason.kind(), format!("not started: {reason}")).retryable();
    match reason {
        StopReason::JournalFailed { error: failure } => {
            OutcomeError { causes: failure.causes.clone(), hint: failure.hint.clone(), ..error }
        }
        _ => error,
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
        tokio::select! {
            () = self.halted.cancelled() => {}
            () = self.requested.cancelled() => {}
            () = self.abort.cancelled() => {}
            () = self.out_of_time() => {}
        }
    }

    /// Returns when the time for the whole run is used up.
    pub(super) async fn out_of_time(&self) {
        match self.deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }
}
