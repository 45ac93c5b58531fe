//! One door a host: connections of one host share one backoff, so that one attempt at a time knocks on it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::Guard;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::backoff;
use crate::calls::InFlight;
use crate::config::TransportConfig;
use crate::connector::Connector;
use crate::context::HostContext;
use crate::error::{ConnectError, ErrorKind};
use crate::pace::Pace;

/// The attempts to connect to one host.
pub(crate) struct Reconnect {
    turn: Semaphore,
    pace: Arc<Pace>,
    state: Arc<Mutex<State>>,
}

/// One attempt to open a link, as the [`Connector`] gets it.
pub struct Attempt {
    deadline: Instant,
    in_flight: InFlight,
    state: Arc<Mutex<State>>,
}

impl Attempt {
    /// When the attempt has to have ended.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Says what the attempt waits for next: the error to report should the time of the attempt, or of a
    /// caller, run out meanwhile.
    pub fn waits_for(&self, error: ConnectError) {
        lock(&self.state).last_error = Some(Arc::new(error));
    }

    /// The token that marks the attempt as under way. An implementation that cannot stop a blocked attempt
    /// moves it there and drops it when the attempt is really over.
    pub fn into_in_flight(self) -> InFlight {
        self.in_flight
    }
}

#[derive(Default)]
struct State {
    /// Attempts that failed since the last that succeeded.
    failures: u32,
    /// Connections that broke soon after they were opened, since one that stayed up. They slow the next
    /// attempts down as failures do, and use up none.
    early_losses: u32,
    not_before: Option<Instant>,
    last_error: Option<Arc<ConnectError>>,
}

impl State {
    /// The wait before the next attempt.
    fn delay(&self, config: &TransportConfig) -> Duration {
        // The first early loss is waited for as any loss is.
        let slowed_by = self.failures.saturating_add(self.early_losses.saturating_sub(1));
        config.reconnect.backoff().delay(slowed_by.saturating_add(1))
    }
}

impl Reconnect {
    pub(crate) fn new(pace: Arc<Pace>) -> Self {
        Reconnect { turn: Semaphore::new(1), pace, state: Arc::default() }
    }

    /// Waits for its turn and for the backoff to pass, then tries once to open a link.
    ///
    /// Only attempts to open a link `again` keep to the pace of all hosts: work does not wait for that of other
    /// hosts. `on_start` is called when the waiting is over. Cancel safe.
    pub(crate) async fn attempt<C: Connector>(
        &self,
        host: &HostContext<C>,
        again: bool,
        on_start: impl FnOnce(),
    ) -> Result<C::Link, Arc<ConnectError>> {
        // The semaphore is never closed.
        let _turn = self.turn.acquire().await;
        let not_before = self.state().not_before;
        if let Some(not_before) = not_before {
            sleep_until(not_before).await;
        }
        if again {
            self.pace.turn().await;
        }
        on_start();
        let (info, config) = (host.info(), Guard::into_inner(host.config()));
        let deadline = Instant::now() + config.connect_timeout;
        let result = match host.calls.begin_attempt(deadline) {
            // The connector keeps the deadline itself and says why; the time-out here is for one that does not.
            Some(in_flight) => {
                let attempt = Attempt { deadline, in_flight, state: self.state.clone() };
                timeout_at(deadline, host.connector.connect(&info, attempt)).await.unwrap_or_else(|_| {
                    Err(ConnectError::new(
                        ErrorKind::ConnectTimeout,
                        format!("no connection within {:?}", config.connect_timeout),
                    ))
                })
            }
            None => Err(ConnectError::new(
                ErrorKind::ConnectTimeout,
                format!("{} earlier attempts to connect still hang", config.reconnect.max_hung_attempts),
            )),
        };
        match result {
            Ok(link) => {
                let mut state = self.state();
                state.failures = 0;
                state.not_before = None;
                state.last_error = None;
                Ok(link)
            }
            Err(error) => {
                let error = Arc::new(error);
                self.state().last_error = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Takes note that an attempt failed, and sets the pace of the next.
    ///
    /// Returns the number of the next attempt, or none when so many have failed in a row that the host
    /// counts as failed. A `first` attempt has no others to follow it: nobody knows that the host was ever there.
    pub(crate) fn failed(&self, config: &TransportConfig, first: bool) -> Option<u32> {
        let reconnect = &config.reconnect;
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        let spent = reconnect.max_attempts != 0 && (first || state.failures >= reconnect.max_attempts);
        let wait = if spent { backoff::spread(reconnect.max_delay) } else { state.delay(config) };
        state.not_before = Some(Instant::now() + wait);
        (!spent).then_some(state.failures.saturating_add(1))
    }

    /// Takes note that a connection that had been up for `up_for` was lost, and sets the pace of the next
    /// attempt, whose number it returns. The backoff starts anew only if the connection had stayed up.
    pub(crate) fn lost(&self, config: &TransportConfig, up_for: Duration) -> u32 {
        let mut state = self.state();
        let now = Instant::now();
        // When the host's other connections were lost in the same moment, the first of them sets the pace.
        if state.not_before.is_none_or(|at| at <= now) {
            let stayed_up = up_for >= config.reconnect.reset_after;
            state.early_losses = if stayed_up { 0 } else { state.early_losses.saturating_add(1) };
            state.not_before = Some(now + state.delay(config));
        }
        state.failures.saturating_add(1)
    }

    /// Why the last attempt failed, or what the present one waits for.
    pub(crate) fn last_error(&self) -> Option<Arc<ConnectError>> {
        self.state().last_error.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Nothing under this lock can panic half-way, so a poisoned one still guards sound data.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
