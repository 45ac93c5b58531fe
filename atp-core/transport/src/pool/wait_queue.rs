//! The queue of callers that wait for a lease: first come, first served.

use std::collections::VecDeque;
use std::panic::Location;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::lease::PooledConnection;
use crate::connection::connector::Connector;
use crate::error::TransportError;

/// What a waiting caller gets in the end. The error is boxed because nearly all grants are leases, which are small.
pub(crate) type Grant<C> = Result<PooledConnection<C>, Box<TransportError>>;

/// The waiting callers, in the order of their tickets.
pub(crate) struct WaitQueue<C: Connector> {
    waiters: VecDeque<Waiter<C>>,
    next: u64,
}

/// A place in the queue. The earlier request comes first; of two at the same instant, the one that joined earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket {
    pub(crate) asked: Instant,
    number: u64,
}

pub(crate) struct Waiter<C: Connector> {
    pub(crate) ticket: Ticket,
    pub(crate) taken_at: &'static Location<'static>,
    pub(crate) grant: oneshot::Sender<Grant<C>>,
}

impl<C: Connector> Default for WaitQueue<C> {
    fn default() -> Self {
        WaitQueue { waiters: VecDeque::new(), next: 0 }
    }
}

impl<C: Connector> WaitQueue<C> {
    /// Adds a caller, behind all that asked before.
    pub(crate) fn join(
        &mut self,
        asked: Instant,
        taken_at: &'static Location<'static>,
    ) -> (Ticket, oneshot::Receiver<Grant<C>>) {
        let (grant, granted) = oneshot::channel();
        let ticket = Ticket { asked, number: self.next };
        self.next += 1;
        let waiter = Waiter { ticket, taken_at, grant };
        if self.waiters.back().is_none_or(|last| last.ticket <= ticket) {
            self.waiters.push_back(waiter);
        } else {
            let place = self.waiters.partition_point(|waiter| waiter.ticket <= ticket);
            self.waiters.insert(place, waiter);
        }
        (ticket, granted)
    }

    /// Removes a caller; nothing happens if it has been served.
    pub(crate) fn leave(&mut self, ticket: Ticket) {
        if let Ok(at) = self.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
            self.waiters.remove(at);
        }
    }

    /// When the first caller in the queue asked.
    pub(crate) fn first_asked(&self) -> Option<Instant> {
        self.waiters.front().map(|first| first.ticket.asked)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Takes the first caller, to be served.
    pub(crate) fn pop(&mut self) -> Option<Waiter<C>> {
        self.waiters.pop_front()
    }

    /// Puts the first caller back: it could not be served after all.
    pub(crate) fn put_back(&mut self, first: Waiter<C>) {
        self.waiters.push_front(first);
    }

    /// Removes all callers.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = Waiter<C>> + use<C> {
        std::mem::take(&mut self.waiters).into_iter()
    }
}
