//! The events of VMs, hosts and connections, as one stream that can be resumed.
//!
//! A task reads the events of the manager and those of all VMs, and keeps the last of them under numbers. Each client has its
//! place among them and nothing else: one that does not read costs no memory, and is told of a gap when it reads again.

mod kept;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use atp_executor::{Selection, Selector};
use atp_transport::{HostInfo, TransportEvent, WatchItem, WatchOptions};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::stream::{self, Stream};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::auth::{Caller, Token, may_see_host, may_see_vm};
use crate::body::Query;
use crate::problem::Refusal;
use crate::route::{Content, Route, texts};
use crate::sse::{self, Frame, last_event_id};
use crate::state::Service;

use kept::Event;
pub(crate) use kept::Events;

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
    query.end()?;
    let selectors = selectors.iter().map(|text| text.parse::<Selector>()).collect::<Result<Vec<_>, _>>()?;
    watch_all(&service);
    let events = service.events();
    let (next, gap) = match last_event_id(&headers).map(|id| events.number(id)) {
        Some(Some(number)) => (number.saturating_add(1), None),
        Some(None) => (*events.last.borrow() + 1, Some("the service was started anew since")),
        None => (*events.last.borrow() + 1, None),
    };
    let filter = Filter { token: caller.token.clone(), selectors };
    let listener = Listener { service: service.clone(), filter, next, gap, last: events.last.subscribe() };
    sse::respond(&service, &caller, frames(listener))
}

/// What a client wants to hear, and may.
struct Filter {
    token: Arc<Token>,
    selectors: Vec<Selector>,
}

impl Filter {
    fn passes(&self, event: &Event, service: &Service) -> bool {
        // What is said of the whole fleet names its hosts.
        let Some(host) = &event.host else { return event.word == "gap" || self.token.selectors.is_empty() };
        let info = service.manager().pool(host.as_str()).map(|pool| HostInfo::clone(&pool.info()));
        // A host that was removed since has no groups any more.
        let info = info.unwrap_or_else(|_| HostInfo::new(host.as_str(), ""));
        let mut selectors = self.selectors.iter();
        match &event.vm {
            Some(vm) => {
                may_see_vm(&self.token, &info, vm)
                    && (self.selectors.is_empty()
                        || selectors
                            .any(|selector| selector.host().matches(&info) && selector.matches_vm(vm)))
            }
            None => {
                may_see_host(&self.token, &info)
                    && (self.selectors.is_empty() || selectors.any(|selector| selector.host().matches(&info)))
            }
        }
    }
}

struct Listener {
    service: Service,
    filter: Filter,
    /// The number of the next event.
    next: u64,
    /// Why events before it are missing.
    gap: Option<&'static str>,
    last: watch::Receiver<u64>,
}

fn frames(listener: Listener) -> impl Stream<Item = Frame> + Send {
    stream::unfold(listener, |mut listener| async move {
        let frame = listener.next().await?;
        Some((frame, listener))
    })
}

impl Listener {
    async fn next(&mut self) -> Option<Frame> {
        loop {
            let events = self.service.events();
            if let Some(reason) = self.gap.take() {
                let data = json!({"reason": reason}).to_string();
                return Some(Frame { id: Some(events.id(self.next - 1)), event: "gap".to_owned(), data });
            }
            match events.get(self.next) {
                Ok(Some(event)) => {
                    self.next += 1;
                    if self.filter.passes(&event, &self.service) {
                        let id = Some(events.id(event.number));
                        return Some(Frame {
                            id,
                            event: event.word.to_owned(),
                            data: event.data.to_string(),
                        });
                    }
                }
                Ok(None) => {
                    // An id of the future is one that this service did not give.
                    self.next = self.next.min(*self.last.borrow_and_update() + 1);
                    if events.get(self.next).is_ok_and(|event| event.is_some()) {
                        continue;
                    }
                    self.last.changed().await.ok()?;
                }
                Err(first) => {
                    self.next = first;
                    self.gap = Some("the events before are kept no longer");
                }
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
            () = read_vms(&vms) => {}
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

/// Reads the events of the VMs of all hosts, and of those that are added later.
async fn read_vms(service: &Service) {
    loop {
        let watched = ids(service);
        let watch = service.executor().watch(&Selection::all(), &WatchOptions::default());
        let mut look = tokio::time::interval(LOOK);
        let mut changes = service.manager().events();
        let Ok(mut watch) = watch else {
            // There is no host yet.
            look.tick().await;
            tokio::select! { _ = look.tick() => {}, _ = changes.recv() => {} }
            continue;
        };
        loop {
            tokio::select! {
                item = watch.next() => match item {
                    Some(item) => {
                        note(service, item);
                        continue;
                    }
                    None => break,
                },
                _ = look.tick() => {}
                change = changes.recv() => match change.map(|change| change.what.clone()) {
                    Some(
                        TransportEvent::HostAdded | TransportEvent::HostRemoved | TransportEvent::Missed { .. },
                    ) => {}
                    _ => continue,
                },
            }
            // All hosts are watched anew, as a watch is of the hosts there were. What happens meanwhile shows in the
            // lists that each host begins with.
            if ids(service) != watched {
                break;
            }
        }
    }
}

fn ids(service: &Service) -> BTreeSet<String> {
    service.manager().pools().iter().map(|pool| pool.host_id().to_string()).collect()
}

fn note(service: &Service, item: WatchItem) {
    let data = as_json(&item);
    let (host, vm, word) = match item {
        WatchItem::Event { host, event, .. } => (Some(host), Some(event.name), "vm"),
        // Each client lists the VMs by itself, with its own permissions: the list is said to be there, and not sent.
        WatchItem::Present { host, .. } => {
            let data = json!({"item": "watched", "host": host});
            return service.events().add(Some(host), None, "host", data);
        }
        WatchItem::Gap { host, .. } => (Some(host), None, "gap"),
        WatchItem::Unreachable { host, .. } | WatchItem::Removed { host, .. } => (Some(host), None, "host"),
        WatchItem::Missed { .. } => (None, None, "gap"),
        other => (other.host().cloned(), None, "host"),
    };
    service.events().add(host, vm, word, data);
}

fn as_json<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_else(|error| json!({"error": error.to_string()}))
}
