//! How well hosts do their work, looked at now and then.
//!
//! A look takes a host's [`Vitals`]; what they mean is decided by a plain function (`assess.rs`). A state counts
//! only once it has shown itself for a while (`hysteresis.rs`), so that a host at a threshold does not flap. The hosts
//! are looked at by their pools (`watch.rs` keeps what was found).

mod assess;
mod hysteresis;
mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use strum::{Display, IntoStaticStr, VariantArray};
use tokio::time::Instant;

use crate::admission::breaker::BreakerState;
use crate::host::HostId;
use crate::observe::seconds::seconds;

pub(crate) use watch::{FleetWatch, HostHealth};

/// How well a host, or the fleet, does its work; from good to bad.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Display, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum HealthState {
    /// Work is done, in good time.
    Healthy,
    /// Work is done, but not all of it, or slowly.
    Degraded,
    /// There is more work than can be done.
    Overloaded,
    /// No work can be done.
    Unavailable,
}

impl HealthState {
    /// All of them, from good to bad.
    pub const ALL: &[HealthState] = HealthState::VARIANTS;

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A host's numbers at one look. What is counted over time was counted in the last
/// [`window`](crate::HealthConfig::window).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Vitals {
    /// Connections that are up and in service.
    pub connected: usize,
    /// Connections that are being opened for the first time.
    pub connecting: usize,
    /// Connections that were lost and are being opened again.
    pub reconnecting: usize,
    /// Connections whose attempts are spent.
    pub failed: usize,
    /// Leases, as a share of those there can be without sharing connections. More than 1 when connections are
    /// shared.
    pub utilisation: f64,
    /// Where the circuit breaker stands.
    pub breaker: BreakerState,
    /// Callers waiting for a lease.
    pub waiting: usize,
    /// Callers that got no connection by their deadline, all being in use, and calls over the rate limit; but for those
    /// that would not wait for [`min_wait`](crate::HealthConfig::min_wait).
    pub rejected: u64,
    /// Calls that ended.
    pub calls: u64,
    /// Those of them that got no answer: lost, not answered in time, or not sent.
    pub unanswered: u64,
    /// How long calls took on average, seconds.
    #[serde(serialize_with = "seconds")]
    pub mean_latency: Duration,
    /// How long all but one in a hundred calls took at most, seconds; rounded up, by a quarter at most.
    #[serde(serialize_with = "seconds")]
    pub p99_latency: Duration,
    /// Calls past their deadline that have not returned, now.
    pub stuck_calls: usize,
    /// Why the host could not be reached when it was last tried, if it could not.
    pub last_connect_error: Option<String>,
}

impl Vitals {
    /// The share of calls that got no answer; 0 without calls.
    pub fn error_rate(&self) -> f64 {
        if self.calls == 0 { 0.0 } else { self.unanswered as f64 / self.calls as f64 }
    }
}

/// How a host is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Health {
    /// The state that counts.
    pub state: HealthState,
    /// Why, in words.
    pub reason: String,
    /// Since when.
    #[serde(skip)]
    pub since: Instant,
    /// What the last look saw, whether it counts yet or not.
    pub seen: HealthState,
    /// The numbers of the last look.
    pub vitals: Vitals,
}

/// How the fleet is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FleetHealth {
    /// The state of the whole.
    pub state: HealthState,
    /// Why, in words.
    pub reason: String,
    /// Each host.
    pub hosts: BTreeMap<HostId, Health>,
}
