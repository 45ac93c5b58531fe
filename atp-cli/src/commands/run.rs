//! `atp run`: steps over targets, from a file.

use std::path::Path;
use std::sync::Arc;

use atp_executor::{Operation, Scenario, ScenarioError};

use crate::args::RunArgs;
use crate::batch;
use crate::context::Context;
use crate::problem::{Failure, Problem};

pub(crate) async fn run(args: RunArgs, context: &Context) -> Result<u8, Failure> {
    let path = &args.scenario;
    let text = std::fs::read_to_string(path).map_err(|error| {
        let problem = Problem::new(format!("{} cannot be read", path.display())).because(&error);
        problem.hint("name a scenario's file; docs/scenarios.md says what stands in one")
    })?;
    let mut scenario: Scenario = text.parse().map_err(|error| problem(path, &error))?;
    for (name, value) in args.set {
        scenario.set(&name, value).map_err(|error| problem(path, &error))?;
    }
    let selection = scenario.selection().map_err(|error| problem(path, &error))?;
    batch::run(selection, Operation::Scenario(Arc::new(scenario)), context).await
}

/// `FILE:LINE:COLUMN: …`, the form in which editors find the place.
fn problem(path: &Path, error: &ScenarioError) -> Problem {
    let place = error.place.map(|place| format!(":{}:{}", place.line, place.column)).unwrap_or_default();
    let problem = Problem::new(format!("{}{place}: {}", path.display(), error.message));
    match &error.hint {
        Some(hint) => problem.hint(hint.clone()),
        None => problem,
    }
}
