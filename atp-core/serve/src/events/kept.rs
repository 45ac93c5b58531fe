//! The last events, kept for streams that are resumed.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use atp_transport::HostId;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

/// The last events, under numbers from 1.
#[derive(Debug)]
pub(crate) struct Events {
    kept: Mutex<Kept>,
    /// The number of the last event.
    pub(super) last: watch::Sender<u64>,
    /// Numbers are those of this process: after a restart they begin anew.
    epoch: String,
    capacity: usize,
    pub(super) is_watching: AtomicBool,
    /// What reads the events of monitors, while somebody listens to them.
    pub(super) monitors: Mutex<Weak<AbortOnDropHandle<()>>>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Arc<Event>>,
    /// The number of the first event that is kept.
    first: u64,
    /// Whether hosts are watched now.
    hosts: HashMap<HostId, Watched>,
}

/// Whether a host is watched, as far as its last event says.
#[derive(Debug, Clone)]
pub(super) enum Watched {
    Yes,
    /// No, as this event says.
    No(Arc<Event>),
}

/// An event, as it was read.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) number: u64,
    /// The host that it is about; none for the whole fleet.
    pub(super) host: Option<HostId>,
    /// The VM that it is about.
    pub(super) vm: Option<String>,
    pub(super) word: &'static str,
    pub(super) data: Value,
}

impl Events {
    pub(crate) fn new(capacity: usize) -> Self {
        let id = Uuid::from_bytes(std::array::from_fn(|_| 0));
        let epoch = random().unwrap_or(id).simple().to_string();
        let kept = Kept { first: 1, ..Kept::default() };
        Events {
            kept: Mutex::new(kept),
            last: watch::Sender::new(0),
            epoch,
            capacity: capacity.max(1),
            is_watching: AtomicBool::new(false),
            monitors: Mutex::default(),
        }
    }

    pub(super) fn add(&self, host: Option<HostId>, vm: Option<String>, word: &'static str, data: Value) {
        self.add_about(host, vm, word, data, |_, _| {});
    }

    /// Adds an event that says whether its host is watched.
    pub(super) fn add_watched(&self, host: HostId, word: &'static str, data: Value, is_watched: bool) {
        self.add_about(Some(host.clone()), None, word, data, |hosts, event| {
            hosts.insert(host, if is_watched { Watched::Yes } else { Watched::No(event) });
        });
    }

    /// Adds the event of a host that was removed.
    pub(super) fn add_removed(&self, host: HostId, word: &'static str, data: Value) {
        self.add_about(Some(host.clone()), None, word, data, |hosts, _| drop(hosts.remove(&host)));
    }

    fn add_about(
        &self,
        host: Option<HostId>,
        vm: Option<String>,
        word: &'static str,
        data: Value,
        note: impl FnOnce(&mut HashMap<HostId, Watched>, Arc<Event>),
    ) {
        let mut kept = self.kept.lock();
        let number = *self.last.borrow() + 1;
        if kept.events.len() >= self.capacity {
            kept.events.pop_front();
        }
        let event = Arc::new(Event { number, host, vm, word, data });
        kept.events.push_back(event.clone());
        note(&mut kept.hosts, event);
        kept.first = kept.events.front().map_or(number, |event| event.number);
        self.last.send_replace(number);
    }

    /// The event of this number, if it has happened; or the number of the first one that is kept, if it is gone.
    pub(super) fn get(&self, number: u64) -> Result<Option<Arc<Event>>, u64> {
        let kept = self.kept.lock();
        if number < kept.first {
            return Err(kept.first);
        }
        let place = usize::try_from(number - kept.first).unwrap_or(usize::MAX);
        Ok(kept.events.get(place).cloned())
    }

    /// Which hosts are watched, by the events up to the last one.
    pub(super) fn watched(&self) -> Vec<(HostId, Watched)> {
        self.kept.lock().hosts.iter().map(|(host, watched)| (host.clone(), watched.clone())).collect()
    }

    pub(super) fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.epoch)
    }

    /// The number in an id; none if it is of another process.
    pub(super) fn number(&self, id: &str) -> Option<u64> {
        let (epoch, number) = id.rsplit_once('-')?;
        (epoch == self.epoch).then(|| number.parse().ok())?
    }

    /// Events that are kept, and have happened.
    pub(crate) fn counts(&self) -> (usize, u64) {
        (self.kept.lock().events.len(), *self.last.borrow())
    }
}

fn random() -> Option<Uuid> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(Uuid::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_events_are_kept_under_their_numbers() {
        let events = Events::new(3);
        assert!(matches!(events.get(1), Ok(None)));
        for number in 1..=5 {
            events.add(None, None, "vm", json!({"number": number}));
        }
        assert_eq!(events.get(2).unwrap_err(), 3);
        for number in 3..=5 {
            assert_eq!(events.get(number).unwrap().unwrap().data["number"], number);
        }
        assert!(matches!(events.get(6), Ok(None)));
        assert_eq!(events.counts(), (3, 5));
    }

    #[test]
    fn an_id_is_of_one_process() {
        let (one, other) = (Events::new(1), Events::new(1));
        assert_eq!(one.number(&one.id(7)), Some(7));
        assert_eq!(other.number(&one.id(7)), None);
        assert_eq!(one.number("7"), None);
    }
}
