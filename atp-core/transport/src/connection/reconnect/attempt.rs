//! One attempt to open a link, as the [`Connector`](crate::Connector) gets it.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::admission::calls::InFlight;
use crate::config::TransportConfig;
use crate::error::ConnectError;

/// One attempt to open a link, as the [`Connector`](crate::Connector) gets it.
pub struct ConnectAttempt {
    deadline: Instant,
    config: Arc<TransportConfig>,
    in_flight: InFlight,
    last_error: LastError,
}

/// Why the last attempt failed, or what the present one waits for. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct LastError {
    error: Arc<Mutex<Option<Arc<ConnectError>>>>,
}

impl ConnectAttempt {
    pub(crate) fn new(
        deadline: Instant,
        config: Arc<TransportConfig>,
        in_flight: InFlight,
        last_error: LastError,
    ) -> Self {
        ConnectAttempt { deadline, config, in_flight, last_error }
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
        self.last_error.set(Some(Arc::new(error)));
    }

    /// The token that marks the attempt as under way. An implementation that cannot stop a blocked attempt
    /// moves it there and drops it when the attempt is really over.
    pub fn into_in_flight(self) -> InFlight {
        self.in_flight
    }
}

impl LastError {
    pub(super) fn get(&self) -> Option<Arc<ConnectError>> {
        self.error.lock().clone()
    }

    pub(super) fn set(&self, error: Option<Arc<ConnectError>>) {
        *self.error.lock() = error;
    }
}
