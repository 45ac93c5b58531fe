//! The store of runs and reservations: a SQLite database, or one in PostgreSQL, which one service has open at a time.
//!
//! What a run has to say goes through one writer, which commits all that has come while the disk was busy as one
//! transaction, with `synchronous=FULL` in SQLite: what a caller was answered outlasts the process and a loss of power. Readers have
//! connections of their own, and are not waited for.
//!
//! ```text
//! a run:  started, finished ─┐                      ┌─► streams of events
//!         its events         ├─► writer ─► database ┼─► lists, outcomes
//!         new, begun, ended ─┘   (batches)          └─► the history of a resume
//! ```
//!
//! Nothing of an operation's parameters is kept but a hash, unless the operation is one whose parameters can hold no secret.

mod change;
mod claims;
mod leases;
mod link;
mod lock;
mod open;
mod patience;
mod read;
mod recorder;
mod recover;
mod reservations;
mod schema;
mod server;
mod session;
mod sql;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use atp_api::ErrorKind;
pub(crate) use change::{Change, Ending, EventRow, NewRun, Share, Started, TargetRow};
pub(crate) use claims::{Finished, Look, SharedRun, Started as StartedTarget, startable};
pub(crate) use link::Link;
pub(crate) use read::{OutcomesRead, RunRow};
pub(crate) use recorder::{Refused, RunRecorder, key};
pub(crate) use recover::INTERRUPTED;
pub(crate) use reservations::NewReservations;
pub(crate) use server::Shared;
pub(crate) use session::Database;

use crate::problem::Refusal;

/// The store. Cheap to clone; clones are the same store.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    writer: writer::Writer,
    readers: sql::Readers,
    name: Arc<str>,
}

/// Why the store cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file, its folder, or a file that it needs cannot be made, opened or locked.
    #[error("the store of runs cannot be opened: {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// Another service has it.
    #[error("the store of runs {} is in use by another `atp serve`: end that one, or name another store in serve.store or serve.database", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{} is not a store of runs: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What it is.
        reason: String,
    },
    /// The address of the database cannot be used.
    #[error("serve.database: {problem}")]
    Address {
        /// What is wrong with it; it may have a password, and is not repeated.
        problem: String,
    },
    /// Another service has opened the database since, and has taken care of what was under way.
    #[error("the store of runs {name} was opened by another `atp serve`: end one of the two")]
    TakenOver {
        /// The database.
        name: String,
    },
    /// A later version of the program wrote it.
    #[error("the store of runs {} is of schema {found}, and this version knows {known}: use the version that wrote it, or name another store in serve.store or serve.database", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest that this version knows.
        known: i64,
    },
    /// A statement failed, as on a full disk.
    #[error("the store of runs {path} failed")]
    Failed {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: Arc<sqlx::Error>,
    },
    /// What was to be changed is not in the state for it: a target was started before.
    #[error("the store of runs refuses it: {0}")]
    Refused(&'static str),
    /// The client has sent a request with this key before.
    #[error("the key was used for run {run}")]
    Known {
        /// The run.
        run: i64,
        /// Whether the body was the same.
        is_same: bool,
    },
    /// The client has reserved VMs with this key, by another request.
    #[error("the key was used for other reservations")]
    OtherReservation,
    /// Fewer VMs are free than were asked for.
    #[error("{free} VMs are free, which are too few")]
    TooFewFree {
        /// How many.
        free: usize,
    },
    /// The service ends.
    #[error("the store of runs is closed")]
    Closed,
}

impl StoreError {
    /// Whether the database refused a statement, and goes on: what has to do with other rows can be done.
    pub(crate) fn is_of_statement(&self) -> bool {
        matches!(self, StoreError::Failed { source, .. } if sql::is_of_statement(source))
    }

    /// Whether the database refuses for good what it was given, or has what cannot be read: it is of no use to try that again.
    pub(crate) fn is_for_good(&self) -> bool {
        matches!(self, StoreError::Failed { source, .. } if sql::is_for_good(source))
    }

    /// Whether another transaction has locked what was to be changed, or the server ended it for that or for its time.
    pub(crate) fn is_busy(&self) -> bool {
        let StoreError::Failed { source, .. } = self else { return false };
        let code = source.as_database_error().and_then(|error| error.code());
        code.is_some_and(|code| ["55P03", "57014", "40P01"].contains(&code.as_ref()))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let detail = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        Refusal::new(ErrorKind::StorageFailed, detail)
    }
}

impl Store {
    /// Makes a change, and returns when it is on disk: the number of rows that it changed, or the new run's id.
    ///
    /// Not cancel safe: the change may be made all the same.
    pub(crate) async fn change(&self, change: Change) -> Result<i64, StoreError> {
        self.writer.change(change).await
    }

    fn failed(&self, source: sqlx::Error) -> StoreError {
        failed(&self.name, source)
    }
}

/// Why a change is not made: the database failed, and with it all changes of the batch; or this one does not fit.
enum Unmade {
    Failed(sqlx::Error),
    Refused(StoreError),
}

impl From<sqlx::Error> for Unmade {
    fn from(error: sqlx::Error) -> Self {
        Unmade::Failed(error)
    }
}

fn failed(path: &str, source: sqlx::Error) -> StoreError {
    StoreError::Failed { path: path.to_owned(), source: Arc::new(source) }
}
