//! What happened to the fleet, as one stream for all of a manager's hosts.
//!
//! A listener gets every event in the order in which it was emitted. Nothing ever waits for a listener: one
//! that is slow loses the oldest events, and gets the number of them. An event without listeners is counted and
//! goes no further.

mod event;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::config::EventConfig;
use crate::host::HostId;

pub use event::{Event, EventKind, GrowthReason, LossCause, ReapReason, TransportEvent};
pub use stream::EventStream;

/// Where events are emitted; one for a manager.
pub(crate) struct EventBus {
    sender: broadcast::Sender<Arc<Event>>,
    /// Held while an event is sent, so that the numbers go up for every listener. Nothing waits under it.
    emitted: Mutex<Emitted>,
}

struct Emitted {
    sequence: u64,
    by_kind: [u64; EventKind::ALL.len()],
}

impl EventBus {
    pub(crate) fn new(config: &EventConfig) -> Self {
        // Checked only when the first host is added.
        let capacity = config.capacity.clamp(1, EventConfig::MOST);
        let emitted = Emitted { sequence: 0, by_kind: [0; EventKind::ALL.len()] };
        EventBus { sender: broadcast::Sender::new(capacity), emitted: Mutex::new(emitted) }
    }

    /// Emits an event. Not to be called under a lock of a pool or a connection, for which work waits.
    pub(crate) fn emit(&self, host: Option<&HostId>, what: TransportEvent) {
        let mut emitted = self.emitted.lock();
        emitted.sequence += 1;
        if let Some(count) = emitted.by_kind.get_mut(what.kind() as usize) {
            *count += 1;
        }
        if self.sender.receiver_count() > 0 {
            let event = Event::now(emitted.sequence, host.cloned(), what);
            // Fails only if the last listener has just left.
            let _nobody = self.sender.send(Arc::new(event));
        }
    }

    pub(crate) fn subscribe(&self) -> EventStream {
        let emitted = self.emitted.lock();
        EventStream::new(self.sender.subscribe(), emitted.sequence + 1)
    }

    /// How many of each kind have been emitted, heard or not.
    pub(crate) fn counts(&self) -> BTreeMap<EventKind, u64> {
        EventKind::ALL.iter().copied().zip(self.emitted.lock().by_kind).collect()
    }
}
