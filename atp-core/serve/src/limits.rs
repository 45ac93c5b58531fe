//! Limits: requests and starts a second, failed logins, streams of events.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::auth::Token;
use crate::problem::Refusal;
use crate::settings::ServeConfig;

/// Failed logins from one address: this many at once, and one more each [`FAILURE_PAUSE`].
const FAILURES: u32 = 20;
const FAILURE_PAUSE: Duration = Duration::from_secs(3);

/// The most buckets of a kind. Full ones are forgotten beyond that; if none is full, the request is refused.
const MAX_BUCKETS: usize = 10_000;

/// How long a client waits that has too many streams.
const STREAM_PAUSE: Duration = Duration::from_secs(5);

/// What is counted against the limits. The limits themselves are in the settings, which may change.
#[derive(Debug)]
pub(crate) struct Limits {
    rates: Mutex<Rates>,
    requests: Buckets<String>,
    starts: Buckets<String>,
    failures: Buckets<IpAddr>,
    streams: Arc<Semaphore>,
    max_streams: usize,
    streams_by_token: Arc<Mutex<HashMap<String, usize>>>,
}

#[derive(Debug, Clone, Copy)]
struct Rates {
    requests: u32,
    starts: u32,
    streams_per_token: usize,
}

/// A stream counts for as long as this is held.
#[derive(Debug)]
pub(crate) struct StreamSlot {
    _permit: OwnedSemaphorePermit,
    token: String,
    by_token: Arc<Mutex<HashMap<String, usize>>>,
}

impl Limits {
    pub(crate) fn new(config: &ServeConfig) -> Self {
        let max_streams = config.max_streams.min(Semaphore::MAX_PERMITS);
        Limits {
            rates: Mutex::new(Rates::of(config)),
            requests: Buckets::default(),
            starts: Buckets::default(),
            failures: Buckets::default(),
            streams: Arc::new(Semaphore::new(max_streams)),
            max_streams,
            streams_by_token: Arc::default(),
        }
    }

    /// Takes over limits that were changed. The number of all streams is settled at the start.
    pub(crate) fn configure(&self, config: &ServeConfig) {
        *self.rates.lock() = Rates::of(config);
    }

    /// Counts a request of a token.
    pub(crate) fn request(&self, token: &Token) -> Result<(), Refusal> {
        let rate = self.rates.lock().requests;
        let taken = self.requests.take(&token.hash().to_owned(), rate, rate.saturating_mul(2));
        taken.map_err(|after| Refusal::too_many(format!("more than {rate} requests a second"), after))
    }

    /// Counts a plan or the start of a run: both ask hosts.
    pub(crate) fn start(&self, token: &Token) -> Result<(), Refusal> {
        let rate = self.rates.lock().starts;
        let taken = self.starts.take(&token.hash().to_owned(), rate, rate.saturating_mul(2));
        taken.map_err(|after| Refusal::too_many(format!("more than {rate} plans and runs a second"), after))
    }

    /// Whether an address has not failed too often.
    pub(crate) fn may_authenticate(&self, from: IpAddr) -> Result<(), Refusal> {
        match self.failures.wait_for(&from, 1.0 / FAILURE_PAUSE.as_secs_f64(), FAILURES) {
            None => Ok(()),
            Some(after) => Err(Refusal::too_many("too many requests with tokens that are not known", after)),
        }
    }

    /// Counts a token that is not known.
    pub(crate) fn failed_authentication(&self, from: IpAddr) {
        // It is refused in any case.
        let _ = self.failures.take_at(&from, 1.0 / FAILURE_PAUSE.as_secs_f64(), FAILURES);
    }

    /// Begins a stream of a token.
    pub(crate) fn stream(&self, token: &Token) -> Result<StreamSlot, Refusal> {
        let most = self.rates.lock().streams_per_token;
        let full = || {
            Refusal::too_many(
                format!("{} streams are open, as many as may be", self.max_streams),
                STREAM_PAUSE,
            )
        };
        let permit = self.streams.clone().try_acquire_owned().map_err(|_| full())?;
        let mut by_token = self.streams_by_token.lock();
        let count = by_token.entry(token.name.clone()).or_default();
        if *count >= most {
            let problem =
                format!("the token {:?} has {most} streams open, as many as it may have", token.name);
            return Err(Refusal::too_many(problem, STREAM_PAUSE));
        }
        *count += 1;
        drop(by_token);
        let by_token = self.streams_by_token.clone();
        Ok(StreamSlot { _permit: permit, token: token.name.clone(), by_token })
    }

    /// Streams that are open.
    pub(crate) fn streams(&self) -> usize {
        self.max_streams - self.streams.available_permits()
    }
}

impl Rates {
    fn of(config: &ServeConfig) -> Self {
        let rate = |limit| u32::try_from(limit).unwrap_or(u32::MAX).max(1);
        Rates {
            requests: rate(config.requests_per_second),
            starts: rate(config.starts_per_second),
            streams_per_token: config.max_streams_per_token,
        }
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let mut by_token = self.by_token.lock();
        if let Some(count) = by_token.get_mut(&self.token) {
            *count -= 1;
            if *count == 0 {
                by_token.remove(&self.token);
            }
        }
    }
}

/// A rate for each key: a bucket holds what may be done at once, and fills at the rate.
#[derive(Debug)]
struct Buckets<K>(Mutex<HashMap<K, Bucket>>);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Buckets(Mutex::default())
    }
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    fn take(&self, key: &K, rate: u32, burst: u32) -> Result<(), Duration> {
        self.take_at(key, rate.into(), burst)
    }

    /// Takes one, or says how long until there is one.
    fn take_at(&self, key: &K, rate: f64, burst: u32) -> Result<(), Duration> {
        let now = Instant::now();
        let burst = f64::from(burst);
        let mut buckets = self.0.lock();
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(key) {
            buckets.retain(|_, bucket| bucket.filled(now, rate, burst) < burst);
            if buckets.len() >= MAX_BUCKETS {
                return Err(Duration::from_secs(1));
            }
        }
        let bucket = buckets.entry(key.clone()).or_insert(Bucket { left: burst, at: now });
        *bucket = Bucket { left: bucket.filled(now, rate, burst), at: now };
        if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64((1.0 - bucket.left) / rate))
        }
    }

    /// How long until there is one; none if there is.
    fn wait_for(&self, key: &K, rate: f64, burst: u32) -> Option<Duration> {
        let bucket = *self.0.lock().get(key)?;
        let left = bucket.filled(Instant::now(), rate, f64::from(burst));
        (left < 1.0).then(|| Duration::from_secs_f64((1.0 - left) / rate))
    }
}

impl Bucket {
    fn filled(&self, now: Instant, rate: f64, burst: f64) -> f64 {
        (self.left + now.duration_since(self.at).as_secs_f64() * rate).min(burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_holds_a_burst_and_fills_at_its_rate() {
        let buckets = Buckets::default();
        for _ in 0..4 {
            buckets.take(&1, 2, 4).unwrap();
        }
        assert_eq!(buckets.take(&1, 2, 4), Err(Duration::from_millis(500)));
        buckets.take(&2, 2, 4).unwrap();
        tokio::time::advance(Duration::from_millis(500)).await;
        buckets.take(&1, 2, 4).unwrap();
        assert!(buckets.take(&1, 2, 4).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn keys_without_number_do_not_fill_the_memory() {
        let buckets = Buckets::default();
        for key in 0..MAX_BUCKETS {
            buckets.take(&key, 1, 2).unwrap();
        }
        assert!(buckets.take(&MAX_BUCKETS, 1, 2).is_err());
        tokio::time::advance(Duration::from_secs(1)).await;
        buckets.take(&MAX_BUCKETS, 1, 2).unwrap();
        assert!(buckets.0.lock().len() <= MAX_BUCKETS);
    }
}
