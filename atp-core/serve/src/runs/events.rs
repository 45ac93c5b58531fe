//! The events of a run as a stream, read from the store.

use std::collections::VecDeque;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::stream::{self, Stream};

use super::visible;
use crate::auth::Caller;
use crate::body::Path;
use crate::problem::Refusal;
use crate::sse::{self, Frame, last_event_id};
use crate::state::Service;

/// The most events that are read at a time.
const READ: i64 = 64;

pub(super) async fn follow(
    State(service): State<Service>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let row = visible(&service, &caller, &id).await?;
    let after = match last_event_id(&headers) {
        None => 0,
        Some(text) => text.parse().map_err(|_| {
            Refusal::field("last-event-id", format!("expected the number of an event, not {text:?}"))
        })?,
    };
    sse::respond(&service, &caller, frames(service.clone(), row.id, after))
}

/// The events after one, until the run is not under way and there are no more.
fn frames(service: Service, run: i64, after: i64) -> impl Stream<Item = Frame> + Send {
    let state = (service, after, VecDeque::new());
    stream::unfold(state, move |(service, mut after, mut read)| async move {
        while read.is_empty() {
            // Looked at first: what comes while the store is read wakes the stream.
            let news = service.runs().active(run).map(|active| active.last.subscribe());
            match service.runs().store.events(run, after, READ).await {
                Ok(events) => read.extend(events),
                Err(error) => {
                    tracing::warn!(run, error = &error as &dyn std::error::Error, "a stream of events ends");
                    return None;
                }
            }
            if read.is_empty() {
                // The run ends when its last event is in the store.
                let _ = news?.wait_for(|last| *last > after).await;
            }
        }
        let (seq, event, data): (i64, String, String) = read.pop_front()?;
        after = seq;
        Some((Frame { id: Some(seq.to_string()), event, data }, (service, after, read)))
    })
}
