//! When a host counts as healthy, and when not.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Thresholds of health: [`TransportManager::health`](crate::TransportManager::health).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// How often the hosts are looked at; 0 for never.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Errors, latencies and refusals count for so long.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// With fewer calls in the window, their errors and latencies say nothing.
    pub min_calls: u64,
    /// A host is degraded when at least this share of its calls get no answer; 0 to 1.
    pub degraded_error_rate: f64,
    /// A host is unavailable when at least this share of its calls get no answer; 0 to 1.
    pub unavailable_error_rate: f64,
    /// A host is degraded when its calls take longer than this on average; 0 for no limit.
    #[serde(with = "humantime_serde")]
    pub slow_mean: Duration,
    /// A host is degraded when one in a hundred of its calls takes longer than this; 0 for no limit.
    #[serde(with = "humantime_serde")]
    pub slow_p99: Duration,
    /// A host is degraded when at least this share of the leases it can have without sharing connections is out; 0
    /// for no limit.
    pub high_utilisation: f64,
    /// A host is overloaded when more callers than this found no room in the window: no connection by
    /// their deadline, or a rate limit.
    pub tolerated_refusals: u64,
    /// A caller who would not wait for so long was not refused, but in a hurry.
    #[serde(with = "humantime_serde")]
    pub min_wait: Duration,
    /// So many looks in a row have to see a worse state for it to count; 1 for at once.
    pub worse_after: u32,
    /// A better state has to hold for so long to count.
    #[serde(with = "humantime_serde")]
    pub better_after: Duration,
    /// The fleet is degraded when more than this share of its hosts is not healthy; 0 to 1.
    pub fleet_degraded_share: f64,
    /// The fleet is overloaded or unavailable when more than this share of its hosts is that or worse; 0 to 1.
    pub fleet_unavailable_share: f64,
}

impl Default for HealthConfig {
    fn default() -> Self {
        HealthConfig {
            interval: Duration::from_secs(5),
            window: Duration::from_secs(60),
            min_calls: 10,
            degraded_error_rate: 0.1,
            unavailable_error_rate: 0.9,
            slow_mean: Duration::from_secs(2),
            slow_p99: Duration::from_secs(10),
            high_utilisation: 0.9,
            tolerated_refusals: 0,
            min_wait: Duration::from_secs(1),
            worse_after: 2,
            better_after: Duration::from_secs(30),
            fleet_degraded_share: 0.1,
            fleet_unavailable_share: 0.5,
        }
    }
}
