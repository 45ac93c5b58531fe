//! When a host is left alone for a while.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sync::backoff::Backoff;

/// The circuit breaker of each host: work for a host that keeps failing is refused at once, but for a probe now
/// and then.
///
/// Only failures of the host count: a connection that cannot be opened or is lost, and a call that is not
/// answered in time; not those of a VM, a guest or a caller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Whether there is one at all.
    pub enabled: bool,
    /// It opens after so many failures without an answer between them; 0 for never. What fails while it was
    /// under way together counts as one: a daemon that restarts breaks all its connections at once.
    pub consecutive_failures: u32,
    /// It opens when at least this share of what was tried within the window failed, 0 to 1; 0 for never.
    pub failure_rate: f64,
    /// How far back the share is looked at. A breaker that stayed closed for as long starts again at `cool_down`.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// A share of fewer calls than this says nothing.
    pub min_calls: usize,
    /// A host that was given less time than this to answer has not failed.
    #[serde(with = "humantime_serde")]
    pub min_wait: Duration,
    /// How long work is refused before a probe may find out more, give or take a tenth.
    #[serde(with = "humantime_serde")]
    pub cool_down: Duration,
    /// Growth of the cool-down from one failed probe to the next.
    pub multiplier: f64,
    /// Longest cool-down.
    #[serde(with = "humantime_serde")]
    pub max_cool_down: Duration,
    /// Largest share of all hosts whose breakers may be open at once, 0 to 1: when more than that fail, the fault
    /// is rather with the network here.
    pub max_open_share: f64,
    /// With fewer hosts than this there is no such limit.
    pub min_hosts_for_share: usize,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        BreakerConfig {
            enabled: true,
            consecutive_failures: 5,
            failure_rate: 0.5,
            window: Duration::from_secs(30),
            min_calls: 20,
            min_wait: Duration::from_secs(1),
            cool_down: Duration::from_secs(5),
            multiplier: 2.0,
            max_cool_down: Duration::from_secs(60),
            max_open_share: 0.5,
            min_hosts_for_share: 5,
        }
    }
}

impl BreakerConfig {
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff { initial: self.cool_down, multiplier: self.multiplier, longest: self.max_cool_down }
    }
}
