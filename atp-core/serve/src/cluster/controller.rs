//! A controller's state: its leases, what it has under way, and what it could not tell yet.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atp_cluster::{Claim, Leases};
use atp_executor::RunControl;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::clock;
use super::journal::Journal;
use crate::store::{Finished, Shared};

/// The least time after which work that does not go on counts as stuck.
const STUCK: Duration = Duration::from_secs(12);

/// A controller of a cluster. Cheap to clone; clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    /// Another one at each start: what an earlier process of this machine had is another controller's.
    pub(super) id: String,
    pub(super) store: Shared,
    pub(super) length: Duration,
    pub(super) slack: Duration,
    pub(super) journal: Journal,
    pub(super) leases: Mutex<Leases>,
    pub(super) under_way: Mutex<HashMap<(i64, String), UnderWay>>,
    /// Outcomes that the database does not have yet.
    pub(super) finished: Mutex<Vec<Finished>>,
    /// When the work did its last step, by the clock of leases.
    pub(super) progress: Mutex<Duration>,
    /// When the last renewal of leases was asked for that was granted, by the same clock.
    pub(super) renewed: Mutex<Duration>,
    /// Controllers that live, this one too.
    pub(super) controllers: AtomicUsize,
    pub(super) wake: Notify,
    pub(super) news: watch::Sender<u64>,
    /// Is cancelled when all work of this controller has ended, and its leases are given back.
    pub(super) ended: CancellationToken,
}

/// A target of this controller.
#[derive(Debug, Clone)]
pub(super) struct UnderWay {
    pub(super) host: String,
    pub(super) claim: Claim,
    pub(super) control: RunControl,
    /// The lease was given back, and this goes on to its own end.
    pub(super) is_handed_over: bool,
}

impl Cluster {
    /// A controller that does nothing yet. Blocks while it reads outcomes that an earlier process could not tell.
    ///
    /// # Errors
    /// Its journal cannot be read.
    pub(crate) fn new(
        store: Shared,
        folder: &Path,
        length: Duration,
        slack: Duration,
    ) -> std::io::Result<Self> {
        let (journal, finished) = Journal::open(&folder.join("outcomes.jsonl"))?;
        let inner = Inner {
            id: uuid::Uuid::from_u128(random()?).to_string(),
            store,
            length,
            slack,
            journal,
            leases: Mutex::new(Leases::new(length)),
            under_way: Mutex::default(),
            finished: Mutex::new(finished),
            progress: Mutex::new(clock::now()),
            renewed: Mutex::new(clock::now()),
            controllers: AtomicUsize::new(0),
            wake: Notify::new(),
            news: watch::Sender::new(0),
            ended: CancellationToken::new(),
        };
        Ok(Cluster { inner: Arc::new(inner) })
    }

    /// Its name in the database.
    pub(crate) fn id(&self) -> &str {
        &self.inner.id
    }

    /// Changes whenever a run may have.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.inner.news.subscribe()
    }

    /// What is shown as metrics: name, help, and value.
    pub(crate) fn gauges(&self) -> [(&'static str, &'static str, u64); 3] {
        let hosts = self.inner.leases.lock().len();
        let waiting = self.inner.finished.lock().len();
        let controllers = self.inner.controllers.load(Ordering::Relaxed);
        [
            ("atp_cluster_hosts", "Hosts that this controller has a lease of", hosts as u64),
            (
                "atp_cluster_controllers",
                "Controllers that live, as this one has last read",
                controllers as u64,
            ),
            ("atp_cluster_outcomes_waiting", "Outcomes that the database does not have yet", waiting as u64),
        ]
    }

    /// Looks for work at once.
    pub(crate) fn wake(&self) {
        self.inner.wake.notify_one();
        self.inner.news.send_modify(|count| *count += 1);
    }

    /// Notes that the work goes on: only then are leases renewed.
    pub(super) fn goes_on(&self) {
        *self.inner.progress.lock() = clock::now();
    }

    /// Whether the work did not go on for so long that others had better do it: longer than the server has for an answer.
    pub(super) fn is_stuck(&self) -> bool {
        let most = (self.inner.length * 2).max(STUCK);
        clock::now().saturating_sub(*self.inner.progress.lock()) > most
    }

    pub(super) fn abort_what_is_not_held(&self) {
        let leases = self.inner.leases.lock().clone();
        let before = clock::now().saturating_sub(*self.inner.renewed.lock());
        let renewed_ms_ago = u64::try_from(before.as_millis()).unwrap_or(u64::MAX);
        for work in self.inner.under_way.lock().values() {
            if !work.is_handed_over
                && !leases.holds(&work.host, work.claim.epoch)
                && !work.control.abort.is_cancelled()
            {
                tracing::warn!(
                    host = work.host,
                    renewed_ms_ago,
                    "the lease of a host nears its end, or is lost: its work is aborted"
                );
                work.control.abort.cancel();
            }
        }
    }
}

fn random() -> std::io::Result<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(u128::from_ne_bytes(bytes))
}
