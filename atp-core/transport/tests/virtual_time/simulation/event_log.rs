//! Rebuilds the state of the fleet from the events: checks that their sequence is possible, and counts them.

use std::collections::BTreeMap;
use std::sync::Arc;

use atp_transport::{BreakerState, Event, EventKind, HealthState, TransportEvent};
use tokio::time::Instant;

/// The state according to all events so far.
#[derive(Default)]
pub(super) struct EventLog {
    pub(super) kinds: BTreeMap<EventKind, u64>,
    pub(super) last: u64,
    pub(super) hosts: BTreeMap<String, HostRecord>,
    pub(super) connections: BTreeMap<u64, ConnectionRecord>,
    fleet: Option<HealthState>,
    /// The maximum number of breakers that were not closed at the same time.
    pub(super) most_open: usize,
    pub(super) violations: Vec<String>,
}

/// The state of a host according to the events since it was last added.
pub(super) struct HostRecord {
    pub(super) present: bool,
    pub(super) added: Instant,
    pub(super) breaker: BreakerState,
    opened: Option<Instant>,
    pub(super) health: HealthState,
    pub(super) lost: u64,
    pub(super) recovered: u64,
    pub(super) acquire_timeouts: u64,
    /// The connections opened since then.
    pub(super) connections: Vec<u64>,
}

/// The state of a connection according to the events, and the calls made on it.
#[derive(Default)]
pub(super) struct ConnectionRecord {
    stage: Stage,
    pub(super) calls: u64,
    pub(super) errors: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Opening,
    Up,
    Down,
    /// A call on it hangs: it takes no new leases.
    Suspect,
}

impl EventLog {
    /// Records the end of a call.
    pub(super) fn called(&mut self, connection: u64, failed: bool) {
        let line = self.connections.entry(connection).or_default();
        line.calls += 1;
        line.errors += u64::from(failed);
    }

    pub(super) fn count(&self, kind: EventKind) -> u64 {
        self.kinds.get(&kind).copied().unwrap_or(0)
    }

    pub(super) fn fleet(&self) -> HealthState {
        self.fleet.unwrap_or(HealthState::Healthy)
    }

    pub(super) fn record_event(&mut self, event: &Arc<Event>) {
        if event.sequence != self.last + 1 {
            self.violations.push(format!("event {} follows {}", event.sequence, self.last));
        }
        self.last = event.sequence;
        *self.kinds.entry(event.what.kind()).or_default() += 1;
        let checked = match &event.host {
            Some(host) => self.record_host_event(host.as_str(), event),
            None => self.record_fleet_event(&event.what),
        };
        if let Err(violation) = checked {
            self.violations.push(format!("{violation}: {event:?}"));
        }
        if event.what.kind() == EventKind::BreakerOpened {
            let open = |record: &&HostRecord| record.present && record.breaker != BreakerState::Closed;
            self.most_open = self.most_open.max(self.hosts.values().filter(open).count());
        }
    }

    fn record_fleet_event(&mut self, what: &TransportEvent) -> Result<(), String> {
        if let TransportEvent::HealthChanged { from, to, .. } = what {
            let before = self.fleet();
            self.fleet = Some(*to);
            holds(*from == before && from != to, || format!("the fleet was {before}"))?;
        }
        Ok(())
    }

    fn record_host_event(&mut self, host: &str, event: &Event) -> Result<(), String> {
        use TransportEvent::*;
        if matches!(event.what, HostAdded) {
            let record = HostRecord::new(event.at);
            let before = self.hosts.insert(host.to_owned(), record);
            return holds(before.is_none_or(|record| !record.present), || {
                "it was already present".to_owned()
            });
        }
        let Some(record) = self.hosts.get_mut(host) else { return Err("the host was not added".to_owned()) };
        if let Connected { connection } | Lost { connection, .. } | Recovered { connection, .. } = event.what
        {
            // The connections of a removed host still emit their last events.
            self.connections.entry(connection).or_default().advance(&event.what)?;
        }
        if let Suspect { connection, .. } = event.what {
            self.connections.entry(connection).or_default().advance(&event.what)?;
        }
        if !record.present {
            return Ok(());
        }
        match &event.what {
            HostRemoved => record.present = false,
            PoolGrown { connection, .. } => record.connections.push(*connection),
            Lost { .. } => record.lost += 1,
            Recovered { .. } => record.recovered += 1,
            AcquireTimedOut { .. } => record.acquire_timeouts += 1,
            BreakerOpened { .. } => {
                let before = std::mem::replace(&mut record.breaker, BreakerState::Open);
                record.opened.get_or_insert(event.at);
                holds(before != BreakerState::Open, || format!("its breaker was {before}"))?;
            }
            BreakerHalfOpen => {
                let before = std::mem::replace(&mut record.breaker, BreakerState::HalfOpen);
                holds(before == BreakerState::Open, || format!("its breaker was {before}"))?;
            }
            BreakerClosed { open_for } => {
                let before = std::mem::replace(&mut record.breaker, BreakerState::Closed);
                let opened = record.opened.take();
                holds(before == BreakerState::HalfOpen, || format!("its breaker was {before}"))?;
                let open = opened.map(|opened| event.at - opened);
                holds(open == Some(*open_for), || format!("it was open for {open:?}"))?;
            }
            HealthChanged { from, to, .. } => {
                let before = std::mem::replace(&mut record.health, *to);
                holds(*from == before && from != to, || format!("it was {before}"))?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl HostRecord {
    fn new(added: Instant) -> Self {
        HostRecord {
            present: true,
            added,
            breaker: BreakerState::Closed,
            opened: None,
            health: HealthState::Healthy,
            lost: 0,
            recovered: 0,
            acquire_timeouts: 0,
            connections: Vec::new(),
        }
    }
}

impl ConnectionRecord {
    fn advance(&mut self, what: &TransportEvent) -> Result<(), String> {
        let (expected, next) = match what {
            TransportEvent::Connected { .. } => (&[Stage::Opening][..], Stage::Up),
            // A suspect connection can also be lost.
            TransportEvent::Lost { .. } => (&[Stage::Up, Stage::Suspect][..], Stage::Down),
            TransportEvent::Recovered { .. } => (&[Stage::Down][..], Stage::Up),
            _ => (&[Stage::Up][..], Stage::Suspect),
        };
        let before = std::mem::replace(&mut self.stage, next);
        holds(expected.contains(&before), || format!("the connection was {before:?}"))
    }
}

fn holds(law: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if law { Ok(()) } else { Err(otherwise()) }
}
