//! What the events tell, put together again: whether it makes sense, and whether the numbers say the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use atp_transport::{BreakerState, Event, EventKind, HealthState, TransportEvent};
use tokio::time::Instant;

/// All that was told so far.
#[derive(Default)]
pub(super) struct Story {
    pub(super) kinds: BTreeMap<EventKind, u64>,
    pub(super) last: u64,
    pub(super) hosts: BTreeMap<String, Told>,
    pub(super) connections: BTreeMap<u64, Line>,
    fleet: Option<HealthState>,
    /// The most breakers that were not closed at once.
    pub(super) most_open: usize,
    pub(super) violations: Vec<String>,
}

/// What was told of a host since it was last added.
pub(super) struct Told {
    pub(super) present: bool,
    pub(super) added: Instant,
    pub(super) breaker: BreakerState,
    opened: Option<Instant>,
    pub(super) health: HealthState,
    pub(super) lost: u64,
    pub(super) recovered: u64,
    pub(super) acquire_timeouts: u64,
    /// The connections opened since.
    pub(super) connections: Vec<u64>,
}

/// What was told of a connection, and what was seen of its calls.
#[derive(Default)]
pub(super) struct Line {
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
    /// A call on it hangs: it is used no more.
    Suspect,
}

impl Story {
    /// A call was seen to end.
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

    pub(super) fn hear(&mut self, event: &Arc<Event>) {
        if event.sequence != self.last + 1 {
            self.violations.push(format!("event {} follows {}", event.sequence, self.last));
        }
        self.last = event.sequence;
        *self.kinds.entry(event.what.kind()).or_default() += 1;
        let told = match &event.host {
            Some(host) => self.hear_of_host(host.as_str(), event),
            None => self.hear_of_fleet(&event.what),
        };
        if let Err(violation) = told {
            self.violations.push(format!("{violation}: {event:?}"));
        }
        if event.what.kind() == EventKind::BreakerOpened {
            let open = |told: &&Told| told.present && told.breaker != BreakerState::Closed;
            self.most_open = self.most_open.max(self.hosts.values().filter(open).count());
        }
    }

    fn hear_of_fleet(&mut self, what: &TransportEvent) -> Result<(), String> {
        if let TransportEvent::HealthChanged { from, to, .. } = what {
            let before = self.fleet();
            self.fleet = Some(*to);
            holds(*from == before && from != to, || format!("the fleet was {before}"))?;
        }
        Ok(())
    }

    fn hear_of_host(&mut self, host: &str, event: &Event) -> Result<(), String> {
        use TransportEvent::*;
        if matches!(event.what, HostAdded) {
            let told = Told::new(event.at);
            let before = self.hosts.insert(host.to_owned(), told);
            return holds(before.is_none_or(|told| !told.present), || "it was there already".to_owned());
        }
        let Some(told) = self.hosts.get_mut(host) else { return Err("the host was not added".to_owned()) };
        if let Connected { connection } | Lost { connection, .. } | Recovered { connection, .. } = event.what
        {
            // Those of a host that was taken out tell their story to the end.
            self.connections.entry(connection).or_default().goes_on(&event.what)?;
        }
        if let Suspect { connection, .. } = event.what {
            self.connections.entry(connection).or_default().goes_on(&event.what)?;
        }
        if !told.present {
            return Ok(());
        }
        match &event.what {
            HostRemoved => told.present = false,
            PoolGrown { connection, .. } => told.connections.push(*connection),
            Lost { .. } => told.lost += 1,
            Recovered { .. } => told.recovered += 1,
            AcquireTimedOut { .. } => told.acquire_timeouts += 1,
            BreakerOpened { .. } => {
                let before = std::mem::replace(&mut told.breaker, BreakerState::Open);
                told.opened.get_or_insert(event.at);
                holds(before != BreakerState::Open, || format!("its breaker was {before}"))?;
            }
            BreakerHalfOpen => {
                let before = std::mem::replace(&mut told.breaker, BreakerState::HalfOpen);
                holds(before == BreakerState::Open, || format!("its breaker was {before}"))?;
            }
            BreakerClosed { open_for } => {
                let before = std::mem::replace(&mut told.breaker, BreakerState::Closed);
                let opened = told.opened.take();
                holds(before == BreakerState::HalfOpen, || format!("its breaker was {before}"))?;
                let open = opened.map(|opened| event.at - opened);
                holds(open == Some(*open_for), || format!("it was open for {open:?}"))?;
            }
            HealthChanged { from, to, .. } => {
                let before = std::mem::replace(&mut told.health, *to);
                holds(*from == before && from != to, || format!("it was {before}"))?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Told {
    fn new(added: Instant) -> Self {
        Told {
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

impl Line {
    fn goes_on(&mut self, what: &TransportEvent) -> Result<(), String> {
        let (expected, next) = match what {
            TransportEvent::Connected { .. } => (&[Stage::Opening][..], Stage::Up),
            // One that is used no more can be lost as well.
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
