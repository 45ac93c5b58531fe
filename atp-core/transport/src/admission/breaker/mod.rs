//! Circuit breaker: a host that keeps failing is left alone for a while.
//!
//! ```text
//!  Closed ──too many failures──► Open ──cool-down passes, or the host answers──► HalfOpen
//!     ▲                           ▲                                               │   │
//!     │                           └───────────── the probe fails ─────────────────┘   │
//!     └───────────────────────────── the host answers ────────────────────────────────┘
//! ```
//!
//! It records what the host did (answered, failed), and is asked before work is sent. It knows
//! nothing of connections and kinds of errors: what counts as a failure of the host is decided where it is seen.

mod evidence;
mod share;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use crate::config::BreakerConfig;
use crate::error::TransportError;
use crate::sync::backoff;
use crate::sync::sliding_window::{SlidingWindow, WindowCounts};
use share::{Membership, OpenPlace};
use strum::{Display, IntoStaticStr};

pub(crate) use share::OpenShare;

/// Where a host's circuit breaker stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Display, IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum BreakerState {
    /// Work is sent to the host.
    #[default]
    Closed,
    /// Work is refused.
    Open,
    /// Work is refused, but for one probe at a time.
    HalfOpen,
}

impl BreakerState {
    /// The word, in kebab case.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What a host's circuit breaker looks like at one moment.
#[derive(Debug, Clone)]
pub struct BreakerStatus {
    /// Where it stands. Open is left when the cool-down has passed and somebody asks.
    pub state: BreakerState,
    /// When an open one lets a probe through.
    pub next_probe: Option<Instant>,
    /// Executions it refused since the host was added.
    pub refused: u64,
    /// The last failure of the host.
    pub last_failure: Option<Arc<TransportError>>,
}

/// What a breaker did on hearing of something.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Opened { cool_down: Duration, failure: Arc<TransportError> },
    HalfOpened,
    Closed { open_for: Duration },
}

/// Work is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

/// The one place for a probe, free again when this is dropped.
pub(crate) struct Probe<'a> {
    breaker: &'a Breaker,
    number: u64,
}

/// One host's circuit breaker.
pub(crate) struct Breaker {
    /// Nothing to ask before work is sent.
    closed: AtomicBool,
    refused: AtomicU64,
    membership: Membership,
    /// Called at each change, under the lock and so in their order.
    on_change: Box<dyn Fn(&Change) + Send + Sync>,
    inner: Mutex<Inner>,
}

struct Inner {
    position: Position,
    recent: SlidingWindow,
    in_a_row: u32,
    /// When the last failure was counted.
    failed_at: Option<Instant>,
    last_failure: Option<Arc<TransportError>>,
    /// How often it opened without having stayed closed in between.
    openings: u32,
    closed_since: Option<Instant>,
    probes: u64,
}

enum Position {
    Closed,
    Open { since: Instant, until: Instant, first: Instant, place: OpenPlace },
    HalfOpen { since: Instant, probe: Option<u64>, first: Instant, place: OpenPlace },
}

impl Breaker {
    /// One of those that share how many may be open; `on_change` must not ask it anything.
    pub(crate) fn new(share: Arc<OpenShare>, on_change: impl Fn(&Change) + Send + Sync + 'static) -> Self {
        Breaker {
            closed: AtomicBool::new(true),
            refused: AtomicU64::new(0),
            membership: Membership::new(share),
            on_change: Box::new(on_change),
            inner: Mutex::new(Inner {
                position: Position::Closed,
                recent: SlidingWindow::default(),
                in_a_row: 0,
                failed_at: None,
                last_failure: None,
                openings: 0,
                closed_since: None,
                probes: 0,
            }),
        }
    }

    /// Whether work needs not ask.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Asks whether work may be sent; with a probe's place, if the work has to find out whether the host answers.
    pub(crate) fn admit(
        &self,
        config: &BreakerConfig,
        now: Instant,
    ) -> (Result<Option<Probe<'_>>, Refused>, Option<Change>) {
        if self.is_closed() {
            return (Ok(None), None);
        }
        let mut inner = self.inner.lock();
        let change = match inner.position {
            // It opened while it was being turned off.
            _ if !config.enabled => inner.close(now),
            Position::Open { until, .. } if until <= now => inner.half_open(now),
            _ => None,
        };
        self.publish(&inner, change.as_ref());
        let number = inner.probes;
        let admitted = match &mut inner.position {
            Position::Closed => Ok(None),
            Position::HalfOpen { probe: place @ None, .. } => {
                *place = Some(number);
                inner.probes += 1;
                Ok(Some(Probe { breaker: self, number }))
            }
            Position::Open { .. } | Position::HalfOpen { .. } => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(Refused)
            }
        };
        (admitted, change)
    }

    /// Whether work that asked now would be let through.
    pub(crate) fn would_admit(&self, now: Instant) -> bool {
        self.is_closed()
            || match self.inner.lock().position {
                Position::Closed => true,
                Position::Open { until, .. } => until <= now,
                Position::HalfOpen { probe, .. } => probe.is_none(),
            }
    }

    /// The host answered something that was asked at `began`, or later.
    pub(crate) fn answered(&self, config: &BreakerConfig, began: Instant, now: Instant) -> Option<Change> {
        if !config.enabled {
            return None;
        }
        let mut inner = self.inner.lock();
        let change = match inner.position {
            Position::Closed => {
                inner.in_a_row = 0;
                inner.recent.add(config.window, now, WindowCounts { all: 1, marked: 0 });
                None
            }
            // Answers to what was asked before say nothing of how the host is since.
            Position::Open { since, .. } if began >= since => inner.half_open(now),
            Position::HalfOpen { since, .. } if began >= since => inner.close(now),
            _ => None,
        };
        self.publish(&inner, change.as_ref());
        change
    }

    /// The host was connected to again: a probe needs not wait for the end of the cool-down.
    pub(crate) fn reconnected(&self, now: Instant) -> Option<Change> {
        if self.is_closed() {
            return None;
        }
        let mut inner = self.inner.lock();
        let open = matches!(inner.position, Position::Open { .. });
        let change = open.then(|| inner.half_open(now)).flatten();
        self.publish(&inner, change.as_ref());
        change
    }

    /// It is to refuse nothing any more.
    pub(crate) fn turn_off(&self, now: Instant) -> Option<Change> {
        if self.is_closed() {
            return None;
        }
        let mut inner = self.inner.lock();
        let change = inner.close(now);
        self.publish(&inner, change.as_ref());
        change
    }

    /// The host failed at something that was begun at `began`.
    pub(crate) fn failed(
        &self,
        config: &BreakerConfig,
        began: Instant,
        now: Instant,
        failure: Arc<TransportError>,
    ) -> Option<Change> {
        if !config.enabled {
            return None;
        }
        let mut inner = self.inner.lock();
        inner.last_failure = Some(failure.clone());
        let opens = match inner.position {
            Position::Closed => {
                if inner.failed_at.is_none_or(|last| began >= last) {
                    inner.failed_at = Some(now);
                    inner.in_a_row = inner.in_a_row.saturating_add(1);
                }
                inner.recent.add(config.window, now, WindowCounts { all: 1, marked: 1 });
                inner.is_too_much(config, now)
            }
            Position::HalfOpen { since, .. } => began >= since,
            Position::Open { .. } => false,
        };
        let change = opens.then(|| inner.open(config, &self.membership, now, failure)).flatten();
        self.publish(&inner, change.as_ref());
        change
    }

    pub(crate) fn status(&self) -> BreakerStatus {
        let inner = self.inner.lock();
        let (state, next_probe) = match inner.position {
            Position::Closed => (BreakerState::Closed, None),
            Position::Open { until, .. } => (BreakerState::Open, Some(until)),
            Position::HalfOpen { .. } => (BreakerState::HalfOpen, None),
        };
        let refused = self.refused.load(Ordering::Relaxed);
        BreakerStatus { state, next_probe, refused, last_failure: inner.last_failure.clone() }
    }

    fn publish(&self, inner: &Inner, change: Option<&Change>) {
        change.into_iter().for_each(&self.on_change);
        self.closed.store(matches!(inner.position, Position::Closed), Ordering::Release);
    }
}

impl Inner {
    fn is_too_much(&mut self, config: &BreakerConfig, now: Instant) -> bool {
        let in_a_row = config.consecutive_failures > 0 && self.in_a_row >= config.consecutive_failures;
        let WindowCounts { all, marked } = self.recent.counts(now);
        let share = marked as f64 / all as f64;
        in_a_row
            || (config.failure_rate > 0.0 && all >= config.min_calls as u64 && share >= config.failure_rate)
    }

    /// Opens, or opens again; stays as it is while as many other hosts' breakers are open as may be.
    fn open(
        &mut self,
        config: &BreakerConfig,
        membership: &Membership,
        now: Instant,
        failure: Arc<TransportError>,
    ) -> Option<Change> {
        let (place, first) = match std::mem::replace(&mut self.position, Position::Closed) {
            Position::Closed => {
                let stayed_closed = self
                    .closed_since
                    .is_none_or(|since| now.saturating_duration_since(since) >= config.window);
                let place = membership.open_place(config)?;
                if stayed_closed {
                    self.openings = 0;
                }
                (place, now)
            }
            Position::Open { place, first, .. } | Position::HalfOpen { place, first, .. } => (place, first),
        };
        self.openings = self.openings.saturating_add(1);
        let cool_down = backoff::spread(config.backoff().ceiling(self.openings)).min(config.max_cool_down);
        self.position = Position::Open { since: now, until: now + cool_down, first, place };
        Some(Change::Opened { cool_down, failure })
    }

    fn half_open(&mut self, now: Instant) -> Option<Change> {
        match std::mem::replace(&mut self.position, Position::Closed) {
            Position::Open { first, place, .. } => {
                self.position = Position::HalfOpen { since: now, probe: None, first, place };
                Some(Change::HalfOpened)
            }
            other => {
                self.position = other;
                None
            }
        }
    }

    fn close(&mut self, now: Instant) -> Option<Change> {
        let position = std::mem::replace(&mut self.position, Position::Closed);
        let (Position::Open { first, .. } | Position::HalfOpen { first, .. }) = position else { return None };
        self.recent = SlidingWindow::default();
        self.in_a_row = 0;
        self.failed_at = None;
        self.closed_since = Some(now);
        Some(Change::Closed { open_for: now.saturating_duration_since(first) })
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        // A later probe's place is not this one's to give back.
        if let Position::HalfOpen { probe, .. } = &mut self.breaker.inner.lock().position
            && *probe == Some(self.number)
        {
            *probe = None;
        }
    }
}

#[cfg(test)]
mod tests;
