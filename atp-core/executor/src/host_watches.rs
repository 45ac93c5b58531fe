//! The events of hosts: each host is watched over one connection for all targets that wait for something there.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use atp_transport::{HostId, WatchItem};
use futures_util::{Stream, StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::task::AbortOnDropHandle;

/// Items kept for a target that does not take them, as while it makes a request.
const BUFFER: usize = 4096;

/// The hosts that are watched now.
#[derive(Debug, Default)]
pub(crate) struct HostWatches {
    by_host: Mutex<HashMap<HostId, Weak<HostWatch>>>,
}

/// The watch of one host. When the last of its streams is dropped, its connection is closed.
#[derive(Debug)]
struct HostWatch {
    shared: Arc<Mutex<Shared>>,
    _pump: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    items: broadcast::Sender<WatchItem>,
    /// The last item that says whether the host is watched.
    state: Option<WatchItem>,
    /// The host was removed, or such an item may be among those that were missed: others need a watch of their own.
    is_over: bool,
}

impl HostWatches {
    /// The events of a host from now on, after an item that says whether it is watched. The domains in that item may be as
    /// they were some time ago. `watch` begins to watch the host, if it is not watched yet.
    pub(crate) fn events<S, E>(
        &self,
        host: &HostId,
        watch: impl FnOnce() -> Result<S, E>,
    ) -> Result<Pin<Box<dyn Stream<Item = WatchItem> + Send>>, E>
    where
        S: Stream<Item = WatchItem> + Send + 'static,
    {
        let mut by_host = self.by_host.lock();
        let under_way = by_host.get(host).and_then(Weak::upgrade);
        let watch = match under_way.filter(|watch| !watch.shared.lock().is_over) {
            Some(watch) => watch,
            None => {
                let watch = Arc::new(HostWatch::new(watch()?));
                by_host.retain(|_, watch| watch.strong_count() > 0);
                by_host.insert(host.clone(), Arc::downgrade(&watch));
                watch
            }
        };
        Ok(Box::pin(watch.stream()))
    }
}

impl HostWatch {
    fn new(events: impl Stream<Item = WatchItem> + Send + 'static) -> Self {
        let (items, _) = broadcast::channel(BUFFER);
        let shared = Arc::new(Mutex::new(Shared { items, state: None, is_over: false }));
        let pump = tokio::spawn(pump(Box::pin(events), Arc::clone(&shared)));
        HostWatch { shared, _pump: AbortOnDropHandle::new(pump) }
    }

    /// What is known, and what comes from now on. Keeps the watch.
    fn stream(self: Arc<Self>) -> impl Stream<Item = WatchItem> + Send {
        let (state, receiver) = {
            let shared = self.shared.lock();
            (shared.state.clone(), shared.items.subscribe())
        };
        let coming = stream::unfold((receiver, self), |(mut receiver, watch)| async move {
            match receiver.recv().await {
                Ok(item) => Some((item, (receiver, watch))),
                Err(RecvError::Lagged(count)) => Some((WatchItem::Missed { count }, (receiver, watch))),
                Err(RecvError::Closed) => None,
            }
        });
        stream::iter(state).chain(coming)
    }
}

/// Passes the items on to all streams.
async fn pump(mut events: impl Stream<Item = WatchItem> + Unpin, shared: Arc<Mutex<Shared>>) {
    while let Some(item) = events.next().await {
        // Under the lock: a stream that begins has the state and every item after it.
        let mut shared = shared.lock();
        match &item {
            WatchItem::Present { .. } | WatchItem::Gap { .. } | WatchItem::Unreachable { .. } => {
                shared.state = Some(item.clone());
            }
            WatchItem::Missed { .. } | WatchItem::Removed { .. } => shared.is_over = true,
            _ => {}
        }
        // Fails when no target waits at the moment.
        let _unheard = shared.items.send(item);
    }
    shared.lock().is_over = true;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::time::SystemTime;

    use tokio::sync::mpsc;

    type Events = Pin<Box<dyn Stream<Item = WatchItem> + Send>>;

    fn host() -> HostId {
        "h1".parse().unwrap()
    }

    fn present() -> WatchItem {
        WatchItem::Present { host: host(), at: SystemTime::now(), domains: Vec::new().into() }
    }

    fn gap() -> WatchItem {
        WatchItem::Gap { host: host(), at: SystemTime::now() }
    }

    /// Hosts, and the senders of those that were watched so far.
    #[derive(Default)]
    struct Watched {
        watches: HostWatches,
        begun: Vec<mpsc::UnboundedSender<WatchItem>>,
    }

    impl Watched {
        fn events(&mut self) -> Events {
            let begun = &mut self.begun;
            let watch = || {
                let (sender, receiver) = mpsc::unbounded_channel();
                begun.push(sender);
                let next = async |mut receiver: mpsc::UnboundedReceiver<WatchItem>| {
                    Some((receiver.recv().await?, receiver))
                };
                Ok::<_, Infallible>(Box::pin(stream::unfold(receiver, next)) as Events)
            };
            self.watches.events(&host(), watch).unwrap()
        }

        fn send(&self, item: WatchItem) {
            self.begun.last().unwrap().send(item).unwrap();
        }
    }

    async fn next(events: &mut Events) -> &'static str {
        match events.next().await {
            Some(WatchItem::Present { .. }) => "present",
            Some(WatchItem::Gap { .. }) => "gap",
            Some(WatchItem::Missed { .. }) => "missed",
            Some(WatchItem::Removed { .. }) => "removed",
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn targets_of_a_host_share_one_watch_and_all_see_its_gap() {
        let mut watched = Watched::default();
        let mut first = watched.events();
        watched.send(present());
        assert_eq!(next(&mut first).await, "present");
        // One that comes later learns that the host is watched.
        let mut second = watched.events();
        assert_eq!(next(&mut second).await, "present");
        watched.send(gap());
        assert_eq!((next(&mut first).await, next(&mut second).await), ("gap", "gap"));
        let mut third = watched.events();
        assert_eq!(next(&mut third).await, "gap", "one that comes in the gap has to wait for its end");
        assert_eq!(watched.begun.len(), 1);

        drop((first, second));
        assert!(!watched.begun[0].is_closed(), "the watch ended before its last target");
        drop(third);
        watched.begun[0].closed().await;
        let _fourth = watched.events();
        assert_eq!(watched.begun.len(), 2);
    }

    #[tokio::test]
    async fn a_watch_of_which_something_is_missing_is_not_shared_further() {
        for (item, shown) in [
            (WatchItem::Missed { count: 7 }, "missed"),
            (WatchItem::Removed { host: host(), at: SystemTime::now() }, "removed"),
        ] {
            let mut watched = Watched::default();
            let mut first = watched.events();
            watched.send(present());
            watched.send(item);
            assert_eq!((next(&mut first).await, next(&mut first).await), ("present", shown));
            let _second = watched.events();
            assert_eq!(watched.begun.len(), 2, "after {shown}");
        }
    }
}
