//! What happens to the domains of many hosts, as one stream.
//!
//! Each host has a connection for it that no pool counts, and a task that opens it again when it is lost. After
//! each opening all domains are listed, so that whoever follows a state by events has it right again; what
//! happened in between is not told by libvirt, and a gap says so.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::LibvirtConnector;
use super::domain::{info, is_gone};
use super::domain_events::{Registration, Sink};
use super::link::{Failure, Handles, LibvirtLink};
use crate::connector::CallFailure;
use crate::dedicated::Dedicated;
use crate::domain::{DomainEvent, DomainEventKind, DomainInfo, DomainState};
use crate::error::{ConnectError, ErrorKind, Result, TransportError};
use crate::host::HostId;
use crate::manager::TransportManager;

/// How domains are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchOptions {
    /// Most items kept for a subscriber that does not take them; then the oldest go, and
    /// [`WatchItem::Missed`] tells how many. Default 4096.
    pub buffer: usize,
    /// Whether the events of QEMU's monitors are wanted too. They are many, and their names and contents are
    /// QEMU's own. Default no.
    pub monitor_events: bool,
    /// How long after a connection was opened the domains are listed once more, and told if the list has changed by
    /// more than the events since have told. A daemon that has just started finds out by and by which of its VMs still
    /// run, and tells nobody of those that do not. Default 3 s.
    pub settle: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        WatchOptions { buffer: 4096, monitor_events: false, settle: Duration::from_secs(3) }
    }
}

/// One item of the stream. Those of one host come in the order in which they happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "item", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum WatchItem {
    /// The host is watched, and these are its domains now: the first item of a host, and the first after a gap; a
    /// moment later once more, if that shows states that no event has told of. Events that follow may be in these
    /// states already.
    Present {
        /// The host.
        host: HostId,
        /// When it was learnt, by this machine's clock.
        #[serde(serialize_with = "rfc3339")]
        at: SystemTime,
        /// All of its domains, by name.
        #[serde(serialize_with = "slice")]
        domains: Arc<[DomainInfo]>,
    },
    /// Something happened to a domain.
    Event {
        /// The host.
        host: HostId,
        /// When it was learnt, by this machine's clock.
        #[serde(serialize_with = "rfc3339")]
        at: SystemTime,
        /// What happened.
        #[serde(flatten)]
        event: DomainEvent,
    },
    /// The connection was lost: what happens from here on is not told, until [`Present`](Self::Present).
    Gap {
        /// The host.
        host: HostId,
        /// When it was learnt, by this machine's clock.
        #[serde(serialize_with = "rfc3339")]
        at: SystemTime,
    },
    /// The host cannot be reached. Told once for each reason, not for each attempt; the attempts go on.
    Unreachable {
        /// The host.
        host: HostId,
        /// When it was learnt, by this machine's clock.
        #[serde(serialize_with = "rfc3339")]
        at: SystemTime,
        /// Why.
        #[serde(serialize_with = "reason")]
        error: Arc<ConnectError>,
    },
    /// The host was removed from the manager: nothing more comes of it.
    Removed {
        /// The host.
        host: HostId,
        /// When it was learnt, by this machine's clock.
        #[serde(serialize_with = "rfc3339")]
        at: SystemTime,
    },
    /// This subscriber was too slow, and the oldest items it had not taken are gone.
    Missed {
        /// How many.
        count: u64,
    },
}

impl WatchItem {
    /// The host it is about; none for what is about the subscriber.
    pub fn host(&self) -> Option<&HostId> {
        match self {
            WatchItem::Present { host, .. }
            | WatchItem::Event { host, .. }
            | WatchItem::Gap { host, .. }
            | WatchItem::Unreachable { host, .. }
            | WatchItem::Removed { host, .. } => Some(host),
            WatchItem::Missed { .. } => None,
        }
    }
}

fn rfc3339<S: Serializer>(at: &SystemTime, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*at))
}

fn slice<S: Serializer>(domains: &Arc<[DomainInfo]>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    domains.as_ref().serialize(serializer)
}

fn reason<S: Serializer>(error: &Arc<ConnectError>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Reason<'a> {
        kind: ErrorKind,
        message: &'a str,
    }
    Reason { kind: error.kind, message: &error.reason }.serialize(serializer)
}

impl TransportManager<LibvirtConnector> {
    /// Watches the domains of these hosts. Connections are opened in the background, one to each host.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// ```no_run
    /// use atp_transport::{TransportManager, WatchItem, WatchOptions};
    ///
    /// async fn tell(manager: &TransportManager) -> atp_transport::Result<()> {
    ///     let mut events = manager.watch_domains(&["host1", "host2"], &WatchOptions::default())?;
    ///     while let Some(item) = events.next().await {
    ///         match item {
    ///             WatchItem::Event { host, event, .. } => println!("{host}/{}: {}", event.name, event.kind),
    ///             WatchItem::Gap { host, .. } => println!("{host}: connection lost"),
    ///             other => println!("{other:?}"),
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`TransportError::UnknownHost`].
    pub fn watch_domains<I: AsRef<str>>(&self, hosts: &[I], options: &WatchOptions) -> Result<DomainEvents> {
        let hosts = hosts
            .iter()
            .map(|host| Ok::<_, TransportError>(self.pool(host.as_ref())?.dedicated()))
            .collect::<Result<Vec<_>>>()?;
        let (items, receiver) = broadcast::channel(options.buffer.max(1));
        let watches = hosts.into_iter().map(|host| {
            let watch = Watch { host, items: items.clone(), options: options.clone() };
            AbortOnDropHandle::new(tokio::spawn(watch.run()))
        });
        Ok(DomainEvents { receiver, _watches: watches.collect() })
    }
}

/// The events of many hosts' domains. When the last of its [subscribers](Self::subscribe) is dropped, nothing of
/// it is left.
#[derive(Debug)]
pub struct DomainEvents {
    receiver: broadcast::Receiver<WatchItem>,
    _watches: Arc<[AbortOnDropHandle<()>]>,
}

impl DomainEvents {
    /// The next item; none when all hosts were removed from the manager. A subscriber that does not ask holds up
    /// nobody.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<WatchItem> {
        match self.receiver.recv().await {
            Ok(item) => Some(item),
            Err(RecvError::Lagged(count)) => Some(WatchItem::Missed { count }),
            Err(RecvError::Closed) => None,
        }
    }

    /// Another subscriber, with a buffer of its own: it gets what comes from now on, over the same connections.
    pub fn subscribe(&self) -> DomainEvents {
        DomainEvents { receiver: self.receiver.resubscribe(), _watches: self._watches.clone() }
    }
}

/// The watching of one host.
struct Watch {
    host: Dedicated<LibvirtConnector>,
    items: broadcast::Sender<WatchItem>,
    options: WatchOptions,
}

impl Watch {
    async fn run(self) {
        tokio::select! {
            biased;
            () = self.host.removed() => {}
            () = self.keep_watching() => {}
        }
        self.tell(WatchItem::Removed { host: self.host.host().clone(), at: SystemTime::now() });
    }

    async fn keep_watching(&self) {
        let mut again = false;
        let mut told = None;
        loop {
            match self.host.open(again).await {
                Ok(link) => {
                    let opened = Instant::now();
                    again = true;
                    match self.watch(&link, &mut told).await {
                        Ok(()) => told = None,
                        Err(error) => {
                            tracing::warn!(host = %self.host.host(), %error, "cannot watch domains");
                            self.unreachable(&Arc::new(error), &mut told);
                        }
                    }
                    drop(link);
                    self.host.note_loss(opened);
                }
                Err(error) => self.unreachable(&error, &mut told),
            }
        }
    }

    fn unreachable(&self, error: &Arc<ConnectError>, told: &mut Option<ErrorKind>) {
        if told.replace(error.kind) != Some(error.kind) {
            let (host, at) = (self.host.host().clone(), SystemTime::now());
            self.tell(WatchItem::Unreachable { host, at, error: error.clone() });
        }
    }

    /// Watches over one connection until that is lost.
    async fn watch(
        &self,
        link: &Arc<LibvirtLink>,
        told: &mut Option<ErrorKind>,
    ) -> std::result::Result<(), ConnectError> {
        let feed = Arc::new(Feed {
            host: self.host.host().clone(),
            items: self.items.clone(),
            capacity: self.options.buffer.max(1),
            gate: Mutex::new(Gate { state: State::held(), changed: Some(HashSet::new()) }),
        });
        let (sink, monitor) = (feed.clone(), self.options.monitor_events);
        let domains = self
            .ask(link, told, move |on| {
                let sink: Arc<dyn Sink> = sink;
                let registration = Registration::ask(&on.connect, &sink, monitor)?;
                // It is the first and only one on this connection.
                let _one = on.events.set(registration);
                Ok(list(on)?)
            })
            .await?;
        feed.open(domains.clone());
        let _closes = Closes(&feed);
        let settle = async {
            sleep(self.options.settle).await;
            feed.hold();
            let now = self.ask(link, told, |on| Ok(list(on)?)).await?;
            feed.open_settled(&domains, now);
            std::future::pending::<()>().await;
            Ok(())
        };
        tokio::select! {
            () = self.host.lost(link) => Ok(()),
            failed = settle => failed,
        }
    }

    /// Makes a blocking call on the connection. One that is not answered in time is told of, and waited for.
    async fn ask<T: Send + 'static>(
        &self,
        link: &Arc<LibvirtLink>,
        told: &mut Option<ErrorKind>,
        call: impl FnOnce(&Handles) -> std::result::Result<T, Failure> + Send + 'static,
    ) -> std::result::Result<T, ConnectError> {
        let deadline = Instant::now() + self.host.config().call_timeout;
        let mut call = std::pin::pin!(link.clone().start(None, call));
        match timeout_at(deadline, &mut call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(CallFailure::Refused { source, .. })) => {
                let reason = "the daemon does not tell what happens to its domains".to_owned();
                Err(ConnectError { kind: ErrorKind::ConnectFailed, reason, source: Some(source) })
            }
            Ok(Err(failure)) => {
                let reason = format!("the connection broke while events were asked for ({failure:?})");
                Err(ConnectError::new(ErrorKind::ConnectFailed, reason))
            }
            Err(_) => {
                let reason = "the daemon does not answer when asked for events";
                let silent = ConnectError::new(ErrorKind::ConnectTimeout, reason);
                self.unreachable(&Arc::new(silent.clone()), told);
                // It holds a thread and the connection, and cannot be stopped, so no other is begun beside it. It
                // returns when the daemon answers, or the link is lost.
                let _late = call.await;
                Err(silent)
            }
        }
    }

    fn tell(&self, item: WatchItem) {
        // Fails when nobody listens at the moment.
        let _unheard = self.items.send(item);
    }
}

/// Ends a feed: what its connection may still bring belongs behind the gap.
struct Closes<'a>(&'a Feed);

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The way of one connection's events to the subscribers.
struct Feed {
    host: HostId,
    items: broadcast::Sender<WatchItem>,
    capacity: usize,
    gate: Mutex<Gate>,
}

struct Gate {
    state: State,
    /// The domains whose states were told of by events, until the domains have been listed for the second time.
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
    /// Lets no events pass until the domains have been listed.
    fn hold(&self) {
        self.gate().state = State::held();
    }

    /// Tells what was listed, and then the events that came meanwhile.
    fn open(&self, domains: Vec<DomainInfo>) {
        self.release(&mut self.gate(), Some(domains));
    }

    /// The same for the second listing, which is told only if events do not say all that it says.
    fn open_settled(&self, before: &[DomainInfo], now: Vec<DomainInfo>) {
        let mut gate = self.gate();
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

    fn close(&self) {
        let (host, at) = (self.host.clone(), SystemTime::now());
        self.gate().state = State::Closed;
        let _unheard = self.items.send(WatchItem::Gap { host, at });
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        // Nothing under this lock can panic half-way, so a poisoned one still guards sound data.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Feed {
    fn take(&self, event: DomainEvent) {
        let (uuid, is_change) = (event.uuid, matches!(event.kind, DomainEventKind::Lifecycle { .. }));
        let item = WatchItem::Event { host: self.host.clone(), at: SystemTime::now(), event };
        let mut gate = self.gate();
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

/// What of a listing is worth telling when it changes, but for the domains of which events told.
fn states(domains: &[DomainInfo], told: &HashSet<Uuid>) -> BTreeMap<Uuid, DomainState> {
    let untold = domains.iter().filter(|domain| !told.contains(&domain.uuid));
    untold.map(|domain| (domain.uuid, domain.state)).collect()
}

fn list(on: &Handles) -> std::result::Result<Vec<DomainInfo>, virt::error::Error> {
    let mut domains = Vec::new();
    for domain in on.connect.list_all_domains(0)? {
        match info(&domain) {
            Ok(info) => domains.push(info),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    domains.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(domains)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::LifecycleChange;

    fn domain(n: u128, state: DomainState) -> DomainInfo {
        DomainInfo {
            name: format!("vm{n}"),
            uuid: Uuid::from_u128(n),
            id: None,
            state,
            vcpus: None,
            memory_kib: None,
            max_memory_kib: None,
        }
    }

    fn stopped(n: u128) -> DomainEvent {
        let kind = DomainEventKind::Lifecycle { change: LifecycleChange::Stopped, detail: "destroyed" };
        DomainEvent { name: format!("vm{n}"), uuid: Uuid::from_u128(n), kind }
    }

    /// What is told of a host whose two domains run first and are in these states when they are listed again; of the
    /// first of them comes an event, before the second listing or during it.
    fn told(states: [DomainState; 2], is_during: bool) -> Vec<&'static str> {
        let (items, mut receiver) = broadcast::channel(16);
        let feed = Feed {
            host: "h1".parse().unwrap(),
            items,
            capacity: 16,
            gate: Mutex::new(Gate { state: State::held(), changed: Some(HashSet::new()) }),
        };
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
        let mut told = Vec::new();
        while let Ok(item) = receiver.try_recv() {
            told.push(match item {
                WatchItem::Present { .. } => "present",
                WatchItem::Event { .. } => "event",
                other => panic!("{other:?}"),
            });
        }
        told
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
