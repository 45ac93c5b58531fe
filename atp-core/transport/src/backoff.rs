//! How long to wait before trying again: exponential backoff with full jitter.

use std::time::Duration;

use crate::config::ReconnectConfig;

/// The longest wait before attempt `attempt` (counted from 1): `initial × multiplierⁿ⁻¹`, capped.
pub(crate) fn ceiling(config: &ReconnectConfig, attempt: u32) -> Duration {
    let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
    let seconds = config.initial_delay.as_secs_f64() * config.multiplier.powi(exponent);
    // The comparison comes first: the product may be infinite, which no Duration can hold.
    if seconds < config.max_delay.as_secs_f64() { Duration::from_secs_f64(seconds) } else { config.max_delay }
}

/// The wait before attempt `attempt`: anywhere from nothing to the [`ceiling`], so that many clients that
/// lost the same daemon do not come back in step.
pub(crate) fn delay(config: &ReconnectConfig, attempt: u32) -> Duration {
    ceiling(config, attempt).mul_f64(fastrand::f64())
}

/// `period`, give or take a tenth, for work that is repeated by many at the same pace.
pub(crate) fn spread(period: Duration) -> Duration {
    period.mul_f64(0.9 + 0.2 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let config = ReconnectConfig::default();
        let seconds: Vec<_> = (1..=8).map(|n| ceiling(&config, n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    proptest! {
        #[test]
        fn a_delay_never_exceeds_its_ceiling_nor_the_cap(attempt: u32, multiplier in 1.0f64..1e6) {
            let config = ReconnectConfig { multiplier, ..ReconnectConfig::default() };
            prop_assert!(delay(&config, attempt) <= ceiling(&config, attempt));
            prop_assert!(ceiling(&config, attempt) <= config.max_delay);
        }
    }
}
