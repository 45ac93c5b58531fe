//! The events of a run, as one stream that outlives the connections which carry it.

use std::time::Duration;

use atp_api::RunEvent;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::error::ClientError;
use crate::sse::Reader;

/// How long a stream that broke is tried again, from its last sign of life.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pauses between tries, from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Events that are read ahead.
const AHEAD: usize = 256;

/// The events of a run. A connection that breaks is replaced, and the stream goes on after the last event that arrived.
///
/// Dropping it leaves the run as it is.
#[derive(Debug)]
pub struct RunEvents {
    events: mpsc::Receiver<Result<RunEvent, ClientError>>,
    reader: JoinHandle<()>,
}

impl Client {
    /// The events of a run, from its first one. Must be called within a runtime.
    pub fn run_events(&self, run: u64) -> RunEvents {
        let (sender, events) = mpsc::channel(AHEAD);
        RunEvents { events, reader: tokio::spawn(follow(self.clone(), run, sender)) }
    }
}

impl RunEvents {
    /// The next event; none after the run's end.
    ///
    /// # Errors
    /// The service refuses the stream, or has not been reached for a minute. Nothing comes after an error.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Option<RunEvent>, ClientError> {
        self.events.recv().await.transpose()
    }
}

impl Drop for RunEvents {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Reads the events of a run until its end.
async fn follow(client: Client, run: u64, events: mpsc::Sender<Result<RunEvent, ClientError>>) {
    let path = format!("/api/v1/runs/{run}/events");
    let (mut after, mut alive, mut pause) = (None, Instant::now(), FIRST_PAUSE);
    loop {
        let before = after.clone();
        let error = match read(&client, &path, &mut after, &mut alive, &events).await {
            Ok(Read::Ended) => return,
            Ok(Read::Broken(error)) => error,
            Err(error) if error.is_temporary() => Some(error),
            Err(error) => {
                // Fails if the reader has left.
                let _unheard = events.send(Err(error)).await;
                return;
            }
        };
        if after != before {
            pause = FIRST_PAUSE;
        }
        match error {
            Some(error) if alive.elapsed() + pause > PATIENCE => {
                let (for_how_long, source) = (alive.elapsed(), Box::new(error));
                let _unheard = events.send(Err(ClientError::EventsLost { run, for_how_long, source })).await;
                return;
            }
            _ => sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// How a connection of a stream ended.
enum Read {
    /// The run has ended, or its events are read no more.
    Ended,
    /// The connection broke, by an error or by its end.
    Broken(Option<ClientError>),
}

async fn read(
    client: &Client,
    path: &str,
    after: &mut Option<String>,
    alive: &mut Instant,
    events: &mpsc::Sender<Result<RunEvent, ClientError>>,
) -> Result<Read, ClientError> {
    let mut body = client.stream(path, after.as_deref()).await?;
    let mut reader = Reader::default();
    loop {
        let piece = match client.piece(&mut body).await {
            Ok(Some(piece)) => piece,
            Ok(None) => return Ok(Read::Broken(None)),
            Err(error) => return Ok(Read::Broken(Some(error))),
        };
        *alive = Instant::now();
        reader.push(&piece)?;
        while let Some(message) = reader.next()? {
            // What is not known is an event of a later version.
            let event = serde_json::from_str(&message.data).unwrap_or(RunEvent::Unknown);
            let is_end = matches!(event, RunEvent::Ended(_));
            if events.send(Ok(event)).await.is_err() {
                return Ok(Read::Ended);
            }
            // Only what was passed on is behind the place where the stream is continued.
            if message.id.is_some() {
                *after = message.id;
            }
            if is_end {
                return Ok(Read::Ended);
            }
        }
    }
}
