//! The outcomes of a run as JUnit XML.

use std::time::Duration;

use atp_api::serve::RunState;
use atp_executor::Junit;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use super::visible;
use crate::auth::Caller;
use crate::body::Path;
use crate::output::shorten_to;
use crate::problem::Refusal;
use crate::state::Service;

pub(super) const CONTENT_TYPE: &str = "application/xml";

/// The most bytes of what programs printed in a report, which is made in memory.
const MOST_OUTPUT: usize = 64 << 20;

/// Outcomes that are read at a time.
const ROWS: i64 = 500;

pub(super) async fn show(
    State(service): State<Service>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let row = visible(&service, &caller, &id).await?;
    let mut junit = Junit::new(&row.summary.op);
    let (mut after, mut left) = (0, MOST_OUTPUT);
    loop {
        let mut read = service.runs().store.outcomes(&row, after, ROWS).await?;
        for (_, outcome) in &mut read.outcomes {
            left = shorten_to(outcome, left);
            junit.take(outcome);
        }
        match read.outcomes.last() {
            Some((last, _)) if !read.is_all => after = *last,
            _ => break,
        }
    }
    let took = match (row.summary.state, &row.summary.statistics) {
        (RunState::Ended, Some(statistics)) => Duration::from_millis(statistics.duration_ms),
        _ => Duration::ZERO,
    };
    let text = Junit::DECLARATION.to_owned() + &junit.text(took);
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}
