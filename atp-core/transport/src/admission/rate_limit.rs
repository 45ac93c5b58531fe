//! A host's limit on calls: an interceptor of our own, behind all others.

use std::borrow::Cow;

use tokio::time::Instant;

use crate::admission::calls::LaneKind;
use crate::admission::interceptor::{CallDecision, CallInfo, Interceptor};
use crate::config::RateLimitConfig;
use crate::sync::rate_limiter::RateLimiter;

/// Lets calls go at the pace that is configured.
pub(crate) struct RateLimit {
    pace: RateLimiter,
}

impl RateLimit {
    pub(crate) fn new(config: &RateLimitConfig) -> Self {
        RateLimit { pace: RateLimiter::new(config.calls_per_second, config.burst) }
    }

    /// Has calls go at another pace from now on.
    pub(crate) fn reconfigure(&self, config: &RateLimitConfig) {
        self.pace.set(config.calls_per_second, config.burst);
    }
}

impl Interceptor for RateLimit {
    fn name(&self) -> Cow<'_, str> {
        "the host's rate limit (`rate_limit.calls_per_second`)".into()
    }

    fn before(&self, call: &CallInfo<'_>) -> CallDecision {
        // It is of use only now: it neither stands in line before work nor has work wait for it.
        if call.lane.is_some_and(|lane| lane.kind == LaneKind::Job) {
            return if self.pace.spare_turn() {
                CallDecision::Proceed
            } else {
                CallDecision::Refuse("work has the turns".to_owned())
            };
        }
        match self.pace.next_turn(Some(call.deadline)) {
            Ok(at) if at <= Instant::now() => CallDecision::Proceed,
            // A turn past the deadline was not taken; the call is not let go for it.
            Ok(at) | Err(at) => CallDecision::DelayUntil(at),
        }
    }
}
