//! How long to wait before trying again: exponential backoff with jitter.

use std::time::Duration;

/// How waits grow from one attempt to the next: before attempt n at most `initial × multiplierⁿ⁻¹`, and never
/// more than `longest`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    pub(crate) initial: Duration,
    pub(crate) multiplier: f64,
    pub(crate) longest: Duration,
}

impl Backoff {
    /// The longest wait before attempt `attempt`, counted from 1.
    pub(crate) fn ceiling(&self, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.initial.as_secs_f64() * self.multiplier.powi(exponent);
        // The comparison comes first: the product may be infinite, which no Duration can hold.
        if seconds < self.longest.as_secs_f64() { Duration::from_secs_f64(seconds) } else { self.longest }
    }

    /// The wait before attempt `attempt`, with full jitter: anywhere from nothing to the
    /// [`ceiling`](Self::ceiling), so that many clients that lost the same daemon do not come back in step.
    pub(crate) fn delay(&self, attempt: u32) -> Duration {
        self.ceiling(attempt).mul_f64(fastrand::f64())
    }
}

/// `period`, give or take a tenth, for work that is repeated by many at the same pace.
pub(crate) fn spread(period: Duration) -> Duration {
    period.mul_f64(0.9 + 0.2 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::config::ReconnectConfig;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let backoff = ReconnectConfig::default().backoff();
        let seconds: Vec<_> = (1..=8).map(|n| backoff.ceiling(n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    proptest! {
        #[test]
        fn a_delay_never_exceeds_its_ceiling_nor_the_cap(attempt: u32, multiplier in 1.0f64..1e6) {
            let backoff = ReconnectConfig { multiplier, ..ReconnectConfig::default() }.backoff();
            prop_assert!(backoff.delay(attempt) <= backoff.ceiling(attempt));
            prop_assert!(backoff.ceiling(attempt) <= backoff.longest);
        }
    }
}
