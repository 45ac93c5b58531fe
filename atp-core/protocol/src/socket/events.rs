//! The events of a monitor, as a stream.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};

use super::end::Ended;
use super::end::LinkEnd;

/// An event of QEMU's monitor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MonitorEvent {
    /// Its name, such as `STOP`.
    #[serde(rename = "event")]
    pub name: String,
    /// Its data. Null if it has none.
    #[serde(default)]
    pub data: Value,
    timestamp: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
struct Timestamp {
    seconds: i64,
    microseconds: i64,
}

impl MonitorEvent {
    /// When it happened, as time since 1970 by the clock of QEMU's host. None if QEMU did not know the time.
    pub fn time(&self) -> Option<Duration> {
        let seconds = u64::try_from(self.timestamp.seconds).ok()?;
        let micros = u32::try_from(self.timestamp.microseconds).ok()?;
        Some(Duration::new(seconds, micros.checked_mul(1000).filter(|nanos| *nanos < 1_000_000_000)?))
    }

    /// Converts it to the type that [`qapi::qmp`] defines, with the time 0 if QEMU did not know it. None for an event
    /// that is not defined there.
    pub fn typed(&self) -> Option<qapi::qmp::Event> {
        // The type cannot express an unknown time.
        let time = self.time().unwrap_or_default();
        let timestamp = json!({"seconds": time.as_secs(), "microseconds": time.subsec_micros()});
        let mut event = json!({"event": self.name, "timestamp": timestamp});
        if !self.data.is_null()
            && let Some(fields) = event.as_object_mut()
        {
            fields.insert("data".to_owned(), self.data.clone());
        }
        serde_json::from_value(event).ok()
    }
}

/// An item of a stream of events.
#[derive(Debug, Clone, PartialEq)]
pub enum MonitorNotice {
    /// An event.
    Event(MonitorEvent),
    /// Events are missing here: the reader was too slow, or they were too long.
    Gap {
        /// How many.
        missed: u64,
    },
}

/// The events of one link, from the time it was created.
///
/// A slow reader does not block the link and does not use more memory: it gets a [`Gap`](MonitorNotice::Gap) in place
/// of the oldest events.
#[derive(Debug)]
pub struct MonitorEvents {
    notices: broadcast::Receiver<MonitorNotice>,
    ended: Ended,
}

impl MonitorEvents {
    pub(super) fn new(notices: broadcast::Receiver<MonitorNotice>, ended: Ended) -> Self {
        MonitorEvents { notices, ended }
    }

    /// The next event, or the gap before it.
    ///
    /// # Errors
    /// Why the link ended, after all earlier events are read. Events that happen before another link is open are lost:
    /// query the state then.
    ///
    /// Cancel safe: no event is lost.
    pub async fn next(&mut self) -> Result<MonitorNotice, LinkEnd> {
        match self.notices.recv().await {
            Ok(notice) => Ok(notice),
            Err(RecvError::Lagged(missed)) => Ok(MonitorNotice::Gap { missed }),
            Err(RecvError::Closed) => Err(self.ended.reason()),
        }
    }
}
