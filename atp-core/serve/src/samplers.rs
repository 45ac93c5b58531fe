//! The samplers of hosts, kept from one request to the next.

use std::collections::HashMap;
use std::sync::Arc;

use atp_api::StatisticsRound;
use atp_executor::Sampler;
use atp_transport::{HostId, TransportManager};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cache::{Cache, CacheCounts};

/// The most hosts whose last samples are kept.
const MAX_ROUNDS: usize = 20_000;

/// The samplers of hosts, and what they answered last.
#[derive(Debug)]
pub(crate) struct Samplers {
    samplers: Mutex<HashMap<HostId, Arc<Held>>>,
    pub(crate) rounds: Cache<StatisticsRound>,
}

/// A sampler, and when it was used. One sample is made at a time.
pub(crate) type Held = tokio::sync::Mutex<Option<(Sampler, Instant)>>;

impl Default for Samplers {
    fn default() -> Self {
        Samplers { samplers: Mutex::default(), rounds: Cache::new(MAX_ROUNDS) }
    }
}

impl Samplers {
    pub(crate) fn counts(&self) -> CacheCounts {
        self.rounds.counts()
    }

    /// The sampler of a host. Those of hosts that were removed are dropped.
    pub(crate) fn sampler(&self, manager: &TransportManager, id: &HostId) -> Arc<Held> {
        let mut samplers = self.samplers.lock();
        if samplers.len() > manager.pools().len() {
            samplers.retain(|id, _| manager.pool(id.as_str()).is_ok());
        }
        samplers.entry(id.clone()).or_default().clone()
    }
}
