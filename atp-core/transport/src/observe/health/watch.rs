//! What the looks at hosts have found. Each host is looked at by its pool; the fleet whenever a host is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::assess::{assess, assess_fleet};
use super::hysteresis::Hysteresis;
use super::{FleetHealth, Health, HealthState, Vitals};
use crate::config::HealthConfig;
use crate::host::HostId;
use crate::observe::call_counters::{CallCounts, RecentCalls};
use crate::observe::events::{EventBus, TransportEvent};

/// How one host was when it was last looked at.
pub(crate) struct HostHealth {
    fleet: Arc<FleetWatch>,
    inner: Mutex<Inner>,
}

struct Inner {
    steady: Hysteresis,
    seen: HealthState,
    vitals: Vitals,
    window: RecentCalls,
    /// It is one of the fleet's hosts.
    belongs: bool,
}

impl HostHealth {
    /// Adds a host to the fleet.
    pub(crate) fn new(fleet: Arc<FleetWatch>) -> Self {
        let steady = Hysteresis::new(Instant::now());
        *fleet.inner.lock().count(steady.state()) += 1;
        let inner = Inner {
            steady,
            seen: HealthState::Healthy,
            vitals: Vitals::default(),
            window: RecentCalls::default(),
            belongs: true,
        };
        HostHealth { fleet, inner: Mutex::new(inner) }
    }

    /// How the host was at the last look.
    pub(crate) fn report(&self) -> Health {
        let inner = self.inner.lock();
        Health {
            state: inner.steady.state(),
            reason: inner.steady.reason().to_owned(),
            since: inner.steady.since(),
            seen: inner.seen,
            vitals: inner.vitals.clone(),
        }
    }

    /// Assesses the host, and emits an event if its state has changed. `vitals` is given the recent counts.
    pub(crate) fn look(
        &self,
        counted: &CallCounts,
        config: &HealthConfig,
        vitals: impl FnOnce(CallCounts) -> Vitals,
    ) -> Option<TransportEvent> {
        let mut inner = self.inner.lock();
        if !inner.belongs {
            return None;
        }
        let now = Instant::now();
        let lately = inner.window.look(now, counted, config.window);
        inner.vitals = vitals(lately);
        let (seen, reason) = assess(&inner.vitals, config);
        inner.seen = seen;
        let from = inner.steady.look(now, (seen, reason), config.worse_after, config.better_after)?;
        let (to, reason) = (inner.steady.state(), inner.steady.reason().to_owned());
        let mut fleet = self.fleet.inner.lock();
        *fleet.count(from) -= 1;
        *fleet.count(to) += 1;
        Some(TransportEvent::HealthChanged { from, to, reason })
    }

    /// The host is one of the fleet's no more.
    pub(crate) fn leave(&self) {
        let mut inner = self.inner.lock();
        if std::mem::take(&mut inner.belongs) {
            *self.fleet.inner.lock().count(inner.steady.state()) -= 1;
            // A fleet without hosts is not looked at by any keeper.
            self.fleet.look_if_empty();
        }
    }

    /// Looks at the fleet, now that one of its hosts has been.
    pub(crate) fn look_at_fleet(&self) {
        self.fleet.look();
    }
}

impl Drop for HostHealth {
    fn drop(&mut self) {
        self.leave();
    }
}

/// How the fleet was when it was last looked at.
pub(crate) struct FleetWatch {
    events: Arc<EventBus>,
    inner: Mutex<Fleet>,
}

struct Fleet {
    config: HealthConfig,
    /// How many hosts there are in each state.
    hosts: [usize; HealthState::ALL.len()],
    steady: Hysteresis,
}

impl FleetWatch {
    pub(crate) fn new(config: &HealthConfig, events: Arc<EventBus>) -> Self {
        let steady = Hysteresis::new(Instant::now());
        let hosts = [0; HealthState::ALL.len()];
        FleetWatch { events, inner: Mutex::new(Fleet { config: config.clone(), hosts, steady }) }
    }

    /// Goes by other thresholds from the next look on.
    pub(crate) fn configure(&self, config: &HealthConfig) {
        self.inner.lock().config = config.clone();
    }

    pub(crate) fn report(&self, hosts: BTreeMap<HostId, Health>) -> FleetHealth {
        let fleet = self.inner.lock();
        FleetHealth { state: fleet.steady.state(), reason: fleet.steady.reason().to_owned(), hosts }
    }

    fn look(&self) {
        let mut fleet = self.inner.lock();
        let better_after = fleet.config.better_after;
        self.assess(&mut fleet, better_after);
    }

    /// Looks if no host is left; there is nothing then whose getting better would have to hold.
    fn look_if_empty(&self) {
        let mut fleet = self.inner.lock();
        if fleet.hosts.iter().all(|count| *count == 0) {
            self.assess(&mut fleet, Duration::ZERO);
        }
    }

    fn assess(&self, fleet: &mut Fleet, better_after: Duration) {
        let Fleet { config, hosts, steady } = fleet;
        // The hosts' states have been steadied already: a worse one counts at once.
        let seen = assess_fleet(*hosts, config);
        let Some(from) = steady.look(Instant::now(), seen, 1, better_after) else { return };
        let (to, reason) = (steady.state(), steady.reason().to_owned());
        // Under the lock: the hosts' keepers all look, and changes are to be emitted in their order.
        self.events.emit(None, TransportEvent::HealthChanged { from, to, reason });
    }
}

impl Fleet {
    fn count(&mut self, state: HealthState) -> &mut usize {
        &mut self.hosts[state as usize]
    }
}
