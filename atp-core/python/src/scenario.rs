//! Scenarios, from files of this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use atp_api::OutcomeError;
use atp_executor::{Scenario, ScenarioError};
use pyo3::prelude::*;

use crate::{error, json};

/// Reads a scenario's file and those that it includes, and gives variables other values. Returns what is to be run, as JSON.
///
/// # Errors
/// All that is wrong with the files, each with its place.
#[pyfunction]
pub(crate) fn scenario(
    py: Python<'_>,
    file: PathBuf,
    variables: BTreeMap<String, String>,
) -> PyResult<String> {
    let read = || {
        let mut scenario = Scenario::load(&file).map_err(|errors| invalid(&file, errors))?;
        for (name, value) in variables {
            scenario.set(&name, value).map_err(|error| invalid(&file, vec![error]))?;
        }
        scenario.selection().map_err(|error| invalid(&file, vec![error]))?;
        json::text(scenario.spec())
    };
    py.detach(read).map_err(|error| error::exception(py, &error))
}

/// A line for each error, `FILE:LINE:COLUMN: …`, and the hint of the first.
fn invalid(file: &Path, errors: Vec<ScenarioError>) -> OutcomeError {
    let line = |error: &ScenarioError| {
        let of =
            error.file.as_ref().map_or(file.to_owned(), |included| file.with_file_name("").join(included));
        let place = error.place.map(|place| format!(":{}:{}", place.line, place.column));
        format!("{}{}: {}", of.display(), place.unwrap_or_default(), error.message)
    };
    let lines: Vec<_> = errors.iter().map(line).collect();
    let message = lines.join("\n");
    let first = errors.into_iter().next().map(OutcomeError::from);
    first.map_or_else(
        || error::invalid(message.clone()),
        |first| OutcomeError { message: message.clone(), ..first },
    )
}
