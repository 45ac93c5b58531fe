//! `--journal` and `--resume`.

use std::sync::Arc;

use atp_executor::{History, Journal, Operation, Plan, Recorder};

use crate::context::Context;
use crate::problem::Problem;

/// Reads the journal to continue from, if there is one.
///
/// # Errors
/// It is no journal, or the journal of another operation.
pub(crate) async fn history(operation: &Operation, context: &Context) -> Result<Option<History>, Problem> {
    match &context.resume {
        Some(path) => Ok(Some(History::read(path, operation).await?)),
        None => Ok(None),
    }
}

/// Opens the journal for a run of `plan`, if there is to be one.
///
/// # Errors
/// It cannot be written.
pub(crate) async fn open(
    plan: &Plan,
    history: Option<&History>,
    context: &Context,
) -> Result<Option<Arc<dyn Recorder>>, Problem> {
    let journal = match (&context.journal, history) {
        (Some(path), _) => Journal::create(path, plan).await,
        (None, Some(history)) => Journal::resume(history, plan).await,
        (None, None) => return Ok(None),
    };
    Ok(Some(Arc::new(journal?)))
}
