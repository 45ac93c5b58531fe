//! Journals: what of a run is recorded in a file, and what an earlier run has left to do.

use std::path::PathBuf;
use std::sync::Arc;

use atp_api::OutcomeError;
use atp_executor::{History, Journal, JournalError, JournalReport, Operation, Plan, Recorder};
use pyo3::prelude::*;
use serde::Deserialize;
use tokio::runtime;

use crate::{error, json};

/// What is recorded of a run, and what it continues, as it is asked for.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Noted {
    /// The new file to record it in.
    #[serde(default)]
    journal: Option<PathBuf>,
    #[serde(default)]
    resume: Option<Resumed>,
}

/// What is continued.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Resumed {
    /// The run of a service.
    Run(u64),
    /// The run of a journal.
    Journal(PathBuf),
}

/// A journal that was read, or the name of one that is to be made.
pub(crate) struct Open {
    journal: Option<PathBuf>,
    history: Option<History>,
}

impl Noted {
    /// Reads the journal to continue from, if there is one.
    ///
    /// # Errors
    /// It is no journal, or the journal of another operation; or what is asked for is for a service.
    pub(crate) async fn read(self, operation: &Operation) -> Result<Open, OutcomeError> {
        let history = match (&self.journal, self.resume) {
            (_, None) => None,
            (Some(_), Some(_)) => {
                return Err(error::invalid(
                    "journal= and resume= are not for one run: what is resumed goes on in its own journal",
                ));
            }
            (None, Some(Resumed::Run(number))) => {
                let message = format!(
                    "resume={number}: only a service has runs with a number; here it is the path of a journal"
                );
                return Err(error::invalid(message));
            }
            (None, Some(Resumed::Journal(path))) => {
                Some(History::read(&path, operation).await.map_err(|error| failed(&error))?)
            }
        };
        Ok(Open { journal: self.journal, history })
    }

    /// The number of the run of a service to continue, if there is one.
    ///
    /// # Errors
    /// What is asked for is not for a service.
    pub(crate) fn number(&self) -> Result<Option<u64>, OutcomeError> {
        if self.journal.is_some() {
            let refused = error::invalid("journal= is for runs without a service: a service keeps its runs");
            return Err(refused.with_hint("leave it out; resume= with the number of a run continues it"));
        }
        match &self.resume {
            None => Ok(None),
            Some(Resumed::Run(number)) => Ok(Some(*number)),
            Some(Resumed::Journal(path)) => {
                let message = format!(
                    "resume={}: a service continues runs that it has itself, and no journals",
                    path.display()
                );
                Err(error::invalid(message).with_hint("give it the number of a run: outcomes.run_number"))
            }
        }
    }

    /// # Errors
    /// It has no meaning for a plan.
    pub(crate) fn check_for_plan(&self, is_service: bool) -> Result<(), OutcomeError> {
        if self.journal.is_some() {
            return Err(error::invalid("journal= is for runs: a plan does nothing that could be recorded"));
        }
        match &self.resume {
            Some(_) if is_service => {
                Err(error::invalid("a plan does not show what is left of a run of a service")
                    .with_hint("leave resume= out, to see what a new run would do"))
            }
            _ => Ok(()),
        }
    }
}

impl Open {
    /// What is left to do of a plan.
    pub(crate) fn left_of(&self, plan: Plan) -> Plan {
        match &self.history {
            Some(history) => history.apply(plan),
            None => plan,
        }
    }

    /// Opens the journal for a run of `plan`, if there is to be one.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) async fn begin(self, plan: &Plan) -> Result<Option<Arc<dyn Recorder>>, OutcomeError> {
        let journal = match (&self.journal, &self.history) {
            (Some(path), _) => Journal::create(path, plan).await,
            (None, Some(history)) => Journal::resume(history, plan).await,
            (None, None) => return Ok(None),
        };
        Ok(Some(Arc::new(journal.map_err(|error| failed(&error))?)))
    }
}

/// What a journal says of its run, as JSON.
#[pyfunction]
pub(crate) fn journal(py: Python<'_>, file: PathBuf) -> PyResult<String> {
    let read = || {
        let runtime = runtime::Builder::new_current_thread().build();
        let runtime = runtime.map_err(|error| error::invalid(error.to_string()))?;
        let report = runtime.block_on(JournalReport::read(&file)).map_err(|error| failed(&error))?;
        json::text(&report)
    };
    py.detach(read).map_err(|error| error::exception(py, &error))
}

fn failed(error: &JournalError) -> OutcomeError {
    OutcomeError::from(error)
}
