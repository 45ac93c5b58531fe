//! A connector whose hosts do what the test says, for tests in virtual time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atp_transport::{Attempt, ConnectError, Connector, ErrorKind, HostInfo, TransportConfig};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// The defaults, for links that carry several calls at once.
pub(crate) fn multiplexed() -> TransportConfig {
    let mut config = TransportConfig::default();
    config.calls.max_per_connection = 4;
    config
}

/// What one attempt to connect does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// Succeeds after a while.
    Opens(Duration),
    /// Fails after a while.
    Fails(Duration),
    /// Never ends.
    Hangs,
}

/// A host under the test's control. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Script {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    attempts: Mutex<VecDeque<Step>>,
    /// When each attempt was made.
    log: Mutex<Vec<Instant>>,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    open_links: AtomicUsize,
    probes: AtomicUsize,
    silent: AtomicBool,
    cut: Notify,
}

/// A link of a scripted host.
pub(crate) struct Link {
    shared: Arc<Shared>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.open_links.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Script {
    /// The coming attempts, in order. When none are left, attempts open at once.
    pub(crate) fn attempts(attempts: impl IntoIterator<Item = Step>) -> Self {
        let script = Script::default();
        script.then(attempts);
        script
    }

    pub(crate) fn then(&self, attempts: impl IntoIterator<Item = Step>) {
        self.shared.attempts.lock().unwrap().extend(attempts);
    }

    /// Probes of this host's links get no answer from now on, or get one again.
    pub(crate) fn set_silent(&self, silent: bool) {
        self.shared.silent.store(silent, Ordering::SeqCst);
    }

    /// Every link notices that it is lost.
    pub(crate) fn cut(&self) {
        self.shared.cut.notify_waiters();
    }

    pub(crate) fn attempts_made(&self) -> Vec<Instant> {
        self.shared.log.lock().unwrap().clone()
    }

    pub(crate) fn most_attempts_at_once(&self) -> usize {
        self.shared.most_under_way.load(Ordering::SeqCst)
    }

    pub(crate) fn open_links(&self) -> usize {
        self.shared.open_links.load(Ordering::SeqCst)
    }

    pub(crate) fn probes(&self) -> usize {
        self.shared.probes.load(Ordering::SeqCst)
    }
}

/// Counts an attempt for as long as it is under way.
struct UnderWay<'a>(&'a Shared);

impl<'a> UnderWay<'a> {
    fn new(shared: &'a Shared) -> Self {
        let now = shared.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_under_way.fetch_max(now, Ordering::SeqCst);
        UnderWay(shared)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Connector for Script {
    type Link = Link;

    fn validate(&self, _host: &HostInfo) -> Result<(), String> {
        Ok(())
    }

    async fn connect(&self, _: &HostInfo, attempt: Attempt) -> Result<Link, ConnectError> {
        let in_flight = attempt.into_in_flight();
        let _under_way = UnderWay::new(&self.shared);
        self.shared.log.lock().unwrap().push(Instant::now());
        let step = self.shared.attempts.lock().unwrap().pop_front().unwrap_or(Step::Opens(Duration::ZERO));
        match step {
            Step::Opens(after) => {
                sleep(after).await;
                drop(in_flight);
                self.shared.open_links.fetch_add(1, Ordering::SeqCst);
                Ok(Link { shared: self.shared.clone() })
            }
            Step::Fails(after) => {
                sleep(after).await;
                Err(ConnectError::new(ErrorKind::ConnectionRefused, "scripted"))
            }
            Step::Hangs => {
                // The attempt stays in flight when the caller gives up, as a stuck C call does.
                std::mem::forget(in_flight);
                std::future::pending().await
            }
        }
    }

    async fn probe(&self, _: &Arc<Link>, _: Instant) -> Result<(), ConnectError> {
        self.shared.probes.fetch_add(1, Ordering::SeqCst);
        if self.shared.silent.load(Ordering::SeqCst) { std::future::pending().await } else { Ok(()) }
    }

    async fn lost(&self, _: &Link) {
        self.shared.cut.notified().await;
    }

    fn is_open(&self, _: &Link) -> bool {
        true
    }
}
