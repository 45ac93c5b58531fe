//! One attempt to open a link, as the [`Connector`](crate::Connector) gets it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::admission::calls::InFlight;
use crate::config::TransportConfig;
use crate::error::ConnectError;

/// For how long an attempt has to wait for the same before that says something of the host: each attempt waits for each of
/// its steps for a moment.
const TELLING: Duration = Duration::from_secs(1);

/// One attempt to open a link, as the [`Connector`](crate::Connector) gets it.
pub struct ConnectAttempt {
    deadline: Instant,
    config: Arc<TransportConfig>,
    in_flight: InFlight,
    waiting: Weak<Waiting>,
}

/// Why a host could not be reached when it was last tried.
#[derive(Default)]
pub(super) struct LastError {
    failed: Option<Arc<ConnectError>>,
    /// What the present attempt waits for, as long as it is under way.
    waiting: Weak<Waiting>,
}

/// What an attempt waits for, and since when.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Option<(Instant, Arc<ConnectError>)>>);

impl ConnectAttempt {
    pub(super) fn new(
        deadline: Instant,
        config: Arc<TransportConfig>,
        in_flight: InFlight,
        waiting: &Arc<Waiting>,
    ) -> Self {
        ConnectAttempt { deadline, config, in_flight, waiting: Arc::downgrade(waiting) }
    }

    /// One of which no host waits for what it says.
    #[cfg(all(test, feature = "library"))]
    pub(crate) fn alone(deadline: Instant, config: Arc<TransportConfig>, in_flight: InFlight) -> Self {
        ConnectAttempt::new(deadline, config, in_flight, &Arc::default())
    }

    /// The configuration that the host goes by, as the connector [adapted](crate::Connector::adapt) it.
    pub fn config(&self) -> &TransportConfig {
        &self.config
    }

    /// When the attempt has to have ended.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Says what the attempt waits for next: the error to report should the time of the attempt, or of a
    /// caller, run out meanwhile.
    pub fn waits_for(&self, error: ConnectError) {
        if let Some(waiting) = self.waiting.upgrade() {
            let mut waiting = waiting.0.lock();
            // One that waits for the same again, as with an sshd that does not admit it, has waited for it since the first time.
            let same = |(_, before): &&(Instant, Arc<ConnectError>)| before.to_string() == error.to_string();
            let since = waiting.as_ref().filter(same).map_or_else(Instant::now, |(since, _)| *since);
            *waiting = Some((since, Arc::new(error)));
        }
    }

    /// The token that marks the attempt as under way. An implementation that cannot stop a blocked attempt
    /// moves it there and drops it when the attempt is really over.
    pub fn into_in_flight(self) -> InFlight {
        self.in_flight
    }
}

impl Waiting {
    /// The error to report if the attempt ended now; none if it has hardly waited.
    pub(super) fn error(&self) -> Option<Arc<ConnectError>> {
        let waiting = self.0.lock();
        waiting.as_ref().filter(|(since, _)| since.elapsed() >= TELLING).map(|(_, error)| error.clone())
    }
}

impl LastError {
    /// What the present attempt has waited for without an answer, or else why the last one failed.
    pub(super) fn get(&self) -> Option<Arc<ConnectError>> {
        self.waiting.upgrade().and_then(|waiting| waiting.error()).or_else(|| self.failed.clone())
    }

    /// Takes note of an attempt that begins.
    pub(super) fn began(&mut self, waiting: &Arc<Waiting>) {
        self.waiting = Arc::downgrade(waiting);
    }

    /// Takes note that an attempt failed, or that one succeeded.
    pub(super) fn set(&mut self, failed: Option<Arc<ConnectError>>) {
        self.failed = failed;
    }
}
