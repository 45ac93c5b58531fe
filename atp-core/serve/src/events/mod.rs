//! The events of VMs, hosts and connections, as one stream that can be resumed.
//!
//! A task reads the events of the manager and those of all VMs, and keeps the last of them under numbers. Each client has its
//! place among them and nothing else: one that does not read costs no memory, and is told of a gap when it reads again.

mod kept;
mod monitors;
mod watching;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use atp_executor::{HostSelector, Selection, Selector};
use atp_transport::{ConnectionPool, HostId, HostInfo, TransportEvent, WatchItem, WatchOptions};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::stream::{self, SelectAll, Stream};
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::auth::{Caller, Token, may_see_host, may_see_vm};
use crate::body::Query;
use crate::problem::Refusal;
use crate::route::{Content, Route, texts};
use crate::sse::{self, Frame, last_event_id};
use crate::state::Service;

pub(crate) use kept::Events;
use kept::{Event, Watched};
use watching::Watching;

/// The item that stands for the list of a host's VMs: clients list them, each with its own permissions.
const WATCHED: &str = "watched";

/// How often the task looks whether hosts were added. The manager's event comes too; this is for the case that it was lost.
const LOOK: Duration = Duration::from_secs(30);

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/events", listen)
            .about(
                "What happens to VMs, hosts and connections from now on, as server-sent events: `vm`, `host`, `transport`, and \
                 `gap` where events are missing.",
            )
            .query("selector", "Only about these VMs and their hosts; may be repeated. All without one.", texts())
            .query(
                "watch",
                "Only what happens to VMs, with what is needed to follow their states: `begun` comes first, and `present` and \
                 `host` bring the VMs of a host when it begins to be watched.",
                json!({"type": "boolean"}),
            )
            .query("qemu", "Also the events of QEMU's monitors, as `qemu`.", json!({"type": "boolean"}))
            .header("Last-Event-ID", "Resume after this event.")
            .answers_with(200, Some(Content::of(sse::CONTENT_TYPE))),
    ]
}

async fn listen(
    State(service): State<Service>,
    caller: Caller,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Response, Refusal> {
    let selectors = query.all("selector");
    let watch = query.parse("watch", "true or false", |text| text.parse().ok())?;
    let qemu = query.parse("qemu", "true or false", |text| text.parse().ok())?;
    query.end()?;
    let selectors = selectors.iter().map(|text| text.parse::<Selector>()).collect::<Result<Vec<_>, _>>()?;
    watch_all(&service);
    let events = service.events();
    let (next, gap) = match last_event_id(&headers).map(|id| events.number(id)) {
        Some(Some(number)) => (number.saturating_add(1), None),
        Some(None) => (*events.last.borrow() + 1, Some("the service was started anew since")),
        None => (*events.last.borrow() + 1, None),
    };
    let monitors = qemu.unwrap_or(false).then(|| monitors::shared(&service));
    let watching = watch.unwrap_or(false).then(Watching::default);
    let begun = watching.is_some();
    let filter = Filter { token: caller.token.clone(), selectors, qemu: monitors.is_some() };
    let last = events.last.subscribe();
    let mut listener =
        Listener { service: service.clone(), filter, next, gap, last, begun, watching, _monitors: monitors };
    listener.tell_watched();
    let until = service.stopping().clone();
    sse::respond(&service, &caller, until, frames(listener))
}

/// What a client wants to hear, and may.
#[derive(Clone)]
struct Filter {
    token: Arc<Token>,
    selectors: Vec<Selector>,
    /// Whether the events of monitors are wanted.
    qemu: bool,
}

impl Filter {
    fn passes(&self, event: &Event, service: &Service) -> bool {
        if event.word == "qemu" && !self.qemu {
            return false;
        }
        // What is said of the whole fleet names its hosts.
        let Some(host) = &event.host else { return event.word == "gap" || self.token.selectors.is_empty() };
        let info = info_of(service, host);
        match &event.vm {
            Some(vm) => self.passes_vm(&info, vm),
            None => self.passes_host(&info),
        }
    }

    fn passes_vm(&self, host: &HostInfo, vm: &str) -> bool {
        let mut selectors = self.selectors.iter();
        may_see_vm(&self.token, host, vm)
            && (self.selectors.is_empty()
                || selectors.any(|selector| selector.host().matches(host) && selector.matches_vm(vm)))
    }

    fn passes_host(&self, host: &HostInfo) -> bool {
        let mut selectors = self.selectors.iter();
        may_see_host(&self.token, host)
            && (self.selectors.is_empty() || selectors.any(|selector| selector.host().matches(host)))
    }
}

fn info_of(service: &Service, host: &HostId) -> HostInfo {
    let info = service.manager().pool(host.as_str()).map(|pool| HostInfo::clone(&pool.info()));
    // A host that was removed since has no groups any more.
    info.unwrap_or_else(|_| HostInfo::new(host.as_str(), ""))
}

struct Listener {
    service: Service,
    filter: Filter,
    /// The number of the next event.
    next: u64,
    /// Why events before it are missing.
    gap: Option<&'static str>,
    last: watch::Receiver<u64>,
    /// Whether to say that the stream begins, and from which event on it can be resumed.
    begun: bool,
    /// What is told to those that follow the states of VMs.
    watching: Option<Watching>,
    /// Held for as long as the events of monitors are wanted.
    _monitors: Option<Arc<AbortOnDropHandle<()>>>,
}

fn frames(listener: Listener) -> impl Stream<Item = Frame> + Send {
    stream::unfold(listener, |mut listener| async move {
        let frame = listener.next().await?;
        Some((frame, listener))
    })
}

impl Listener {
    async fn next(&mut self) -> Option<Frame> {
        if std::mem::take(&mut self.begun) {
            let id = Some(self.service.events().id(self.next - 1));
            return Some(Frame { id, event: "begun".to_owned(), data: "{}".to_owned() });
        }
        loop {
            if let Some(reason) = self.gap.take() {
                self.tell_watched();
                let data = json!({"reason": reason}).to_string();
                let id = Some(self.service.events().id(self.next - 1));
                return Some(Frame { id, event: "gap".to_owned(), data });
            }
            if let Some(frame) = self.watching.as_mut().and_then(|watching| watching.next().now_or_never()) {
                return Some(frame);
            }
            match self.service.events().get(self.next) {
                Ok(Some(event)) => {
                    self.next += 1;
                    if self.filter.passes(&event, &self.service)
                        && let Some(frame) = self.frame(&event)
                    {
                        return Some(frame);
                    }
                }
                Ok(None) => {
                    // An id of the future is one that this service did not give.
                    self.next = self.next.min(*self.last.borrow_and_update() + 1);
                    if self.service.events().get(self.next).is_ok_and(|event| event.is_some()) {
                        continue;
                    }
                    let listed = async {
                        match &mut self.watching {
                            Some(watching) => watching.next().await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        changed = self.last.changed() => changed.ok()?,
                        frame = listed => return Some(frame),
                    }
                }
                Err(first) => {
                    self.next = first;
                    self.gap = Some("the events before are kept no longer");
                }
            }
        }
    }

    /// An event as it is sent; none if it is of no use to this client.
    fn frame(&mut self, event: &Event) -> Option<Frame> {
        let id = Some(self.service.events().id(event.number));
        if let Some(watching) = &mut self.watching {
            let item = event.data.get("item")?;
            if item == WATCHED
                && let Some(host) = &event.host
            {
                watching.list(&self.service, &self.filter, host, "host");
                return None;
            }
        }
        Some(Frame { id, event: event.word.to_owned(), data: event.data.to_string() })
    }

    /// Tells a client that follows states which hosts are watched, and the VMs that they have now. Later events change that.
    fn tell_watched(&mut self) {
        let Some(watching) = &mut self.watching else { return };
        for (host, watched) in self.service.events().watched() {
            match watched {
                Watched::Yes => watching.list(&self.service, &self.filter, &host, "present"),
                Watched::No(event) if self.filter.passes(&event, &self.service) => {
                    watching.tell(event.data.to_string());
                }
                Watched::No(_) => {}
            }
        }
    }
}

/// Begins to read events, once: with the first client that listens. The connections for the events of VMs stay then.
fn watch_all(service: &Service) {
    if service.events().is_watching.swap(true, Ordering::AcqRel) {
        return;
    }
    // Not one of the tasks whose end is waited for: it has nothing to finish.
    let transport = service.clone();
    tokio::spawn(async move {
        let stopping = transport.stopping().clone();
        tokio::select! {
            () = stopping.cancelled() => {}
            () = read_transport(&transport) => {}
        }
    });
    let vms = service.clone();
    tokio::spawn(async move {
        let stopping = vms.stopping().clone();
        tokio::select! {
            () = stopping.cancelled() => {}
            () = read_vms(&vms, WatchOptions::default(), note) => {}
        }
    });
}

async fn read_transport(service: &Service) {
    let mut stream = service.manager().events();
    while let Some(event) = stream.recv().await {
        let data = as_json(&*event);
        let word = match &event.what {
            TransportEvent::Missed { .. } => "gap",
            TransportEvent::HealthChanged { .. }
            | TransportEvent::HostAdded
            | TransportEvent::HostRemoved => "host",
            _ => "transport",
        };
        service.events().add(event.host.clone(), None, word, data);
    }
}

/// Reads the events of the VMs of all hosts, and of those that are added later, also in place of one that was removed.
async fn read_vms(service: &Service, options: WatchOptions, note: fn(&Service, WatchItem)) {
    let mut look = tokio::time::interval(LOOK);
    let mut changes = service.manager().events();
    let mut watched = HashMap::new();
    let mut watches = SelectAll::new();
    loop {
        // Hosts that are watched already lose no event while others are added.
        let added = unwatched(&mut watched, service.manager().pools(), |pool| pool.host_id());
        if !added.is_empty() {
            let selection = Selection::hosts(added.iter().map(|pool| HostSelector::of(pool.host_id())));
            // Fails only if a host was removed meanwhile: the next look is without it.
            if let Ok(watch) = service.executor().watch(&selection, &options) {
                let is_there = |pool: &Arc<ConnectionPool<_>>| {
                    let now = service.manager().pool(pool.host_id().as_str());
                    now.is_ok_and(|now| Arc::ptr_eq(&now, pool))
                };
                // Otherwise it may be another one that is watched now.
                if !added.iter().all(is_there) {
                    continue;
                }
                watched.extend(added.iter().map(|pool| (pool.host_id().clone(), Arc::downgrade(pool))));
                let items = stream::unfold(watch, async |mut watch| Some((watch.next().await?, watch)));
                watches.push(items.boxed());
            }
        }
        loop {
            tokio::select! {
                Some(item) = watches.next() => {
                    // One of this id may have been added in its place.
                    let was_removed = matches!(&item, WatchItem::Removed { .. });
                    note(service, item);
                    if was_removed {
                        break;
                    }
                }
                _ = look.tick() => break,
                change = changes.recv() => match change.map(|change| change.what.clone()) {
                    Some(TransportEvent::HostAdded | TransportEvent::Missed { .. }) => break,
                    Some(_) => {}
                    None => return,
                },
            }
        }
    }
}

/// The hosts that are not watched, also in place of a removed one whose end was lost. Those that are gone are forgotten.
fn unwatched<P>(
    watched: &mut HashMap<HostId, Weak<P>>,
    mut pools: Vec<Arc<P>>,
    id: impl Fn(&P) -> &HostId,
) -> Vec<Arc<P>> {
    watched.retain(|_, pool| pool.strong_count() > 0);
    pools.retain(|pool| watched.get(id(pool)).is_none_or(|one| one.as_ptr() != Arc::as_ptr(pool)));
    pools
}

fn note(service: &Service, item: WatchItem) {
    let data = as_json(&item);
    let events = service.events();
    match item {
        WatchItem::Event { host, event, .. } => events.add(Some(host), Some(event.name), "vm", data),
        WatchItem::Present { host, .. } => {
            let data = json!({"item": WATCHED, "host": host});
            events.add_watched(host, "host", data, true);
        }
        WatchItem::Gap { host, .. } => events.add_watched(host, "gap", data, false),
        WatchItem::Unreachable { host, .. } => events.add_watched(host, "host", data, false),
        WatchItem::Removed { host, .. } => events.add_removed(host, "host", data),
        WatchItem::Missed { .. } => events.add(None, None, "gap", data),
        other => events.add(other.host().cloned(), None, "host", data),
    }
}

fn as_json<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_else(|error| json!({"error": error.to_string()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_in_the_place_of_one_whose_end_was_lost_is_watched() {
        let pool = |id: &str| Arc::new(id.parse::<HostId>().unwrap());
        let (first, second, other) = (pool("h1"), pool("h1"), pool("h2"));
        let mut watched = HashMap::new();
        let mut look = |pools: &[&Arc<HostId>]| {
            let pools = pools.iter().map(|pool| Arc::clone(pool)).collect();
            let added = unwatched(&mut watched, pools, |id| id);
            watched.extend(added.iter().map(|pool| (HostId::clone(pool), Arc::downgrade(pool))));
            added.iter().map(Arc::as_ptr).collect::<Vec<_>>()
        };
        assert_eq!(look(&[&first, &other]), [Arc::as_ptr(&first), Arc::as_ptr(&other)]);
        assert!(look(&[&first, &other]).is_empty());
        assert_eq!(look(&[&second, &other]), [Arc::as_ptr(&second)]);
        assert!(look(&[&second, &other]).is_empty());
    }
}
