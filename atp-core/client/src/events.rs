//! Events of a run, and of the whole service, as streams that outlive the connections which carry them.

use std::sync::Arc;
use std::time::Duration;

use atp_api::RunEvent;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use url::Url;

use crate::client::Client;
use crate::error::ClientError;
use crate::sse::{Message, Reader};

/// How long a stream that broke is tried again, from its last sign of life.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pauses between tries, from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Events that are read ahead.
const AHEAD: usize = 256;

/// How long a service may say nothing before it counts as one that does not answer. It sends a comment every 15 s.
const SILENT: Duration = Duration::from_secs(20);

/// Whether the service of a stream answers. Clones are of the same stream.
#[derive(Debug, Clone, Default)]
pub struct Liveness(Arc<watch::Sender<Reading>>);

/// What is being done with a stream.
#[derive(Debug, Clone, Copy, Default)]
enum Reading {
    /// What came is passed on.
    #[default]
    Busy,
    /// The next piece is waited for.
    Waiting(Instant),
    /// The connection is lost, and another one is tried.
    Lost(Instant),
}

impl Liveness {
    /// For how long the service has not answered, while it is tried again; none if it answers.
    pub fn silent_for(&self) -> Option<Duration> {
        match *self.0.borrow() {
            Reading::Busy => None,
            Reading::Waiting(since) => Some(since.elapsed()).filter(|silent| *silent >= SILENT),
            Reading::Lost(since) => Some(since.elapsed()),
        }
    }

    fn set(&self, reading: Reading) {
        self.0.send_replace(reading);
    }

    /// A connection is made. Until there is one again, a lost one stays lost.
    fn begin(&self) {
        let is_lost = matches!(*self.0.borrow(), Reading::Lost(_));
        if !is_lost {
            self.set(Reading::Waiting(Instant::now()));
        }
    }

    /// The connection is lost, or could not be made. It counts from when the service fell silent, if that was long ago.
    fn lose(&self) {
        let since = match *self.0.borrow() {
            Reading::Lost(since) => since,
            Reading::Waiting(since) if since.elapsed() >= SILENT => since,
            _ => Instant::now(),
        };
        self.set(Reading::Lost(since));
    }
}

/// A stream that is read ahead of its reader. A connection that breaks is replaced, and the stream goes on after the last event that
/// arrived.
#[derive(Debug)]
struct Ahead<T> {
    events: mpsc::Receiver<Result<T, ClientError>>,
    liveness: Liveness,
    reader: JoinHandle<()>,
}

impl<T: Send + 'static> Ahead<T> {
    /// Begins to read, after the event with the id `after`. `read` says what a message is, and whether it is the last; `lost` makes the error of a service that was not
    /// reached for too long.
    fn begin(
        client: &Client,
        url: Url,
        after: Option<String>,
        read: impl Fn(Message) -> (Result<T, ClientError>, bool) + Send + Sync + 'static,
        lost: impl Fn(Duration, Box<ClientError>) -> ClientError + Send + Sync + 'static,
    ) -> Self {
        let (sender, events) = mpsc::channel(AHEAD);
        let (client, liveness) = (client.clone(), Liveness::default());
        let of_reader = liveness.clone();
        let reader = tokio::spawn(async move {
            follow(&client, &url, after, &sender, &of_reader, &read, &lost).await;
            of_reader.set(Reading::Busy);
        });
        Ahead { events, liveness, reader }
    }

    async fn next(&mut self) -> Result<Option<T>, ClientError> {
        self.events.recv().await.transpose()
    }
}

impl<T> Drop for Ahead<T> {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The events of a run. A connection that breaks is replaced, and the stream goes on after the last event that arrived.
///
/// Dropping it leaves the run as it is.
#[derive(Debug)]
pub struct RunEvents(Ahead<RunEvent>);

/// What happens to VMs, hosts and connections of a service. A connection that breaks is replaced, and the stream goes on after the
/// last event that arrived; a message `gap` stands where events are missing.
#[derive(Debug)]
pub struct ServiceEvents(Ahead<Message>);

/// Which events of a service are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventsWanted {
    /// Only about these VMs and their hosts; all without one.
    pub selectors: Vec<String>,
    /// Also those of QEMU's monitors.
    pub qemu: bool,
}

impl EventsWanted {
    /// Those of the VMs that match any of the selectors, of all VMs without one.
    pub fn of(selectors: Vec<String>) -> Self {
        EventsWanted { selectors, qemu: false }
    }

    /// Whether also those of QEMU's monitors.
    #[must_use]
    pub fn with_qemu(self, qemu: bool) -> Self {
        EventsWanted { qemu, ..self }
    }
}

impl Client {
    /// The events of a run, from its first one. Must be called within a runtime.
    pub fn run_events(&self, run: u64) -> RunEvents {
        self.run_events_after(run, None)
    }

    /// The events of a run after the one with this number, as after a [`resume`](Self::resume). Must be called within a runtime.
    pub fn run_events_after(&self, run: u64, after: Option<u64>) -> RunEvents {
        let read = move |message: Message| {
            // The run has no end of its own: the service was ended under it.
            if message.event == "interrupted" {
                return (Err(ClientError::Interrupted { run }), true);
            }
            // What is not known is an event of a later version.
            let event = serde_json::from_str(&message.data).unwrap_or(RunEvent::Unknown);
            let is_end = matches!(event, RunEvent::Ended(_));
            (Ok(event), is_end)
        };
        let lost = move |for_how_long, source| ClientError::EventsLost { run, for_how_long, source };
        let after = after.map(|number| number.to_string());
        RunEvents(Ahead::begin(self, self.at(&format!("/api/v1/runs/{run}/events")), after, read, lost))
    }

    /// What happens to VMs from now on, with the VMs that each host has when it begins to be watched. Must be called within a runtime.
    pub fn watch(&self, wanted: &EventsWanted) -> ServiceEvents {
        let mut url = self.at("/api/v1/events");
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("watch", "true");
            if wanted.qemu {
                query.append_pair("qemu", "true");
            }
            for selector in &wanted.selectors {
                query.append_pair("selector", selector);
            }
        }
        let lost = |for_how_long, source| ClientError::StreamLost { for_how_long, source };
        ServiceEvents(Ahead::begin(self, url, None, |message| (Ok(message), false), lost))
    }
}

impl RunEvents {
    /// The next event; none after the run's end.
    ///
    /// # Errors
    /// The service refuses the stream, has not been reached for a minute, or was ended under the run. Nothing comes after an error.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Option<RunEvent>, ClientError> {
        self.0.next().await
    }

    /// Whether the service answers.
    pub fn liveness(&self) -> Liveness {
        self.0.liveness.clone()
    }
}

impl ServiceEvents {
    /// The next message.
    ///
    /// # Errors
    /// The service refuses the stream, or has not been reached for a minute. Nothing comes after an error.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Message>, ClientError> {
        self.0.next().await
    }
}

/// Reads the events of a stream until its end.
async fn follow<T>(
    client: &Client,
    url: &Url,
    mut after: Option<String>,
    events: &mpsc::Sender<Result<T, ClientError>>,
    liveness: &Liveness,
    read: &(impl Fn(Message) -> (Result<T, ClientError>, bool) + Sync),
    lost: &(impl Fn(Duration, Box<ClientError>) -> ClientError + Sync),
) {
    let (mut alive, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        let before = after.clone();
        let connection = read_connection(client, url, &mut after, &mut alive, events, liveness, read);
        let error = match connection.await {
            Ok(Read::Ended) => return,
            Ok(Read::Broken(error)) => error,
            Err(error) if error.is_temporary() => Some(error),
            Err(error) => {
                // Fails if the reader has left.
                let _unheard = events.send(Err(error)).await;
                return;
            }
        };
        liveness.lose();
        if after != before {
            pause = FIRST_PAUSE;
        }
        if alive.elapsed() + pause > PATIENCE {
            let error = error.unwrap_or_else(|| client.no_service("it ends each stream at once".to_owned()));
            let _unheard = events.send(Err(lost(alive.elapsed(), Box::new(error)))).await;
            return;
        }
        sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// How a connection of a stream ended.
enum Read {
    /// The stream has ended, or its events are read no more.
    Ended,
    /// The connection broke, by an error or by its end.
    Broken(Option<ClientError>),
}

async fn read_connection<T>(
    client: &Client,
    url: &Url,
    after: &mut Option<String>,
    alive: &mut Instant,
    events: &mpsc::Sender<Result<T, ClientError>>,
    liveness: &Liveness,
    read: &(impl Fn(Message) -> (Result<T, ClientError>, bool) + Sync),
) -> Result<Read, ClientError> {
    liveness.begin();
    let mut body = client.stream(url.clone(), after.as_deref()).await?;
    let mut reader = Reader::default();
    loop {
        liveness.set(Reading::Waiting(Instant::now()));
        let piece = match client.piece(&mut body).await {
            Ok(Some(piece)) => piece,
            Ok(None) => return Ok(Read::Broken(None)),
            Err(error) => return Ok(Read::Broken(Some(error))),
        };
        *alive = Instant::now();
        liveness.set(Reading::Busy);
        reader.push(&piece)?;
        while let Some(message) = reader.next()? {
            let id = message.id.clone();
            let (event, is_end) = read(message);
            if events.send(event).await.is_err() {
                return Ok(Read::Ended);
            }
            // The reader may have taken its time.
            *alive = Instant::now();
            // Only what was passed on is behind the place where the stream is continued.
            if id.is_some() {
                *after = id;
            }
            if is_end {
                return Ok(Read::Ended);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_service_that_is_silent_or_lost_does_not_answer_until_it_is_read_again() {
        let liveness = Liveness::default();
        let told = || liveness.silent_for().map(|silent| silent.as_secs());
        let pass = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        // What comes slowly to a reader that is busy is no silence.
        pass(100).await;
        assert_eq!(told(), None);
        liveness.begin();
        pass(19).await;
        assert_eq!(told(), None);
        pass(1).await;
        assert_eq!(told(), Some(20));
        // The connection is given up, and others cannot be made.
        liveness.lose();
        pass(5).await;
        liveness.begin();
        assert_eq!(told(), Some(25));
        liveness.lose();
        assert_eq!(told(), Some(25));
        liveness.set(Reading::Waiting(Instant::now()));
        assert_eq!(told(), None);
        // One that breaks soon after it was read.
        pass(10).await;
        liveness.lose();
        assert_eq!(told(), Some(0));
        liveness.set(Reading::Busy);
        assert_eq!(told(), None);
    }
}
