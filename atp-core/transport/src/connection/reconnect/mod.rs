//! Per-host reconnect gate: one attempt at a time unless the host is well, and a backoff that all connections of the host
//! share.

mod attempt;
mod connect;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::config::TransportConfig;
use crate::error::ConnectError;
use crate::sync::backoff;
use crate::sync::rate_limiter::RateLimiter;
use crate::sync::semaphore::{Permit, ResizableSemaphore};
use attempt::{LastError, Waiting};

pub use attempt::ConnectAttempt;
pub(crate) use connect::FailedAttempt;

/// The attempts to connect to one host: when the next may be made, and what came of the last.
pub(crate) struct Reconnect {
    /// As many as may be made at once: one, until one has succeeded since the last failure or loss.
    turns: Arc<ResizableSemaphore>,
    pace: Arc<RateLimiter>,
    state: Mutex<State>,
    /// The next attempt may be made sooner than was said.
    sooner: Notify,
    last_error: Mutex<LastError>,
}

/// An attempt that is under way, for as long as someone waits for it.
struct UnderWay<'a> {
    waiting: Arc<Waiting>,
    reconnect: &'a Reconnect,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        // Its caller has left: what it has waited for in vain is all that is known.
        if let Some(error) = self.waiting.error() {
            self.reconnect.last_error.lock().set(Some(error));
        }
    }
}

/// Held while an attempt to connect is made. While the host is not known to be well, no other is made.
pub(crate) struct Turn {
    _permit: Permit,
    /// How many attempts had failed when it began.
    failed_before: u64,
}

#[derive(Default)]
struct State {
    /// Attempts that failed since the last that succeeded; those made at once count as one.
    failures: u32,
    /// All attempts that failed.
    failed: u64,
    /// Connections that broke soon after they were opened, since one that stayed up. They slow the next
    /// attempts down as failures do, and use up none.
    early_losses: u32,
    not_before: Option<Instant>,
    /// That was said after the first attempt of a further connection, which is in no hurry as those are that are lost.
    after_first: bool,
    /// A connection was lost, and none has been opened since.
    has_lost: bool,
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
    pub(crate) fn new(pace: Arc<RateLimiter>) -> Self {
        let (state, sooner, last_error) = (Mutex::default(), Notify::new(), Mutex::default());
        Reconnect { turns: ResizableSemaphore::new(1), pace, state, sooner, last_error }
    }

    /// Waits for the attempts of others, and for the backoff to pass; to open a link `again` also for the pace of all
    /// hosts. Cancel safe.
    async fn turn(&self, again: bool) -> Turn {
        let permit = self.turns.acquire().await;
        while let Some(not_before) = self.not_before() {
            tokio::select! {
                () = sleep_until(not_before) => {}
                () = self.sooner.notified() => {}
            }
        }
        if again {
            self.pace.turn().await;
        }
        Turn { _permit: permit, failed_before: self.state.lock().failed }
    }

    /// How many attempts are under way besides the one that asks.
    fn others(&self) -> usize {
        self.turns.taken().saturating_sub(1)
    }

    /// When the next attempt may be made, if not now.
    fn not_before(&self) -> Option<Instant> {
        self.state.lock().not_before.filter(|at| *at > Instant::now())
    }

    /// Takes note of an attempt that begins.
    fn under_way(&self) -> UnderWay<'_> {
        let waiting = Arc::default();
        self.last_error.lock().began(&waiting);
        UnderWay { waiting, reconnect: self }
    }

    /// Takes note that an attempt succeeded, which ends the backoff: so many may be made at once from now on.
    fn succeeded(&self, at_once: usize) {
        let mut state = self.state.lock();
        state.failures = 0;
        state.not_before = None;
        state.has_lost = false;
        self.last_error.lock().set(None);
        drop(state);
        self.turns.resize(at_once);
    }

    /// Takes note that an attempt failed, and sets the pace of the next. Of attempts made at once, the first that fails
    /// counts.
    ///
    /// Returns the number of the next attempt, or none when so many have failed in a row that the host
    /// counts as failed, or when it was an `only` attempt.
    fn failed(
        &self,
        config: &TransportConfig,
        turn: &Turn,
        only: bool,
        error: Arc<ConnectError>,
    ) -> Option<u32> {
        self.turns.resize(1);
        let reconnect = &config.reconnect;
        let mut state = self.state.lock();
        let counts = state.failed == turn.failed_before;
        state.failures = state.failures.saturating_add(u32::from(counts));
        let all_spent = reconnect.max_attempts != 0 && state.failures >= reconnect.max_attempts;
        let spent = all_spent || (reconnect.max_attempts != 0 && only);
        if counts {
            state.failed += 1;
            // Those that are lost wait for no further one.
            state.after_first = spent && !all_spent && !state.has_lost;
            let is_slowest = all_spent || state.after_first;
            let wait = if is_slowest { backoff::spread(reconnect.max_delay) } else { state.delay(config) };
            state.not_before = Some(Instant::now() + wait);
        }
        self.last_error.lock().set(Some(error));
        (!spent).then_some(state.failures.saturating_add(1))
    }

    /// Takes note that a connection that had been up for `up_for` was lost, and sets the pace of the next
    /// attempt, whose number it returns. The backoff starts anew only if the connection had stayed up.
    pub(crate) fn lost(&self, config: &TransportConfig, up_for: Duration) -> u32 {
        self.turns.resize(1);
        let mut state = self.state.lock();
        let now = Instant::now();
        state.has_lost = true;
        // When the host's other connections were lost in the same moment, the first of them sets the pace.
        if state.after_first || state.not_before.is_none_or(|at| at <= now) {
            let stayed_up = up_for >= config.reconnect.reset_after;
            state.early_losses = if stayed_up { 0 } else { state.early_losses.saturating_add(1) };
            state.not_before = Some(now + state.delay(config));
            state.after_first = false;
            self.sooner.notify_one();
        }
        state.failures.saturating_add(1)
    }

    /// What the present attempt has waited for without an answer, or else why the last one failed.
    pub(crate) fn last_error(&self) -> Option<Arc<ConnectError>> {
        self.last_error.lock().get()
    }
}
