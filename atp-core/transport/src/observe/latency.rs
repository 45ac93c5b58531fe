//! How long things take: a histogram of durations, and its percentiles.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest duration that is distinguished, microseconds: an hour. Longer ones count as this.
const LONGEST_US: u64 = 3_600_000_000;
/// Percentiles are off by up to 3 %, as each power of two has 16 buckets, of which the middle is shown. A histogram grows with what is
/// recorded, to about 2 KiB. One digit more would take 20 KiB, and a program with 10,000 hosts has three histograms for each.
const DIGITS: u8 = 1;

/// Durations, in microseconds. Takes no room before the first is recorded.
#[derive(Clone, Default)]
pub(crate) struct Latencies {
    histogram: Option<Histogram<u32>>,
}

/// What share of durations were no longer than so much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// How many were recorded.
    pub count: u64,
    /// Half of them.
    pub p50: Duration,
    /// 90 % of them.
    pub p90: Duration,
    /// 99 % of them.
    pub p99: Duration,
    /// All of them.
    pub max: Duration,
}

impl Latencies {
    pub(crate) fn record(&mut self, duration: Duration) {
        if self.histogram.is_none() {
            // Fails for a number of digits that makes no sense only.
            self.histogram = Histogram::new(DIGITS).ok();
        }
        if let Some(histogram) = &mut self.histogram {
            let micros = u64::try_from(duration.as_micros()).unwrap_or(LONGEST_US).min(LONGEST_US);
            // Fails for values a histogram that grows cannot have only.
            let _recorded = histogram.record(micros);
        }
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        let Some(histogram) = &self.histogram else { return Percentiles::default() };
        let middle = |micros| Duration::from_micros(histogram.median_equivalent(micros));
        let at = |quantile| middle(histogram.value_at_quantile(quantile));
        Percentiles {
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: middle(histogram.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_three_percent() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentiles(), Percentiles::default());
        for millis in 1..=1000 {
            latencies.record(Duration::from_millis(millis));
        }
        let Percentiles { count, p50, p99, max, .. } = latencies.percentiles();
        assert_eq!(count, 1000);
        for (measured, exact) in [(p50, 500.0), (p99, 990.0), (max, 1000.0)] {
            let ratio = measured.as_secs_f64() * 1000.0 / exact;
            assert!((0.965..=1.035).contains(&ratio), "{measured:?} for {exact} ms");
        }
    }

    #[test]
    fn what_is_too_long_counts_as_the_longest() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::MAX);
        assert!(latencies.percentiles().max >= Duration::from_secs(3480));
    }
}
