//! VMs by selector, from listings that are used again for a while.

mod listed;

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use atp_api::serve::{StaleHost, VmEntry, VmListing};
use atp_api::{ErrorKind, LabelFilter, Outcome, OutcomeError, StateFilter, Status};
use atp_executor::{Selection, Selector};
use atp_settings::parse_duration;
use atp_transport::domain::DomainInfo;
use atp_transport::{ExecuteOptions, HostId, HostInfo};
use axum::extract::State;
use axum::response::Response;
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

pub(crate) use listed::Listed;

use crate::auth::{Caller, may_see_host, may_see_vm};
use crate::body::{Query, answer};
use crate::cache::{Kept, Lacking};
use crate::hosts::unknown;
use crate::problem::Refusal;
use crate::route::{Route, texts};
use crate::state::Service;
use crate::time::rfc3339;

/// How long a request that takes older listings waits for a host that does not answer.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/vms", list)
            .about("The VMs of a selection, as their hosts listed them within the last seconds.")
            .query(
                "selector",
                "VMs, as [HOST/]VM, a glob, HOST/ or @GROUP/; may be repeated. All without one.",
                texts(),
            )
            .query("exclude", "VMs that are left out; may be repeated.", texts())
            .query("state", "Only VMs in this state.", json!({"type": "string", "enum": StateFilter::NAMES}))
            .query(
                "label",
                "Only VMs with this label, as KEY=VALUE; may be repeated, and then all must match.",
                texts(),
            )
            .query(
                "max_age",
                "How old a listing may be, such as 5s; 0s to ask the hosts now.",
                json!({"type": "string"}),
            )
            .query(
                "allow_stale",
                "Whether the VMs of a host that does not answer are those of an earlier listing.",
                json!({"type": "boolean"}),
            )
            .answers::<VmListing>(200),
    ]
}

/// What a request asks for.
struct Asked {
    selection: Selection,
    max_age: Duration,
    allow_stale: bool,
}

impl Asked {
    fn read(mut query: Query, service: &Service) -> Result<Self, Refusal> {
        let parse = |texts: Vec<String>| {
            texts.iter().map(|text| text.parse::<Selector>()).collect::<Result<Vec<_>, _>>()
        };
        let selectors = parse(query.all("selector"))?;
        let exclude = parse(query.all("exclude"))?;
        let states = StateFilter::NAMES.join(", ");
        let state = query.parse("state", &format!("one of {states}"), |text| text.parse().ok())?;
        let labels = query.all("label");
        let labels = labels.iter().map(|text| text.parse::<LabelFilter>());
        let labels =
            labels.collect::<Result<_, _>>().map_err(|error| Refusal::field("label", error.to_string()))?;
        let max_age = query.parse("max_age", "a duration such as 5s", |text| parse_duration(text).ok())?;
        let allow_stale = query.parse("allow_stale", "true or false", |text| text.parse().ok())?;
        query.end()?;
        let all = if selectors.is_empty() { Selection::all() } else { Selection::of(selectors) };
        Ok(Asked {
            selection: Selection { exclude, state: state.unwrap_or_default(), labels, ..all },
            max_age: max_age.unwrap_or(service.config().cache_ttl),
            allow_stale: allow_stale.unwrap_or(false),
        })
    }

    /// The labels that the VMs of the host must have themselves.
    fn own_labels<'a>(&'a self, host: &'a HostInfo) -> impl Iterator<Item = &'a LabelFilter> {
        self.selection.labels.iter().filter(|label| !label.matches(&host.labels))
    }

    fn chooses(&self, host: &HostInfo, domain: &DomainInfo) -> bool {
        let selection = &self.selection;
        let mut selectors = selection.selectors.iter();
        selectors.any(|selector| selector.host().matches(host) && selector.matches_vm(&domain.name))
            && selection.state.matches(domain)
            && !selection.excludes(host, &domain.name)
    }
}

/// The answer of one host.
enum Part {
    Fresh(Vec<VmEntry>, SystemTime),
    Stale(Vec<VmEntry>, StaleHost),
    Away(Box<Outcome>),
}

async fn list(State(service): State<Service>, caller: Caller, query: Query) -> Result<Response, Refusal> {
    let asked = Asked::read(query, &service)?;
    let hosts = service.manager().hosts();
    for selector in &asked.selection.selectors {
        let named = selector.host().ids().iter();
        let may_see =
            |id: &String| hosts.iter().any(|host| host.id == *id && may_see_host(&caller.token, host));
        if let Some(id) = named.into_iter().find(|id| !may_see(id)) {
            return Err(unknown(id));
        }
    }
    let concerned =
        hosts.into_iter().filter(|host| asked.selection.concerns(host) && may_see_host(&caller.token, host));
    let concerned = concerned.filter_map(|host| Some((host.id.parse::<HostId>().ok()?, host)));
    let parts = join_all(concerned.map(|(id, host)| part(&service, &caller, &asked, id, host))).await;
    let mut listing = VmListing { vms: Vec::new(), settled: Vec::new(), stale: Vec::new(), as_of: None };
    let mut oldest = None;
    for part in parts {
        match part {
            Part::Fresh(vms, when) => {
                listing.vms.extend(vms);
                oldest = Some(oldest.map_or(when, |oldest: SystemTime| oldest.min(when)));
            }
            Part::Stale(vms, stale) => {
                listing.vms.extend(vms);
                listing.stale.push(stale);
            }
            Part::Away(outcome) => listing.settled.push(*outcome),
        }
    }
    listing.vms.sort_by(|one, other| (&one.host, &one.vm).cmp(&(&other.host, &other.vm)));
    listing.settled.sort_by(Outcome::report_order);
    listing.stale.sort_by(|one, other| one.host.cmp(&other.host));
    listing.as_of = oldest.map(rfc3339);
    Ok(answer(&listing))
}

async fn part(service: &Service, caller: &Caller, asked: &Asked, id: HostId, host: HostInfo) -> Part {
    let domains = vms_of(service, &id, asked.max_age, asked.allow_stale).await;
    let (domains, mut stale) = match domains {
        Ok(found) => found,
        Err(error) => return Part::Away(Box::new(away(&id, error))),
    };
    let Listed::Vms(listed) = &*domains.value else {
        return Part::Away(Box::new(away(&id, OutcomeError::new(ErrorKind::Unknown, "no list of VMs"))));
    };
    let mut chosen: Vec<&DomainInfo> = listed
        .iter()
        .filter(|domain| asked.chooses(&host, domain) && may_see_vm(&caller.token, &host, &domain.name))
        .collect();
    let mut own = HashMap::new();
    if asked.own_labels(&host).next().is_some() && !chosen.is_empty() {
        let all = listed.iter().map(|domain| domain.uuid).collect();
        let labels = labels_of(service, &id, asked.max_age, asked.allow_stale, all).await;
        let (labels, are_stale) = match labels {
            Ok(found) => found,
            Err(error) => return Part::Away(Box::new(away(&id, error))),
        };
        stale = stale.or(are_stale);
        if let Listed::Labels(labels) = &*labels.value {
            own.clone_from(labels);
        }
        chosen.retain(|domain| {
            let labels = own.get(&domain.uuid);
            asked.own_labels(&host).all(|label| labels.is_some_and(|labels| label.matches(labels)))
        });
    }
    let entry = |domain: &&DomainInfo| {
        let mut labels = own.get(&domain.uuid).cloned().unwrap_or_default();
        // The host's value counts.
        labels.extend(host.labels.clone());
        VmEntry { host: id.clone(), vm: domain.name.clone(), info: (*domain).into(), labels }
    };
    let entries = chosen.iter().map(entry).collect();
    match stale {
        None => Part::Fresh(entries, domains.when),
        Some(reason) => Part::Stale(entries, StaleHost { host: id, since: rfc3339(domains.when), reason }),
    }
}

fn away(id: &HostId, error: OutcomeError) -> Outcome {
    let outcome = Outcome::not_started("vm-list", Status::Unreachable);
    Outcome { host: Some(id.clone()), error: Some(error), ..outcome }
}

/// The VMs of a host, and why they are older than was asked for, if they are.
async fn vms_of(service: &Service, id: &HostId, max_age: Duration, allow_stale: bool) -> Found {
    let (asked, host) = (service.clone(), id.clone());
    let fetch = || async move {
        let options = ExecuteOptions::by(Instant::now() + asked.list_timeout());
        let listed = asked.manager().execute_on_host_with(host.as_str(), options, |connection| async move {
            connection.list_domains().await
        });
        listed.await.map(Listed::Vms).map_err(|error| OutcomeError::from(&error))
    };
    found(
        service,
        allow_stale,
        service.listings().get(&format!("{id}/vms"), max_age, patience(allow_stale), fetch).await,
    )
}

/// The labels of these VMs.
async fn labels_of(
    service: &Service,
    id: &HostId,
    max_age: Duration,
    allow_stale: bool,
    vms: Vec<Uuid>,
) -> Found {
    let (asked, host) = (service.clone(), id.clone());
    let fetch = || async move {
        let options = ExecuteOptions::by(Instant::now() + asked.list_timeout());
        let labels = asked.manager().execute_on_host_with(host.as_str(), options, |connection| async move {
            connection.domain_labels(vms.clone()).await
        });
        labels.await.map(Listed::Labels).map_err(|error| OutcomeError::from(&error))
    };
    found(
        service,
        allow_stale,
        service.listings().get(&format!("{id}/labels"), max_age, patience(allow_stale), fetch).await,
    )
}

type Found = Result<(Kept<Listed>, Option<String>), OutcomeError>;

fn patience(allow_stale: bool) -> Option<Duration> {
    allow_stale.then_some(PATIENCE)
}

fn found(service: &Service, allow_stale: bool, answer: Result<Kept<Listed>, Lacking<Listed>>) -> Found {
    match answer {
        Ok(kept) => Ok((kept, None)),
        Err(Lacking { error, last: Some(last) }) if allow_stale => {
            service.listings().note_stale();
            Ok((last, Some(error.message)))
        }
        Err(Lacking { error, .. }) => Err(error),
    }
}
