//! How many calls a host gets.

use serde::{Deserialize, Serialize};

/// A limit on the calls sent to each host: a token bucket. None unless it is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimitConfig {
    /// Most calls a second to one host, in the long run; 0 for no limit. A call that would have to wait past its
    /// deadline fails at once. A question about the progress of a long job does not wait: it is sent only while the whole burst is
    /// free.
    pub calls_per_second: f64,
    /// Calls that may be sent at once after a quiet time.
    pub burst: u32,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        RateLimitConfig { calls_per_second: 0.0, burst: 10 }
    }
}
