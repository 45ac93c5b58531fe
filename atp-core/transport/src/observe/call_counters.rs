//! The calls to one host since it was added, and the difference of two such counts.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::TransportError;

/// Durations below this, in microseconds, are not distinguished.
const SHORTEST_US: u64 = 128;
/// Buckets for each doubling of the duration: the next is about a fifth longer.
const PER_OCTAVE: usize = 4;
/// Up to two minutes and a quarter; longer ones count as this.
const OCTAVES: usize = 20;
const BUCKETS: usize = OCTAVES * PER_OCTAVE + 1;

/// A window of time moves on by this part of itself at a time.
const SLICES: u32 = 12;

/// Counts that only grow, behind a lock that is held for a few additions.
#[derive(Default)]
pub(crate) struct CallCounters(Mutex<CallCounts>);

/// The counts at one moment, or in the time between two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CallCounts {
    /// Calls that ended.
    pub(crate) requests: u64,
    /// Those that failed.
    pub(crate) errors: u64,
    /// Those of them that failed otherwise than by an answer.
    pub(crate) unanswered: u64,
    /// Time they took together, microseconds.
    micros: u64,
    durations: Durations,
    /// Callers that got no connection by their deadline.
    pub(crate) acquire_timeouts: u64,
    /// Callers for which all were in use until their deadline, and calls over the rate limit, but for those in a hurry.
    pub(crate) refusals: u64,
    /// Lost connections that were opened again.
    pub(crate) reconnects: u64,
}

/// How many calls took how long.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Durations([u64; BUCKETS]);

impl Default for Durations {
    fn default() -> Self {
        Durations([0; BUCKETS])
    }
}

impl CallCounters {
    /// A call ended.
    ///
    /// What had no time to wait for says little of a host: only calls that were to wait for as long as `min_wait` count
    /// as refused.
    pub(crate) fn call<T>(
        &self,
        result: &Result<T, TransportError>,
        took: Duration,
        min_wait: impl FnOnce() -> Duration,
    ) {
        // An answer with an error is an answer; a bug in the work, or a refusal of ours, says nothing of the host.
        let is_unanswered = |error: &TransportError| {
            !matches!(
                error,
                TransportError::Libvirt { .. }
                    | TransportError::MonitorBusy { .. }
                    | TransportError::Panicked { .. }
                    | TransportError::Closed { .. }
                    | TransportError::RateLimited { .. }
                    | TransportError::Refused { .. }
            )
        };
        let is_refused = match result {
            Err(TransportError::RateLimited { wait, .. }) => *wait >= min_wait(),
            _ => false,
        };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut counts = self.0.lock();
        counts.requests += 1;
        counts.micros = counts.micros.saturating_add(micros);
        counts.durations.0[bucket(micros)] += 1;
        counts.errors += u64::from(result.is_err());
        counts.unanswered += u64::from(result.as_ref().err().is_some_and(is_unanswered));
        counts.refusals += u64::from(is_refused);
    }

    /// A caller got no connection by its deadline; there was no room, and that counts against the host.
    pub(crate) fn acquire_timed_out(&self, no_room: bool) {
        let mut counts = self.0.lock();
        counts.acquire_timeouts += 1;
        counts.refusals += u64::from(no_room);
    }

    /// A lost connection is up again.
    pub(crate) fn reconnected(&self) {
        self.0.lock().reconnects += 1;
    }

    pub(crate) fn now(&self) -> CallCounts {
        self.0.lock().clone()
    }
}

impl CallCounts {
    /// What was counted since `earlier`.
    fn since(&self, earlier: &CallCounts) -> CallCounts {
        let (ours, theirs) = (&self.durations.0, &earlier.durations.0);
        CallCounts {
            requests: self.requests.saturating_sub(earlier.requests),
            errors: self.errors.saturating_sub(earlier.errors),
            unanswered: self.unanswered.saturating_sub(earlier.unanswered),
            micros: self.micros.saturating_sub(earlier.micros),
            durations: Durations(std::array::from_fn(|n| ours[n].saturating_sub(theirs[n]))),
            acquire_timeouts: self.acquire_timeouts.saturating_sub(earlier.acquire_timeouts),
            refusals: self.refusals.saturating_sub(earlier.refusals),
            reconnects: self.reconnects.saturating_sub(earlier.reconnects),
        }
    }

    /// How long the calls took on average.
    pub(crate) fn mean(&self) -> Duration {
        Duration::from_micros(self.micros.checked_div(self.requests).unwrap_or(0))
    }

    /// How long all but one in a hundred took at most, rounded up by up to a quarter.
    pub(crate) fn p99(&self) -> Duration {
        let all: u64 = self.durations.0.iter().sum();
        let slowest = all.div_ceil(100);
        let mut seen = 0;
        for (n, count) in self.durations.0.iter().enumerate().rev() {
            seen += count;
            if *count > 0 && seen >= slowest {
                return Duration::from_micros(upper_bound(n));
            }
        }
        Duration::ZERO
    }
}

/// What was counted within the last while, from looks now and then.
#[derive(Default)]
pub(crate) struct RecentCalls {
    looks: VecDeque<(Instant, CallCounts)>,
}

impl RecentCalls {
    /// What was counted within the `span` that ends now; or since the first look, if that was later.
    pub(crate) fn look(&mut self, now: Instant, counted: &CallCounts, span: Duration) -> CallCounts {
        // The newest of the looks that are old enough is where the window begins.
        while self.looks.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= span) {
            self.looks.pop_front();
        }
        let recent = match self.looks.front() {
            Some((_, first)) => counted.since(first),
            None => counted.clone(),
        };
        let due = |(last, _): &(Instant, CallCounts)| now.saturating_duration_since(*last) >= span / SLICES;
        if self.looks.back().is_none_or(due) {
            let first = self.looks.is_empty();
            // What was counted before the first look is recent as well.
            self.looks.push_back((now, if first { CallCounts::default() } else { counted.clone() }));
        }
        recent
    }
}

fn bucket(micros: u64) -> usize {
    if micros < SHORTEST_US {
        return 0;
    }
    let octave = micros.ilog2();
    // The two bits below the highest.
    let quarter = (micros >> (octave - 2)) as usize & (PER_OCTAVE - 1);
    let n = (octave - SHORTEST_US.ilog2()) as usize * PER_OCTAVE + quarter + 1;
    n.min(BUCKETS - 1)
}

/// The longest duration in a bucket, microseconds.
fn upper_bound(bucket: usize) -> u64 {
    let (octave, quarter) = (bucket / PER_OCTAVE, bucket % PER_OCTAVE);
    let base = SHORTEST_US << octave;
    base + base / PER_OCTAVE as u64 * quarter as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn calls(counters: &CallCounters, count: usize, took: Duration) {
        (0..count).for_each(|_| counters.call(&Ok(()), took, Duration::default));
    }

    proptest! {
        #[test]
        fn a_duration_is_in_the_bucket_that_ends_above_it(micros in 0u64..(SHORTEST_US << OCTAVES)) {
            let n = bucket(micros);
            prop_assert!(micros < upper_bound(n) , "{micros} in {n}, which ends at {}", upper_bound(n));
            prop_assert!(n == 0 || micros >= upper_bound(n - 1));
        }
    }

    #[test]
    fn the_slowest_hundredth_is_told_from_the_rest() {
        let counters = CallCounters::default();
        assert_eq!((counters.now().mean(), counters.now().p99()), (Duration::ZERO, Duration::ZERO));
        calls(&counters, 99, Duration::from_millis(10));
        let within_a_quarter = |p99: Duration, millis: u64| {
            let exact = Duration::from_millis(millis);
            assert!(p99 >= exact && p99 <= exact.mul_f64(1.25), "{p99:?} for {exact:?}");
        };
        within_a_quarter(counters.now().p99(), 10);
        calls(&counters, 1, Duration::from_secs(3));
        within_a_quarter(counters.now().p99(), 3000);
        calls(&counters, 1000, Duration::from_millis(10));
        within_a_quarter(counters.now().p99(), 10);
        calls(&counters, 100, Duration::MAX);
        assert!(counters.now().p99() > Duration::from_secs(120));
    }

    #[test]
    fn a_window_forgets_what_is_older_than_itself() {
        let (counters, mut window, start) = (CallCounters::default(), RecentCalls::default(), Instant::now());
        let span = Duration::from_secs(60);
        let mut look = |seconds, counters: &CallCounters| {
            window.look(start + Duration::from_secs(seconds), &counters.now(), span).requests
        };
        calls(&counters, 3, Duration::ZERO);
        assert_eq!(look(0, &counters), 3, "what was counted before the first look");
        calls(&counters, 4, Duration::ZERO);
        let seen: Vec<_> = (1..=20).map(|n| look(n * 5, &counters)).collect();
        assert_eq!(seen[..11], [7; 11]);
        assert_eq!(seen[14..], [0; 6]);
        assert_eq!(look(10_000, &counters), 0);
    }

    #[test]
    fn a_window_keeps_few_looks_however_often_it_is_looked_at() {
        let (counters, mut window, start) = (CallCounters::default(), RecentCalls::default(), Instant::now());
        for n in 0..10_000 {
            let now = start + Duration::from_millis(n * 10);
            window.look(now, &counters.now(), Duration::from_secs(60));
        }
        assert!(window.looks.len() <= SLICES as usize + 2, "{}", window.looks.len());
    }
}
