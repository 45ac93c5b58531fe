//! The VMs of a selection, from listings that are used again for a while.

use std::time::{Duration, SystemTime};

use atp_api::serve::{StaleHost, VmEntry};
use atp_api::{LabelFilter, Outcome, OutcomeError, Status};
use atp_executor::Selection;
use atp_transport::domain::DomainInfo;
use atp_transport::{ExecuteOptions, HostId, HostInfo};
use futures_util::future::join_all;
use tokio::time::Instant;
use uuid::Uuid;

use super::listed::Listed;
use super::order::by_name;
use crate::auth::{Caller, may_see_host, may_see_vm};
use crate::cache::{Kept, Lacking};
use crate::hosts::unknown;
use crate::problem::Refusal;
use crate::state::Service;
use crate::time::rfc3339;

/// How long a request that takes older listings waits for a host that does not answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a request asks for.
pub(crate) struct Asked {
    pub(crate) selection: Selection,
    /// How old a listing may be.
    pub(crate) max_age: Duration,
    /// Whether the VMs of a host that does not answer are those of an earlier listing.
    pub(crate) allow_stale: bool,
}

impl Asked {
    /// The labels that the VMs of the host must have themselves.
    fn own_labels<'a>(&'a self, host: &'a HostInfo) -> impl Iterator<Item = &'a LabelFilter> {
        self.selection.labels.iter().filter(|label| !label.matches(&host.labels))
    }
}

/// Whether a selection chooses a VM, as far as that does not depend on labels of its own.
pub(crate) fn chooses(selection: &Selection, host: &HostInfo, domain: &DomainInfo) -> bool {
    let mut selectors = selection.selectors.iter();
    selectors.any(|selector| selector.host().matches(host) && selector.matches_vm(&domain.name))
        && selection.state.matches(domain)
        && !selection.excludes(host, &domain.name)
}

/// The VMs of a host that are chosen.
#[derive(Debug)]
pub(crate) struct Chosen {
    id: HostId,
    host: HostInfo,
    listed: Kept<Listed>,
    /// The labels that VMs have themselves, if they were asked for.
    labels: Option<Kept<Listed>>,
    /// Places in the listing.
    places: Vec<usize>,
    stale: Option<String>,
}

impl Chosen {
    pub(crate) fn id(&self) -> &HostId {
        &self.id
    }

    /// The number of VMs.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The VMs, by name.
    pub(crate) fn vms(&self) -> impl Iterator<Item = &DomainInfo> {
        let listed = self.listed.value.vms();
        self.places.iter().filter_map(move |&place| listed.get(place))
    }

    /// A VM as a listing has it.
    pub(super) fn entry(&self, domain: &DomainInfo) -> VmEntry {
        let own = self.labels.as_ref().and_then(|labels| labels.value.labels(domain.uuid));
        let mut labels = own.cloned().unwrap_or_default();
        // The host's value counts.
        labels.extend(self.host.labels.clone());
        VmEntry { host: self.id.clone(), vm: domain.name.clone(), info: domain.into(), labels }
    }

    /// When its host was listed, if that is as late as was asked for.
    pub(super) fn fresh(&self) -> Option<SystemTime> {
        self.stale.is_none().then_some(self.listed.when)
    }

    /// Since when its host does not answer, if it does not.
    pub(super) fn stale(&self) -> Option<StaleHost> {
        let reason = self.stale.clone()?;
        Some(StaleHost { host: self.id.clone(), since: rfc3339(self.listed.when), reason })
    }
}

/// The hosts that a request concerns and a caller may see, by name.
///
/// # Errors
/// The request names a host that there is not, or that the caller may not see.
pub(crate) fn concerned(
    service: &Service,
    caller: &Caller,
    selection: &Selection,
) -> Result<Vec<(HostId, HostInfo)>, Refusal> {
    let hosts = service.manager().hosts();
    for selector in &selection.selectors {
        let named = selector.host().ids().iter();
        let may_see =
            |id: &String| hosts.iter().any(|host| host.id == *id && may_see_host(&caller.token, host));
        if let Some(id) = named.into_iter().find(|id| !may_see(id)) {
            return Err(unknown(id));
        }
    }
    let concerned =
        hosts.into_iter().filter(|host| selection.concerns(host) && may_see_host(&caller.token, host));
    let mut concerned: Vec<_> =
        concerned.filter_map(|host| Some((host.id.parse::<HostId>().ok()?, host))).collect();
    concerned.sort_by(|(one, _), (other, _)| by_name(one.as_str(), other.as_str()));
    Ok(concerned)
}

/// The VMs of a selection that a caller may see, by host and name, and the outcomes of hosts that could not be listed.
///
/// # Errors
/// As [`concerned`].
///
/// Cancel safe.
pub(crate) async fn choose(
    service: &Service,
    caller: &Caller,
    asked: &Asked,
) -> Result<(Vec<Chosen>, Vec<Outcome>), Refusal> {
    let hosts = concerned(service, caller, &asked.selection)?;
    let chosen = join_all(hosts.into_iter().map(|(id, host)| choose_on(service, caller, asked, id, host)));
    let (mut all, mut settled) = (Vec::new(), Vec::new());
    for of_host in chosen.await {
        match of_host {
            Ok(chosen) => all.push(chosen),
            Err(outcome) => settled.push(*outcome),
        }
    }
    settled.sort_by(Outcome::report_order);
    Ok((all, settled))
}

async fn choose_on(
    service: &Service,
    caller: &Caller,
    asked: &Asked,
    id: HostId,
    host: HostInfo,
) -> Result<Chosen, Box<Outcome>> {
    let away = |error: OutcomeError| {
        let outcome = Outcome::not_started("vm-list", Status::Unreachable);
        Box::new(Outcome { host: Some(id.clone()), error: Some(error), ..outcome })
    };
    let (listed, mut stale) = vms_of(service, &id, asked.max_age, asked.allow_stale).await.map_err(away)?;
    let vms = listed.value.vms();
    let is_chosen = |domain: &DomainInfo| {
        chooses(&asked.selection, &host, domain) && may_see_vm(&caller.token, &host, &domain.name)
    };
    let mut places: Vec<usize> =
        vms.iter().enumerate().filter(|(_, domain)| is_chosen(domain)).map(|(place, _)| place).collect();
    let mut labels = None;
    if asked.own_labels(&host).next().is_some() && !places.is_empty() {
        let all = vms.iter().map(|domain| domain.uuid).collect();
        let found = labels_of(service, &id, asked.max_age, asked.allow_stale, all).await;
        let (own, are_stale) = found.map_err(away)?;
        stale = stale.or(are_stale);
        places.retain(|&place| {
            let own = own.value.labels(vms[place].uuid);
            asked.own_labels(&host).all(|label| own.is_some_and(|own| label.matches(own)))
        });
        labels = Some(own);
    }
    Ok(Chosen { id, host, listed, labels, places, stale })
}

/// The VMs of a host as they are now, and when that was. Requests at the same time ask the host once.
///
/// # Errors
/// Why it cannot be listed.
///
/// Cancel safe.
pub(crate) async fn listed_now(
    service: &Service,
    id: &HostId,
) -> Result<(SystemTime, Vec<DomainInfo>), OutcomeError> {
    let (listed, _) = vms_of(service, id, Duration::ZERO, false).await?;
    Ok((listed.when, listed.value.vms().to_vec()))
}

/// The VMs of a host, and why they are older than was asked for, if they are.
async fn vms_of(service: &Service, id: &HostId, max_age: Duration, allow_stale: bool) -> Found {
    let (asked, host) = (service.clone(), id.clone());
    let fetch = || async move {
        let options = ExecuteOptions::by(Instant::now() + asked.list_timeout());
        let listed = asked.manager().execute_on_host_with(host.as_str(), options, |connection| async move {
            connection.list_domains().await
        });
        listed.await.map(Listed::of).map_err(|error| OutcomeError::from(&error))
    };
    let key = format!("{id}/vms");
    let found = service.listings().get(&key, max_age, patience(allow_stale), fetch);
    or_stale(service, allow_stale, found.await)
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
    let key = format!("{id}/labels");
    let found = service.listings().get(&key, max_age, patience(allow_stale), fetch);
    or_stale(service, allow_stale, found.await)
}

type Found = Result<(Kept<Listed>, Option<String>), OutcomeError>;

fn patience(allow_stale: bool) -> Option<Duration> {
    allow_stale.then_some(PATIENCE)
}

fn or_stale(service: &Service, allow_stale: bool, answer: Result<Kept<Listed>, Lacking<Listed>>) -> Found {
    match answer {
        Ok(kept) => Ok((kept, None)),
        Err(Lacking { error, last: Some(last) }) if allow_stale => {
            service.listings().note_stale();
            Ok((last, Some(error.message)))
        }
        Err(Lacking { error, .. }) => Err(error),
    }
}
