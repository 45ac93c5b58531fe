//! The way of one connection's events to the subscribers: in order with the listings, and not beyond the gap.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::WatchItem;
use crate::domain::{DomainEvent, DomainEventKind, DomainInfo, DomainState};
use crate::engine::EventSink;
use crate::host::HostId;

/// The way of one connection's events to the subscribers.
pub(super) struct Feed {
    host: HostId,
    items: broadcast::Sender<WatchItem>,
    capacity: usize,
    gate: Mutex<Gate>,
}

struct Gate {
    state: State,
    /// The domains whose states events have reported, until the domains have been listed for the second time.
    changed: Option<HashSet<Uuid>>,
}

enum State {
    /// The domains are being listed; events wait, since the list may be older than they are.
    Held {
        events: VecDeque<WatchItem>,
        dropped: u64,
    },
    Open,
    Closed,
}

impl State {
    fn held() -> Self {
        State::Held { events: VecDeque::new(), dropped: 0 }
    }
}

impl Feed {
    /// Keeps at most `capacity` events while the domains are listed.
    pub(super) fn new(host: HostId, items: broadcast::Sender<WatchItem>, capacity: usize) -> Self {
        let gate = Mutex::new(Gate { state: State::held(), changed: Some(HashSet::new()) });
        Feed { host, items, capacity, gate }
    }

    /// Lets no events pass until the domains have been listed.
    pub(super) fn hold(&self) {
        self.gate.lock().state = State::held();
    }

    /// Sends what was listed, and then the events that came meanwhile.
    pub(super) fn open(&self, domains: Vec<DomainInfo>) {
        self.release(&mut self.gate.lock(), Some(domains));
    }

    /// The same for the second listing, which is sent only if it says more than the events.
    pub(super) fn open_settled(&self, before: &[DomainInfo], now: Vec<DomainInfo>) {
        let mut gate = self.gate.lock();
        let changed = gate.changed.take().unwrap_or_default();
        let is_news = states(before, &changed) != states(&now, &changed);
        self.release(&mut gate, is_news.then_some(now));
    }

    fn release(&self, gate: &mut Gate, domains: Option<Vec<DomainInfo>>) {
        let (host, at) = (self.host.clone(), SystemTime::now());
        let held = std::mem::replace(&mut gate.state, State::Open);
        // Under the lock, which the callbacks wait for: nothing may come between.
        if let Some(domains) = domains {
            let _unheard = self.items.send(WatchItem::Present { host, at, domains: domains.into() });
        }
        if let State::Held { events, dropped } = held {
            if dropped > 0 {
                let _unheard = self.items.send(WatchItem::Missed { count: dropped });
            }
            for event in events {
                let _unheard = self.items.send(event);
            }
        }
    }

    /// Sends what still waits, for it happened before the gap, and then the gap.
    fn close(&self) {
        let mut gate = self.gate.lock();
        self.release(&mut gate, None);
        gate.state = State::Closed;
        let (host, at) = (self.host.clone(), SystemTime::now());
        let _unheard = self.items.send(WatchItem::Gap { host, at });
    }
}

impl EventSink for Feed {
    fn missed(&self, count: u64) {
        let mut gate = self.gate.lock();
        match &mut gate.state {
            State::Held { dropped, .. } => *dropped += count,
            State::Open => {
                let _unheard = self.items.send(WatchItem::Missed { count });
            }
            State::Closed => {}
        }
    }

    fn take(&self, event: DomainEvent) {
        let (uuid, is_change) = (event.uuid, matches!(event.kind, DomainEventKind::Lifecycle { .. }));
        let item = WatchItem::Event { host: self.host.clone(), at: SystemTime::now(), event };
        let mut gate = self.gate.lock();
        match &mut gate.state {
            State::Held { events, dropped } => {
                if events.len() >= self.capacity {
                    events.pop_front();
                    *dropped += 1;
                }
                events.push_back(item);
            }
            State::Open => {
                let _unheard = self.items.send(item);
            }
            State::Closed => {}
        }
        if let (true, Some(changed)) = (is_change, &mut gate.changed) {
            changed.insert(uuid);
        }
    }
}

/// Ends a feed: what its connection may still bring belongs behind the gap.
pub(super) struct Closes<'a>(pub(super) &'a Feed);

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The states in a listing, without those of domains whose states events have reported.
fn states(domains: &[DomainInfo], told: &HashSet<Uuid>) -> BTreeMap<Uuid, DomainState> {
    let untold = domains.iter().filter(|domain| !told.contains(&domain.uuid));
    untold.map(|domain| (domain.uuid, domain.state)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::LifecycleChange;

    fn domain(n: u128, state: DomainState) -> DomainInfo {
        DomainInfo::new(format!("vm{n}"), Uuid::from_u128(n), state)
    }

    fn stopped(n: u128) -> DomainEvent {
        let kind =
            DomainEventKind::Lifecycle { change: LifecycleChange::Stopped, detail: "destroyed".into() };
        DomainEvent { name: format!("vm{n}"), uuid: Uuid::from_u128(n), kind }
    }

    /// The items for a host whose two domains run first and are in these states when they are listed again; of the
    /// first of them comes an event, before the second listing or during it.
    fn told(states: [DomainState; 2], is_during: bool) -> Vec<&'static str> {
        let (items, mut receiver) = broadcast::channel(16);
        let feed = Feed::new("h1".parse().unwrap(), items, 16);
        let first = [domain(1, DomainState::Running), domain(2, DomainState::Running)];
        feed.open(first.to_vec());
        if !is_during {
            feed.take(stopped(1));
        }
        feed.hold();
        if is_during {
            feed.take(stopped(1));
        }
        feed.open_settled(&first, vec![domain(1, states[0]), domain(2, states[1])]);
        drain(&mut receiver)
    }

    fn drain(receiver: &mut broadcast::Receiver<WatchItem>) -> Vec<&'static str> {
        let mut told = Vec::new();
        while let Ok(item) = receiver.try_recv() {
            told.push(match item {
                WatchItem::Present { .. } => "present",
                WatchItem::Event { .. } => "event",
                WatchItem::Gap { .. } => "gap",
                WatchItem::Missed { .. } => "missed",
                other => panic!("{other:?}"),
            });
        }
        told
    }

    #[test]
    fn what_came_before_the_loss_is_told_before_the_gap() {
        let (items, mut receiver) = broadcast::channel(16);
        let feed = Feed::new("h1".parse().unwrap(), items, 1);
        feed.open(Vec::new());
        feed.hold();
        feed.take(stopped(1));
        feed.take(stopped(2));
        drop(Closes(&feed));
        feed.take(stopped(3));
        assert_eq!(drain(&mut receiver), ["present", "missed", "event", "gap"]);
    }

    #[test]
    fn a_second_listing_is_told_only_if_it_says_more_than_the_events() {
        use DomainState::{Running, ShutOff};
        assert_eq!(told([ShutOff, Running], false), ["present", "event"]);
        assert_eq!(told([ShutOff, Running], true), ["present", "event"]);
        assert_eq!(told([ShutOff, ShutOff], false), ["present", "event", "present"]);
        assert_eq!(told([Running, ShutOff], true), ["present", "present", "event"]);
    }
}
