//! Reservations of VMs: who uses which VM until when. The store makes them, so that two jobs never get one VM.

use std::collections::HashMap;
use std::time::Duration;

use atp_api::serve::{ReleaseRequest, Reservation, ReserveAnswer, ReserveRequest, Role};
use atp_api::{ErrorKind, canonical_json};
use atp_executor::{Selection, Selector, has_copies};
use atp_protocol::files::Digest;
use atp_transport::HostInfo;
use axum::extract::State;
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::auth::{Access, Caller, may_see_vm, permit_other};
use crate::body::{Json, Query, answer, idempotency_key};
use crate::problem::Refusal;
use crate::route::{Route, texts};
use crate::state::Service;
use crate::store::{Change, NewReservations, StoreError};
use crate::time::millis;
use crate::vms::{Asked, Chosen, choose};

/// The verb that permissions are given by.
const VERB: &str = "reserve";

/// The most characters of an owner's name.
const MAX_OWNER: usize = 256;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/reservations", list)
            .about("The VMs that are reserved: by whom, and until when.")
            .query("owner", "Only those of these owners; may be repeated.", texts())
            .answers::<Vec<Reservation>>(200),
        Route::new(Method::POST, "/api/v1/reservations", Access::Change, reserve)
            .about(
                "Reserves the first of the selected VMs that are free, or none if too few are. Nobody else gets them by this \
                 way until their time ends or they are released.",
            )
            .header(
                "Idempotency-Key",
                "Names the request, at most 256 characters: sent again while its VMs are reserved, it is answered with them.",
            )
            .takes::<ReserveRequest>()
            .answers::<ReserveAnswer>(200),
        Route::new(Method::POST, "/api/v1/reservations/release", Access::Change, release)
            .about("Ends reservations of an owner that this token made; an admin may end those of all. Answers what was ended.")
            .takes::<ReleaseRequest>()
            .answers::<Vec<Reservation>>(200),
    ]
}

async fn list(State(service): State<Service>, caller: Caller, mut query: Query) -> Result<Response, Refusal> {
    let owners = query.all("owner");
    query.end()?;
    let now = now(&service).await?;
    let mut all = service.store().reservations(now).await?;
    let hosts = Hosts::of(&service);
    all.retain(|one| {
        (owners.is_empty() || owners.contains(&one.owner))
            && may_see_vm(&caller.token, &hosts.info(one), &one.vm)
    });
    Ok(answer(&all))
}

async fn reserve(
    State(service): State<Service>,
    caller: Caller,
    headers: HeaderMap,
    Json(request): Json<ReserveRequest>,
) -> Result<Response, Refusal> {
    permit_other(&caller.token, Role::Operator, VERB)?;
    service.limits().start(&caller.token)?;
    let key = match idempotency_key(&headers)? {
        Some(key) => key,
        None => random_key()?,
    };
    check_owner(&request.owner)?;
    if request.count == 0 {
        return Err(Refusal::field("count", "is 0"));
    }
    if request.time.is_zero() {
        return Err(Refusal::field("for_ms", "leaves no time"));
    }
    let selection = Selection::try_from(&request.targets)?;
    if selection.selectors.is_empty() {
        return Err(Refusal::field("targets.selectors", "names no target"));
    }
    let asked = Asked { selection, max_age: service.config().cache_ttl, allow_stale: false };
    let (chosen, settled) = choose(&service, &caller, &asked).await?;
    let now = now(&service).await?;
    let until_ms = end(now, request.time);
    let candidate = |chosen: &Chosen| {
        let id = chosen.id().clone();
        let is_copy = has_copies(service.manager(), &id);
        let new = |domain: &atp_transport::domain::DomainInfo| Reservation {
            host: id.clone(),
            vm: domain.name.clone(),
            uuid: domain.uuid,
            is_copy,
            owner: request.owner.clone(),
            until_ms,
        };
        chosen.vms().map(new).collect::<Vec<_>>()
    };
    let candidates: Vec<_> = chosen.iter().flat_map(candidate).collect();
    let details = json!({"owner": request.owner, "count": request.count});
    service.audit().record(&caller, "reserve", details).await?;
    let selected = candidates.len() as u64;
    let by = caller.token.name.clone();
    let new = NewReservations {
        candidates,
        count: usize::try_from(request.count).unwrap_or(usize::MAX),
        by: by.clone(),
        key: key.clone(),
        body: hash(&request),
        now,
    };
    // A client that leaves may send its request again with its key.
    let store = service.store().clone();
    let changing = service.tasks().spawn(async move { store.change(Change::Reserve(Box::new(new))).await });
    let changed = changing.await.map_err(|_| Refusal::new(ErrorKind::Panicked, "the reservation failed"))?;
    let (reservations, free) = match changed {
        Ok(_) => {
            let reservations = service.store().reservations_by(&by, &key).await?;
            let free = reservations.len() as u64;
            (reservations, free)
        }
        Err(StoreError::TooFewFree { free }) => (Vec::new(), free as u64),
        Err(StoreError::OtherReservation) => {
            let refusal = Refusal::new(ErrorKind::Conflict, "the key was sent with another request");
            return Err(refusal.with_hint("use another key for another request"));
        }
        Err(error) => return Err(error.into()),
    };
    Ok(answer(&ReserveAnswer { reservations, free, selected, settled }))
}

async fn release(
    State(service): State<Service>,
    caller: Caller,
    Json(request): Json<ReleaseRequest>,
) -> Result<Response, Refusal> {
    permit_other(&caller.token, Role::Operator, VERB)?;
    service.limits().start(&caller.token)?;
    check_owner(&request.owner)?;
    let selectors = request.selectors.iter().map(|text| text.parse::<Selector>());
    let selectors = selectors.collect::<Result<Vec<_>, _>>()?;
    let is_all = selectors.is_empty();
    let selection = if is_all { Selection::all() } else { Selection::of(selectors) };
    let by = (caller.token.role < Role::Admin).then(|| caller.token.name.clone());
    let store = service.store().clone();
    let now = now(&service).await?;
    let mut released = store.reservations_of(&request.owner, by.as_deref(), now).await?;
    let hosts = Hosts::of(&service);
    released.retain(|one| {
        let host = hosts.info(one);
        (is_all || selection.includes(&host, &one.vm)) && may_see_vm(&caller.token, &host, &one.vm)
    });
    if !released.is_empty() {
        let details = json!({"owner": request.owner, "count": released.len()});
        service.audit().record(&caller, "release", details).await?;
        let vms = released.iter().map(|one| (one.uuid, one.host.clone())).collect();
        store.change(Change::Release { vms, owner: request.owner, by }).await?;
    }
    Ok(answer(&released))
}

/// The time by which reservations end.
async fn now(service: &Service) -> Result<i64, StoreError> {
    service.store().now(millis(service.clock().steady())).await
}

/// The hosts by id; one that is no longer there has its id and nothing else.
struct Hosts(HashMap<String, HostInfo>);

impl Hosts {
    fn of(service: &Service) -> Self {
        Hosts(service.manager().hosts().into_iter().map(|host| (host.id.clone(), host)).collect())
    }

    fn info(&self, reservation: &Reservation) -> HostInfo {
        let id = reservation.host.as_str();
        self.0.get(id).cloned().unwrap_or_else(|| HostInfo::new(id, id))
    }
}

/// A key that no other request has.
fn random_key() -> Result<String, Refusal> {
    let mut bytes = [0; 16];
    let filled = getrandom::fill(&mut bytes);
    filled.map_err(|error| {
        Refusal::new(ErrorKind::Unknown, format!("the system has no random numbers: {error}"))
    })?;
    Ok(Uuid::from_bytes(bytes).to_string())
}

fn check_owner(owner: &str) -> Result<(), Refusal> {
    match owner.chars().count() {
        1..=MAX_OWNER => Ok(()),
        _ => Err(Refusal::field("owner", format!("expected 1 to {MAX_OWNER} characters"))),
    }
}

/// The end of a time from now. The store's numbers end far beyond any date.
fn end(now: i64, time: Duration) -> u64 {
    let most = u64::try_from(i64::MAX).unwrap_or(u64::MAX);
    let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    u64::try_from(now).unwrap_or_default().saturating_add(time).min(most)
}

/// Identifies a request without repeating it.
fn hash(request: &impl Serialize) -> String {
    let json = canonical_json(&serde_json::to_value(request).unwrap_or_default());
    Digest::of(json.as_bytes()).to_string()
}
