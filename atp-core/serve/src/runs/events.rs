//! The events of a run as a stream, read from the store; and the lines of its consoles and the progress of its targets, which are
//! not stored.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use atp_api::serve::RunState;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::stream::{self, Stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::lines::{ConsoleLines, LinesAfter};
use super::progress::TargetProgress;
use super::visible;
use crate::auth::Caller;
use crate::body::Path;
use crate::problem::Refusal;
use crate::sse::{self, Frame, last_event_id};
use crate::state::Service;

/// The most events that are read at a time.
const READ: i64 = 64;

/// The most lines of consoles that are taken at a time.
const LINES: usize = 256;

/// How often the progress of targets is told to a client, at most.
const PROGRESS: Duration = Duration::from_millis(500);

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
        None => Place::default(),
        Some(text) => Place::parse(text).ok_or_else(|| {
            Refusal::field("last-event-id", format!("expected the number of an event, not {text:?}"))
        })?,
    };
    // A run of this service alone ends before the service does, and its client has nobody else to ask how. One that controllers
    // share goes on in another.
    let until = match service.cluster() {
        Some(_) => service.stopping().clone(),
        None => CancellationToken::new(),
    };
    sse::respond(&service, &caller, until, frames(service.clone(), row.id, after))
}

/// What a client has: the number of its last event, and that of its last line of a console.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    event: i64,
    line: u64,
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let (event, line) = text.split_once('.').unwrap_or((text, "0"));
        Some(Place { event: event.parse().ok()?, line: line.parse().ok()? })
    }

    fn id(self) -> Option<String> {
        let Place { event, line } = self;
        Some(if line == 0 { event.to_string() } else { format!("{event}.{line}") })
    }
}

/// The events after one, until the run is not under way and there are no more.
fn frames(service: Service, run: i64, after: Place) -> impl Stream<Item = Frame> + Send {
    let active = service.runs().active(run);
    let progress = active.as_ref().map(|active| Arc::clone(&active.progress));
    let console = active.map(|active| Arc::clone(&active.lines));
    // One that reads the run for the first time has the outcomes.
    let console = console.or_else(|| (after.line > 0).then(|| service.runs().lines_of_ended(run))?);
    let reader = Reader {
        service,
        run,
        console,
        progress,
        place: after,
        read: VecDeque::new(),
        lines: VecDeque::new(),
        latest: VecDeque::new(),
        seen: 0,
        progress_at: Instant::now(),
    };
    stream::unfold(reader, |mut reader| async move {
        let frame = reader.next().await?;
        Some((frame, reader))
    })
}

/// A client's place in a run, and what was read for it.
struct Reader {
    service: Service,
    run: i64,
    /// The lines of its consoles, if it was under way here when the stream began, or had ended since the client has read some.
    console: Option<Arc<ConsoleLines>>,
    /// The progress of its targets, if it was under way here when the stream began.
    progress: Option<Arc<TargetProgress>>,
    place: Place,
    read: VecDeque<(i64, String, String)>,
    lines: VecDeque<(u64, String)>,
    latest: VecDeque<String>,
    /// The last change of the progress that was read, and when it is read again.
    seen: u64,
    progress_at: Instant,
}

impl Reader {
    async fn next(&mut self) -> Option<Frame> {
        loop {
            // Lines that came before an event are there before it is stored.
            if let Some(frame) = self.line().or_else(|| self.progress()) {
                return Some(frame);
            }
            if let Some((seq, event, data)) = self.read.pop_front() {
                self.place.event = seq;
                return Some(Frame { id: self.place.id(), event, data });
            }
            // Looked at first: what comes while the store is read wakes the stream.
            let news = News::of(&self.service, self.run).await;
            match self.service.runs().store.events(self.run, self.place.event, READ).await {
                Ok(events) => self.read.extend(events),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(run = self.run, error, "a stream of events ends");
                    return None;
                }
            }
            if self.read.is_empty() {
                let lines = async {
                    match &self.console {
                        Some(console) => console.wait(self.place.line).await,
                        None => std::future::pending().await,
                    }
                };
                let progress = async {
                    match &self.progress {
                        Some(progress) => {
                            sleep_until(self.progress_at).await;
                            progress.wait(self.seen).await;
                        }
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = news?.wait(self.place.event) => {}
                    () = lines => {}
                    () = progress => {}
                }
            }
        }
    }

    /// The next line of a console, if there is one.
    fn line(&mut self) -> Option<Frame> {
        if self.lines.is_empty()
            && let Some(console) = &self.console
            && let Some(LinesAfter { json, last }) = console.after(self.place.line, LINES)
        {
            // Marks for what is missing have the number of the last line that is.
            let first = last.saturating_sub(json.len() as u64);
            self.lines.extend((first + 1..).zip(json));
            if self.lines.is_empty() {
                self.place.line = last;
            }
        }
        let (number, data) = self.lines.pop_front()?;
        self.place.line = number;
        Some(Frame { id: self.place.id(), event: "console".to_owned(), data })
    }

    /// How far the next target is of which that is news.
    fn progress(&mut self) -> Option<Frame> {
        if self.latest.is_empty()
            && Instant::now() >= self.progress_at
            && let Some(progress) = &self.progress
        {
            let (latest, seen) = progress.news(self.seen, self.place.event);
            self.latest.extend(latest);
            self.seen = seen;
            self.progress_at = Instant::now() + PROGRESS;
        }
        let data = self.latest.pop_front()?;
        Some(Frame { id: self.place.id(), event: "progress".to_owned(), data })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_back_from_its_id() {
        for (place, id) in [(Place { event: 7, line: 0 }, "7"), (Place { event: 7, line: 12 }, "7.12")] {
            assert_eq!(place.id().as_deref(), Some(id));
            assert_eq!(Place::parse(id), Some(place));
        }
        assert!(["", "x", "1.", "1.x", "1.-2"].iter().all(|text| Place::parse(text).is_none()));
    }
}
