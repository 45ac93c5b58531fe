//! Answers of hosts that are used again for a while: with a time to live, a bound, and one question at a time for each.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use atp_api::{ErrorKind, OutcomeError};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Values by key. Cheap to clone; clones are the same cache.
#[derive(Debug)]
pub(crate) struct Cache<V> {
    shared: Arc<Shared<V>>,
}

#[derive(Debug)]
struct Shared<V> {
    entries: Mutex<HashMap<String, Entry<V>>>,
    max_entries: usize,
    counts: Counts,
}

/// How requests were answered.
#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    shared: AtomicU64,
    stale: AtomicU64,
}

/// How many requests were answered in each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheCounts {
    /// From the cache.
    pub(crate) hits: u64,
    /// By asking the host.
    pub(crate) misses: u64,
    /// By waiting for the question of another request.
    pub(crate) shared: u64,
    /// With a value whose time had passed, as the host did not answer.
    pub(crate) stale: u64,
    /// The values that are kept.
    pub(crate) entries: usize,
}

impl CacheCounts {
    /// Those of two caches.
    pub(crate) fn and(self, other: Self) -> Self {
        CacheCounts {
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            shared: self.shared + other.shared,
            stale: self.stale + other.stale,
            entries: self.entries + other.entries,
        }
    }
}

#[derive(Debug)]
struct Entry<V> {
    kept: Option<Kept<V>>,
    /// The question under way.
    flight: Option<Flight<V>>,
    used: Instant,
}

/// A question under way: none until it is answered.
type Flight<V> = watch::Receiver<Option<Result<Kept<V>, OutcomeError>>>;

/// A value, and when it was asked for.
#[derive(Debug)]
pub(crate) struct Kept<V> {
    pub(crate) value: Arc<V>,
    /// When it was asked for, by the clock on the wall; to show only.
    pub(crate) when: SystemTime,
    at: Instant,
}

impl<V> Clone for Kept<V> {
    fn clone(&self) -> Self {
        Kept { value: self.value.clone(), when: self.when, at: self.at }
    }
}

/// Why there is no value of the age asked for, and the last value there was.
#[derive(Debug)]
pub(crate) struct Lacking<V> {
    pub(crate) error: OutcomeError,
    pub(crate) last: Option<Kept<V>>,
}

impl<V> Clone for Cache<V> {
    fn clone(&self) -> Self {
        Cache { shared: self.shared.clone() }
    }
}

impl<V: Send + Sync + 'static> Cache<V> {
    pub(crate) fn new(max_entries: usize) -> Self {
        let shared =
            Shared { entries: Mutex::default(), max_entries: max_entries.max(1), counts: Counts::default() };
        Cache { shared: Arc::new(shared) }
    }

    /// The value of `key`, at most `max_age` old, asked for by `fetch` if there is none. Where another request asks already,
    /// its answer is waited for. With `patience`, a request that could have an older value does not wait longer.
    ///
    /// Cancel safe: the question goes on for the others, and for the cache.
    pub(crate) async fn get<F>(
        &self,
        key: &str,
        max_age: Duration,
        patience: Option<Duration>,
        fetch: impl FnOnce() -> F,
    ) -> Result<Kept<V>, Lacking<V>>
    where
        F: Future<Output = Result<V, OutcomeError>> + Send + 'static,
    {
        let counts = &self.shared.counts;
        let (mut flight, last) = {
            let mut entries = self.shared.entries.lock();
            make_room(&mut entries, self.shared.max_entries, key);
            let new = || Entry { kept: None, flight: None, used: Instant::now() };
            let entry = entries.entry(key.to_owned()).or_insert_with(new);
            entry.used = Instant::now();
            if let Some(kept) = entry.kept.as_ref().filter(|kept| kept.at.elapsed() <= max_age) {
                counts.hits.fetch_add(1, Ordering::Relaxed);
                return Ok(kept.clone());
            }
            let under_way = entry.flight.clone().filter(|flight| flight.has_changed().is_ok());
            let flight = match under_way {
                Some(flight) => {
                    counts.shared.fetch_add(1, Ordering::Relaxed);
                    flight
                }
                None => {
                    counts.misses.fetch_add(1, Ordering::Relaxed);
                    let flight = self.ask(key, fetch());
                    entry.flight = Some(flight.clone());
                    flight
                }
            };
            (flight, entry.kept.clone())
        };
        let answered = async {
            // The sender goes without an answer only if its task panicked.
            let answered = flight.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
            answered
                .unwrap_or_else(|| Err(OutcomeError::new(ErrorKind::Panicked, "the question was given up")))
        };
        let answered = match patience.filter(|_| last.is_some()) {
            Some(patience) => match timeout(patience, answered).await {
                Ok(answered) => answered,
                Err(_) => {
                    let message = format!("no answer yet after {patience:?}; it is still asked");
                    Err(OutcomeError::new(ErrorKind::CallTimeout, message).retryable())
                }
            },
            None => answered.await,
        };
        answered.map_err(|error| Lacking { error, last })
    }

    /// Asks in a task of its own.
    fn ask<F>(&self, key: &str, fetch: F) -> Flight<V>
    where
        F: Future<Output = Result<V, OutcomeError>> + Send + 'static,
    {
        let (sender, receiver) = watch::channel(None);
        let (shared, key) = (self.shared.clone(), key.to_owned());
        let (at, when) = (Instant::now(), SystemTime::now());
        tokio::spawn(async move {
            let answer = fetch.await.map(|value| Kept { value: Arc::new(value), when, at });
            {
                let mut entries = shared.entries.lock();
                if let Some(entry) = entries.get_mut(&key) {
                    entry.flight = None;
                    if let Ok(kept) = &answer {
                        entry.kept = Some(kept.clone());
                    }
                }
            }
            sender.send_replace(Some(answer));
        });
        receiver
    }

    /// Counts an answer that was older than was asked for.
    pub(crate) fn note_stale(&self) {
        self.shared.counts.stale.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> CacheCounts {
        let counts = &self.shared.counts;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CacheCounts {
            hits: of(&counts.hits),
            misses: of(&counts.misses),
            shared: of(&counts.shared),
            stale: of(&counts.stale),
            entries: self.shared.entries.lock().len(),
        }
    }
}

/// Makes room for a key: what was not used for the longest time goes, an eighth at once so that it is rarely looked for.
fn make_room<V>(entries: &mut HashMap<String, Entry<V>>, most: usize, key: &str) {
    if entries.len() < most || entries.contains_key(key) {
        return;
    }
    let mut used: Vec<Instant> = entries.values().map(|entry| entry.used).collect();
    used.sort_unstable();
    let last = used[(most / 8).min(used.len() - 1)];
    entries.retain(|_, entry| entry.used > last);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    fn failed() -> OutcomeError {
        OutcomeError::new(ErrorKind::HostUnreachable, "away")
    }

    #[tokio::test(start_paused = true)]
    async fn requests_at_the_same_time_ask_once() {
        let cache = Cache::new(10);
        let asked = Arc::new(AtomicU64::new(0));
        let fetch = || {
            let asked = asked.clone();
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(asked.fetch_add(1, Ordering::Relaxed))
            }
        };
        let all = futures_util::future::join_all((0..50).map(|_| cache.get("a", TTL, None, fetch))).await;
        assert!(all.iter().all(|kept| *kept.as_ref().unwrap().value == 0));
        assert_eq!(*cache.get("a", TTL, None, fetch).await.unwrap().value, 0);
        tokio::time::advance(TTL).await;
        assert_eq!(*cache.get("a", TTL, None, fetch).await.unwrap().value, 1);
        let counts = cache.counts();
        assert_eq!((counts.misses, counts.shared, counts.hits, counts.entries), (2, 49, 1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_takes_the_answer_from_nobody() {
        let cache = Cache::new(10);
        let fetch = || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(7)
        };
        let left = timeout(Duration::from_millis(100), cache.get("a", TTL, None, fetch)).await;
        assert!(left.is_err());
        let never = || async { Err(failed()) };
        assert_eq!(*cache.get("a", TTL, None, never).await.unwrap().value, 7);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_value_stays_when_the_host_is_away() {
        let cache = Cache::new(10);
        cache.get("a", TTL, None, || async { Ok(7) }).await.unwrap();
        tokio::time::advance(2 * TTL).await;
        let lacking = cache.get("a", TTL, None, || async { Err(failed()) }).await.unwrap_err();
        assert_eq!((lacking.error.kind, *lacking.last.unwrap().value), (ErrorKind::HostUnreachable, 7));
        let hung = || std::future::pending();
        let lacking = cache.get("a", TTL, Some(Duration::from_secs(1)), hung).await.unwrap_err();
        assert_eq!((lacking.error.kind, *lacking.last.unwrap().value), (ErrorKind::CallTimeout, 7));
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_a_bound() {
        let cache = Cache::new(16);
        for key in 0..100 {
            tokio::time::advance(Duration::from_millis(1)).await;
            cache.get(&key.to_string(), TTL, None, || async move { Ok(key) }).await.unwrap();
        }
        assert!(cache.counts().entries <= 16);
        cache.get("99", TTL, None, || async { Err(failed()) }).await.unwrap();
    }
}
