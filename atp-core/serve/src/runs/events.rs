//! The events of a run as a stream, read from the store.

use std::collections::VecDeque;
use std::time::Duration;

use atp_api::serve::RunState;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::stream::{self, Stream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::visible;
use crate::auth::Caller;
use crate::body::Path;
use crate::problem::Refusal;
use crate::sse::{self, Frame, last_event_id};
use crate::state::Service;

/// The most events that are read at a time.
const READ: i64 = 64;

/// How often a run that controllers share is looked at, if nothing is heard.
const LOOK: Duration = Duration::from_secs(1);

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
            let news = News::of(&service, run).await;
            match service.runs().store.events(run, after, READ).await {
                Ok(events) => read.extend(events),
                Err(error) => {
                    tracing::warn!(run, error = &error as &dyn std::error::Error, "a stream of events ends");
                    return None;
                }
            }
            if read.is_empty() {
                news?.wait(after).await;
            }
        }
        let (seq, event, data): (i64, String, String) = read.pop_front()?;
        after = seq;
        Some((Frame { id: Some(seq.to_string()), event, data }, (service, after, read)))
    })
}

/// What tells that a run that is under way may have events.
enum News {
    /// The number of its last event.
    Last(watch::Receiver<i64>),
    /// Something has changed, of any run.
    Any(watch::Receiver<u64>),
}

impl News {
    /// None if the run is not under way: its last event is in the store.
    async fn of(service: &Service, run: i64) -> Option<Self> {
        let Some(cluster) = service.cluster() else {
            return service.runs().active(run).map(|active| News::Last(active.last.subscribe()));
        };
        let news = cluster.news();
        match service.runs().store.run(run).await {
            Ok(Some(row)) if matches!(row.summary.state, RunState::Planning | RunState::Running) => {
                Some(News::Any(news))
            }
            _ => None,
        }
    }

    /// Returns when there may be events after one.
    async fn wait(self, after: i64) {
        match self {
            News::Last(mut last) => {
                // Fails when the run ends, with its last event in the store.
                let _ = last.wait_for(|last| *last > after).await;
            }
            News::Any(mut news) => {
                // What is not heard is found by looking.
                let _ = timeout(LOOK, news.changed()).await;
            }
        }
    }
}
