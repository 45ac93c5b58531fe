//! What counts as a failure of the host for its circuit breaker.
//!
//! Failures of the host: a connection that cannot be opened, or is lost; a call to the daemon itself, or a
//! heartbeat, that is not answered in time; no connection by the deadline because none could be opened. A call to a
//! VM that hangs says nothing of its host, and neither does what a caller gave too little time, what stands in line
//! behind others, or what we lack ourselves. Any answer of the host is a success, an error too.

use std::sync::Arc;
use std::time::Duration;

use atp_api::OutcomeError;
use tokio::time::Instant;

use super::{BreakerStatus, Change, Probe};
use crate::admission::calls::Lane;
use crate::connection::connector::Connector;
use crate::error::{AcquireStage, ConnectError, ErrorKind, Result, TransportError};
use crate::host::state::HostState;
use crate::observe::events::TransportEvent;

impl<C: Connector> HostState<C> {
    /// Asks whether work may be sent; with a probe's place, if the work has to find out whether the host answers.
    pub(crate) fn admit(&self) -> Result<Option<Probe<'_>>> {
        let (admitted, change) = self.breaker.admit(&self.config().breaker, Instant::now());
        self.log(change);
        admitted.map_err(|_| self.circuit_open())
    }

    /// The configuration is another one: a breaker that is turned off refuses nothing.
    pub(crate) fn breaker_reconfigured(&self) {
        if !self.config().breaker.enabled {
            self.log(self.breaker.turn_off(Instant::now()));
        }
    }

    /// The error for work that is refused.
    pub(crate) fn circuit_open(&self) -> TransportError {
        let BreakerStatus { next_probe, last_failure, .. } = self.breaker.status();
        let next_probe_in =
            next_probe.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        TransportError::CircuitOpen { host: self.id.clone(), next_probe_in, last_failure }
    }

    /// The host was connected to again, after it could not be or a link had been lost.
    pub(crate) fn heard_of_reconnect(&self) {
        self.log(self.breaker.reconnected(Instant::now()));
    }

    /// An attempt to connect, made at `began`, failed.
    pub(crate) fn heard_of_attempt(&self, began: Instant, error: &Arc<ConnectError>) {
        if error.kind != ErrorKind::ThreadsExhausted {
            self.failed(began, || self.cannot_connect(error));
        }
    }

    /// No connection could be had, asked for at `asked`.
    pub(crate) fn heard_of_acquire(&self, asked: Instant, error: &TransportError) {
        // Attempts that failed have been counted themselves, each once, however many callers get the error.
        if let TransportError::AcquireTimeout { stage: AcquireStage::Connecting, waited, .. } = error
            && self.is_patient(*waited)
        {
            self.failed(asked, || error.clone());
        }
    }

    /// A heartbeat sent at `began` was answered, or was not.
    pub(crate) fn heard_of_heartbeat(&self, began: Instant, result: &Result<(), Arc<ConnectError>>) {
        match result {
            Ok(()) => self.answered(began),
            Err(error) if error.kind == ErrorKind::CallTimeout && !self.is_patient(began.elapsed()) => {}
            Err(error) => self.failed(began, || self.cannot_connect(error)),
        }
    }

    /// A call sent at `began` has come to its end.
    pub(crate) fn record_call<T>(&self, began: Instant, lane: Option<Lane>, result: &Result<T>) {
        match result {
            Ok(_) | Err(TransportError::Libvirt { .. } | TransportError::MonitorBusy { .. }) => {
                self.answered(began);
            }
            Err(error @ TransportError::ConnectionLost { .. }) => self.failed(began, || error.clone()),
            Err(error @ TransportError::CallTimeout { .. })
                if lane.is_none() && self.is_patient(began.elapsed()) =>
            {
                self.failed(began, || error.clone());
            }
            Err(_) => {}
        }
    }

    fn cannot_connect(&self, error: &Arc<ConnectError>) -> TransportError {
        TransportError::Connect { host: self.id.clone(), source: error.clone() }
    }

    /// Whether a host that does not answer for so long has failed.
    fn is_patient(&self, time: Duration) -> bool {
        time >= self.config().breaker.min_wait
    }

    fn answered(&self, began: Instant) {
        let change = self.breaker.answered(&self.config().breaker, began, Instant::now());
        self.log(change);
    }

    fn failed(&self, began: Instant, failure: impl FnOnce() -> TransportError) {
        let config = self.config();
        if config.breaker.enabled {
            let change = self.breaker.failed(&config.breaker, began, Instant::now(), Arc::new(failure()));
            self.log(change);
        }
    }

    fn log(&self, change: Option<Change>) {
        match change {
            None => {}
            Some(Change::Opened { cool_down, failure }) => {
                let reason = OutcomeError::in_full(&*failure);
                tracing::warn!(host = %self.id, ?cool_down, reason, "circuit breaker opened");
            }
            Some(Change::HalfOpened) => tracing::info!(host = %self.id, "circuit breaker half open"),
            Some(Change::Closed { open_for }) => {
                tracing::info!(host = %self.id, ?open_for, "circuit breaker closed");
            }
        }
    }
}

impl Change {
    /// The event that reports it.
    pub(crate) fn event(&self) -> TransportEvent {
        match self {
            Change::Opened { cool_down, failure } => TransportEvent::BreakerOpened {
                reason: OutcomeError::in_full(&**failure),
                cool_down: *cool_down,
            },
            Change::HalfOpened => TransportEvent::BreakerHalfOpen,
            Change::Closed { open_for } => TransportEvent::BreakerClosed { open_for: *open_for },
        }
    }
}
