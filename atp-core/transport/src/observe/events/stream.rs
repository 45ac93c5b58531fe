//! A listener's end of the stream of events.

use std::sync::Arc;

use futures_util::stream::{self, Stream};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::event::{Event, TransportEvent};

/// Listens to a manager's events from the moment it was made on.
///
/// A slow listener delays nothing: when more events wait than [`events.capacity`](crate::EventConfig::capacity), the oldest are
/// lost and a [`Missed`](TransportEvent::Missed) stands in their place.
#[derive(Debug)]
pub struct EventStream {
    receiver: broadcast::Receiver<Arc<Event>>,
    /// The number of the event that comes next.
    next: u64,
}

impl EventStream {
    pub(super) fn new(receiver: broadcast::Receiver<Arc<Event>>, next: u64) -> Self {
        EventStream { receiver, next }
    }

    /// The next event; none when the manager is gone and all has been heard. Cancel safe.
    pub async fn recv(&mut self) -> Option<Arc<Event>> {
        match self.receiver.recv().await {
            Ok(event) => Some(self.heard(event)),
            Err(RecvError::Lagged(count)) => Some(self.missed(count)),
            Err(RecvError::Closed) => None,
        }
    }

    /// The next event, if one has been emitted and not heard yet.
    pub fn try_recv(&mut self) -> Option<Arc<Event>> {
        match self.receiver.try_recv() {
            Ok(event) => Some(self.heard(event)),
            Err(TryRecvError::Lagged(count)) => Some(self.missed(count)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }

    /// As a [`Stream`], which ends when the manager is gone.
    pub fn into_stream(self) -> impl Stream<Item = Arc<Event>> + Send {
        stream::unfold(self, |mut events| async move { events.recv().await.map(|event| (event, events)) })
    }

    fn heard(&mut self, event: Arc<Event>) -> Arc<Event> {
        self.next = event.sequence + 1;
        event
    }

    fn missed(&mut self, count: u64) -> Arc<Event> {
        self.next += count;
        let what = TransportEvent::Missed { count };
        Arc::new(Event::now(self.next - 1, None, what))
    }
}
