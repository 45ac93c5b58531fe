//! What VMs use: processor, memory, disks, network.
//!
//! Each host has a sampler, which is kept from one request to the next: rates are over the time between the two samples. What a host
//! answered is used again like a listing, and requests at the same time ask it once. A VM or host that does not answer is stale,
//! and is waited for once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use atp_api::serve::Role;
use atp_api::{ErrorKind, HostStatistics, OutcomeError, StatisticsRound, VmStatistics};
use atp_executor::{Executor, SampleOptions, Sampler, Selection, Selector};
use atp_settings::parse_duration;
use atp_transport::domain::DomainInfo;
use atp_transport::{HostId, HostInfo};
use axum::extract::State;
use axum::response::Response;
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use crate::auth::{Caller, may_see_vm, permit_other};
use crate::body::{Query, answer};
use crate::cache::Lacking;
use crate::problem::Refusal;
use crate::route::Route;
use crate::state::Service;
use crate::vms::{Asked, choose, chooses, concerned, narrowed, read_selection};

/// The verb that permissions are given by.
const VERB: &str = "stats";

/// A host is not asked more often than this: rates over less time would say nothing.
const LEAST_AGE: Duration = Duration::from_millis(250);

/// How long a VM or a host is waited for that answered before.
const PATIENCE: Duration = Duration::from_secs(1);

/// Rates over more time than this would be taken for those of now: the host is sampled from the beginning.
const IDLE: Duration = Duration::from_secs(60);

pub(crate) fn routes() -> Vec<Route> {
    vec![
        narrowed(Route::get("/api/v1/statistics", show))
            .about(
                "What VMs use: processor, memory, disks, network. Rates are over the time since the host was asked before, and are \
                 missing if that was long ago. A VM or host that does not answer is stale, and delays the others by a second once.",
            )
            .query("max_age", "How old the values may be, such as 5s.", json!({"type": "string"}))
            .answers::<StatisticsRound>(200),
    ]
}

async fn show(State(service): State<Service>, caller: Caller, mut query: Query) -> Result<Response, Refusal> {
    permit_other(&caller.token, Role::Viewer, VERB)?;
    let selection = read_selection(&mut query)?;
    let max_age = query.parse("max_age", "a duration such as 5s", |text| parse_duration(text).ok())?;
    query.end()?;
    let max_age = max_age.unwrap_or(service.config().cache_ttl);
    let hosts = concerned(&service, &caller, &selection)?;
    // Which labels a VM has itself is known from a listing.
    let labelled: Option<HashSet<Uuid>> = match selection.labels.is_empty() {
        true => None,
        false => {
            let asked = Asked {
                selection: selection.clone(),
                max_age: service.config().cache_ttl,
                allow_stale: true,
            };
            let (chosen, _) = choose(&service, &caller, &asked).await?;
            Some(chosen.iter().flat_map(|chosen| chosen.vms().map(|vm| vm.uuid)).collect())
        }
    };
    let rounds = join_all(hosts.iter().map(|(id, _)| round_of(&service, id, max_age))).await;
    let mut all = StatisticsRound { at_ms: 0, took_ms: 0, hosts: Vec::new(), vms: Vec::new() };
    for ((_, host), round) in hosts.iter().zip(rounds) {
        let is_chosen = |vm: &&VmStatistics| {
            let state =
                DomainInfo { reason: vm.reason, ..DomainInfo::new(vm.vm.as_str(), vm.uuid, vm.state) };
            chooses(&selection, host, &state)
                && may_see_vm(&caller.token, host, &vm.vm)
                && labelled.as_ref().is_none_or(|vms| vms.contains(&vm.uuid))
        };
        all.vms.extend(round.vms.iter().filter(is_chosen).cloned());
        all.hosts.extend(round.hosts.iter().cloned());
        (all.at_ms, all.took_ms) = (all.at_ms.max(round.at_ms), all.took_ms.max(round.took_ms));
    }
    Ok(answer(&all))
}

/// The statistics of all hosts, for metrics: those of VMs that `is_shown` accepts.
pub(crate) async fn of_all(
    service: &Service,
    is_shown: impl Fn(&HostInfo, &VmStatistics) -> bool,
) -> Vec<VmStatistics> {
    let max_age = service.config().cache_ttl;
    let hosts = service.manager().hosts();
    let hosts: Vec<_> =
        hosts.into_iter().filter_map(|host| Some((host.id.parse::<HostId>().ok()?, host))).collect();
    let rounds = join_all(hosts.iter().map(|(id, _)| round_of(service, id, max_age))).await;
    let mut all = Vec::new();
    for ((_, host), round) in hosts.iter().zip(rounds) {
        all.extend(round.vms.iter().filter(|vm| is_shown(host, vm)).cloned());
    }
    all.sort_by(|one, other| (&one.host, &one.vm).cmp(&(&other.host, &other.vm)));
    all
}

/// The values of a host, at most so old.
async fn round_of(service: &Service, id: &HostId, max_age: Duration) -> Arc<StatisticsRound> {
    let samplers = service.samplers();
    let held = samplers.sampler(service.manager(), id);
    let (executor, host) = (service.executor().clone(), id.clone());
    let fetch = || async move {
        let mut held = held.lock().await;
        let kept = held.take().filter(|(_, used)| used.elapsed() < IDLE);
        let mut sampler = match kept {
            Some((sampler, _)) => sampler,
            None => sampler_of(&executor, &host)?,
        };
        let round = sampler.next().await;
        *held = Some((sampler, Instant::now()));
        Ok(round)
    };
    match samplers.rounds.get(id.as_str(), max_age.max(LEAST_AGE), None, fetch).await {
        Ok(kept) => kept.value,
        // The host was removed, or the sampler has panicked.
        Err(Lacking { error, .. }) => {
            let stale = Some(atp_api::Staleness { for_ms: None, error });
            let host = HostStatistics { host: id.clone(), stale };
            Arc::new(StatisticsRound { at_ms: 0, took_ms: 0, hosts: vec![host], vms: Vec::new() })
        }
    }
}

fn sampler_of(executor: &Executor, host: &HostId) -> Result<Sampler, OutcomeError> {
    let selector = format!("{host}/").parse::<Selector>();
    let selector =
        selector.map_err(|error| OutcomeError::new(ErrorKind::InvalidSelector, error.to_string()))?;
    // The requests say when the next sample is due.
    let options =
        SampleOptions { interval: Duration::ZERO, patience: Some(PATIENCE), ..SampleOptions::default() };
    let sampler = executor.sample(&Selection::of([selector]), options);
    sampler.map_err(|error| OutcomeError::new(error.kind(), error.to_string()))
}
