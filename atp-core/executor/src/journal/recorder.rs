//! Where a run records its targets.

use std::fmt;

use atp_api::Outcome;
use futures_util::future::BoxFuture;

use super::JournalError;
use crate::target::Target;

/// Where a run records how far its targets got: the file of a [`Journal`](super::Journal), or a database.
///
/// The run waits for a record before it goes on: for the start before it calls the target's host, for the outcome before its
/// event. Records of targets that are under way at the same time are made at the same time, so that a recorder can write them
/// together. After the first failure the run starts no more targets.
pub trait Recorder: fmt::Debug + Send + Sync {
    /// Records that the work on a target is about to start. When this returns, the record outlasts the process and a loss of
    /// power.
    ///
    /// # Errors
    /// The record cannot be made, or the target may not be started.
    fn started<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(), JournalError>>;

    /// Records the outcome of a target that was started. When this returns, the record outlasts the process and a loss of
    /// power.
    ///
    /// # Errors
    /// The record cannot be made.
    fn finished<'a>(&'a self, outcome: &'a Outcome) -> BoxFuture<'a, Result<(), JournalError>>;
}
