//! Events: registrations at the daemon, and the bounded queue between the task and the consumer.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Command, Link, Token};
use crate::error::CallError;
use crate::event::DomainEvent;
use crate::numbers::{Procedure, Program};
use crate::xdr::ToXdr;

/// How many events are kept that came before the reply to their registration.
const EARLY: usize = 256;

/// The longest payload of an event that is kept, in bytes. libvirt's own have some hundreds; QEMU's, which are passed on, some
/// thousands. Thousands of them are queued for each host, and a message may have 32 MiB.
const LARGEST: usize = 1 << 16;

/// What comes out of a queue of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventItem {
    /// An event.
    Event(DomainEvent),
    /// Events are missing here: the queue was full, or one could not be read.
    Gap {
        /// How many.
        missed: u64,
    },
}

/// A queue of the events of one connection, in the order in which the daemon sent them.
///
/// It receives what [`watch`](crate::Connection::watch) registers for. Dropping it deregisters at the daemon, without
/// waiting for that. It keeps the connection open.
pub struct Events {
    link: Link,
    queue: Arc<EventQueue>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    pub(crate) fn new(link: Link, capacity: usize) -> Self {
        let queue = EventQueue { state: Mutex::default(), news: Notify::new(), capacity: capacity.max(1) };
        Events { link, queue: Arc::new(queue) }
    }

    pub(crate) async fn register(
        &self,
        procedure: Procedure,
        deregister: Procedure,
        arguments: &impl ToXdr,
        token: Option<Token>,
    ) -> Result<(), CallError> {
        self.link.register(procedure, deregister, arguments, token, self.queue.clone()).await
    }

    /// The next event, or how many are missing; none when the connection has ended and all was taken.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<EventItem> {
        loop {
            // Asked for before the look, so that nothing is missed between.
            let news = self.queue.news.notified();
            if let Some(answer) = self.queue.take() {
                return answer;
            }
            tokio::select! {
                () = news => {}
                // What came before the end is in the queue by now.
                _ = self.link.ended() => self.queue.state.lock().ended = true,
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.queue.state.lock().unwanted = true;
        self.link.tell(Command::DropEvents { queue: self.queue.clone() });
    }
}

/// The queue between the task and an [`Events`].
pub(crate) struct EventQueue {
    state: Mutex<QueueState>,
    news: Notify,
    capacity: usize,
}

#[derive(Default)]
struct QueueState {
    items: VecDeque<EventItem>,
    /// Events that did not fit behind the items.
    missed: u64,
    ended: bool,
    unwanted: bool,
}

impl QueueState {
    fn take(&mut self) -> Option<EventItem> {
        if let Some(item) = self.items.pop_front() {
            return Some(item);
        }
        match std::mem::take(&mut self.missed) {
            0 => None,
            missed => Some(EventItem::Gap { missed }),
        }
    }
}

impl EventQueue {
    /// The first item, or none at the end; nothing at all while there may come some.
    fn take(&self) -> Option<Option<EventItem>> {
        let mut state = self.state.lock();
        let item = state.take();
        (item.is_some() || state.ended).then_some(item)
    }

    fn push(&self, event: Option<DomainEvent>) {
        let mut state = self.state.lock();
        // The gap takes a place of its own before what comes after it.
        let needed = if state.missed > 0 { 2 } else { 1 };
        match event {
            Some(event) if state.items.len() + needed <= self.capacity.max(needed) => {
                if state.missed > 0 {
                    let missed = std::mem::take(&mut state.missed);
                    state.items.push_back(EventItem::Gap { missed });
                }
                state.items.push_back(EventItem::Event(event));
            }
            _ => state.missed += 1,
        }
        drop(state);
        self.news.notify_one();
    }

    fn is_unwanted(&self) -> bool {
        self.state.lock().unwanted
    }
}

/// The registrations of a link, by program and the number that the daemon gave.
#[derive(Default)]
pub(super) struct Registrations {
    known: HashMap<(Program, i32), (Arc<EventQueue>, Procedure)>,
    /// Registrations that are not answered yet.
    pub(super) pending: usize,
    /// Events of numbers that are not known: one may come before the reply that gives its number.
    early: VecDeque<(Program, i32, i32, Bytes)>,
}

impl Registrations {
    /// Takes the number of a registration. Returns whether it is to be withdrawn again.
    pub(super) fn add(
        &mut self,
        program: Program,
        id: i32,
        queue: Arc<EventQueue>,
        deregister: Procedure,
    ) -> bool {
        if queue.is_unwanted() {
            return true;
        }
        let (of_it, others) = std::mem::take(&mut self.early)
            .into_iter()
            .partition(|(of, number, ..)| (*of, *number) == (program, id));
        self.early = others;
        let of_it: VecDeque<_> = of_it;
        for (_, _, procedure, payload) in of_it {
            deliver(&queue, program, procedure, &payload);
        }
        self.known.insert((program, id), (queue, deregister));
        false
    }

    /// One registration less is waited for. When it was the last, early events have no taker.
    pub(super) fn answered(&mut self) {
        self.pending = self.pending.saturating_sub(1);
        if self.pending == 0 {
            self.early.clear();
        }
    }

    /// Forgets a queue. Returns what is to be called at the daemon.
    pub(super) fn remove(&mut self, queue: &Arc<EventQueue>) -> Vec<(Procedure, i32)> {
        let gone = self.known.extract_if(|_, (of, _)| Arc::ptr_eq(of, queue));
        gone.map(|((_, id), (_, deregister))| (deregister, id)).collect()
    }

    /// Handles an event message. Its payload begins with the number of the registration.
    pub(super) fn event(&mut self, program: Program, procedure: i32, payload: Bytes) {
        let Some(id) = payload.first_chunk().copied().map(i32::from_be_bytes) else {
            tracing::warn!(procedure, "a message without a payload");
            return;
        };
        // Without its content it cannot be read, which makes it a gap.
        let payload = if payload.len() > LARGEST { Bytes::copy_from_slice(&payload[..4]) } else { payload };
        match self.known.get(&(program, id)) {
            Some((queue, _)) => deliver(queue, program, procedure, &payload),
            None if self.pending > 0 && self.early.len() < EARLY => {
                self.early.push_back((program, id, procedure, payload));
            }
            // Of a registration that was withdrawn.
            None => tracing::debug!(procedure, id, "an event of an unknown registration"),
        }
    }
}

fn deliver(queue: &EventQueue, program: Program, procedure: i32, payload: &[u8]) {
    let event = DomainEvent::decode(program, procedure, payload);
    if let Err(error) = &event {
        tracing::warn!(procedure, %error, "an event that cannot be read");
    }
    queue.push(event.ok());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;
    use crate::message::RemoteDomain;

    fn event(id: i32) -> DomainEvent {
        let domain = RemoteDomain { id, ..RemoteDomain::of(Default::default()) };
        DomainEvent { domain, kind: EventKind::Reboot }
    }

    fn queue(capacity: usize) -> EventQueue {
        EventQueue { state: Mutex::default(), news: Notify::new(), capacity }
    }

    #[test]
    fn a_gap_stands_where_events_are_missing() {
        let queue = queue(3);
        (0..5).for_each(|id| queue.push(Some(event(id))));
        let take = || queue.state.lock().take();
        assert_eq!(take(), Some(EventItem::Event(event(0))));
        queue.push(Some(event(5)));
        assert_eq!(take(), Some(EventItem::Event(event(1))));
        queue.push(Some(event(6)));
        assert_eq!(take(), Some(EventItem::Event(event(2))));
        assert_eq!(take(), Some(EventItem::Gap { missed: 3 }));
        assert_eq!(take(), Some(EventItem::Event(event(6))));
        assert_eq!(take(), None);
    }

    #[test]
    fn a_gap_at_the_end_is_reported_too() {
        let queue = queue(1);
        (0..3).for_each(|id| queue.push(Some(event(id))));
        assert_eq!(queue.state.lock().take(), Some(EventItem::Event(event(0))));
        assert_eq!(queue.state.lock().take(), Some(EventItem::Gap { missed: 2 }));
        queue.push(None);
        assert_eq!(queue.state.lock().take(), Some(EventItem::Gap { missed: 1 }));
    }
}
