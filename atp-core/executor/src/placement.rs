//! Where the VMs of a run are, as its hosts were listed: a VM is its UUID, and the host only its place.
//!
//! A UUID that several hosts list is one VM that was migrated, or is defined on several hosts, and may run on one of them
//! at a time. Where VMs were cloned with their UUIDs, the hosts' configuration says so
//! ([`SharedUuids::Copies`](atp_transport::SharedUuids::Copies)); their VMs have no other place.

use std::collections::{HashMap, HashSet};

use atp_transport::domain::DomainInfo;
use atp_transport::{HostId, HostInfo};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::selection::Selection;
use crate::target::Target;

/// Where the VMs of a run are.
///
/// Written down, it lacks what was selected: see [`with_selection`](Self::with_selection).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Placements {
    /// The places of each VM that several hosts list. Hosts whose VMs are copies are not among them.
    shared: HashMap<Uuid, Vec<Place>>,
    /// The hosts on which such a VM is a target.
    targets: HashMap<Uuid, Vec<HostId>>,
    /// What was selected.
    #[serde(skip)]
    selection: Selection,
}

/// One place of a VM.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    host: HostId,
    domain: DomainInfo,
}

impl Placements {
    /// What the listings of these hosts say, without those whose VMs are copies.
    pub(crate) fn of<'a>(
        listings: impl IntoIterator<Item = (&'a HostId, &'a [DomainInfo])>,
        selection: &Selection,
    ) -> Self {
        let listings: Vec<_> = listings.into_iter().collect();
        let uuids = listings.iter().flat_map(|(_, domains)| *domains).map(|domain| domain.uuid);
        let mut seen = HashSet::new();
        let mut shared: HashMap<Uuid, Vec<Place>> =
            uuids.filter(|&uuid| !seen.insert(uuid)).map(|uuid| (uuid, Vec::new())).collect();
        if !shared.is_empty() {
            for (host, domains) in listings {
                for domain in domains {
                    if let Some(places) = shared.get_mut(&domain.uuid) {
                        places.push(Place { host: host.clone(), domain: domain.clone() });
                    }
                }
            }
        }
        Placements { shared, targets: HashMap::new(), selection: selection.clone() }
    }

    /// The same without these second ids of daemons, under which their VMs are listed once more.
    pub(crate) fn without_aliases(mut self, aliases: &[&HostId]) -> Self {
        for places in self.shared.values_mut() {
            places.retain(|place| !aliases.contains(&&place.host));
        }
        self.shared.retain(|_, places| places.len() > 1);
        self
    }

    /// The same with what was selected.
    pub fn with_selection(self, selection: Selection) -> Self {
        Placements { selection, ..self }
    }

    /// The same for a run with these targets.
    pub fn for_targets(mut self, targets: &[Target]) -> Self {
        for target in targets {
            if let Some(uuid) = target.uuid().filter(|uuid| self.shared.contains_key(uuid)) {
                self.targets.entry(uuid).or_default().push(target.host.clone());
            }
        }
        self
    }

    /// The other hosts that list the VM.
    pub(crate) fn others<'a>(&'a self, uuid: Uuid, host: &'a HostId) -> impl Iterator<Item = &'a HostId> {
        self.places(uuid).filter(move |place| place.host != *host).map(|place| &place.host)
    }

    /// The other host on which the VM was active when it was listed, if it is one.
    pub(crate) fn runs_on(&self, uuid: Uuid, host: &HostId) -> Option<&HostId> {
        let mut active =
            self.places(uuid).filter(|place| place.host != *host && place.domain.state.is_active());
        active.next().filter(|_| active.next().is_none()).map(|place| &place.host)
    }

    /// Whether the VM was active on this host when it was listed, and is a target there.
    pub(crate) fn is_worked_on(&self, uuid: Uuid, host: &HostId) -> bool {
        self.is_target(uuid, host)
            && self.places(uuid).any(|place| place.host == *host && place.domain.state.is_active())
    }

    /// Whether the VM is a target on this host.
    pub(crate) fn is_target(&self, uuid: Uuid, host: &HostId) -> bool {
        self.targets.get(&uuid).is_some_and(|hosts| hosts.contains(host))
    }

    /// Whether the selection excludes the VM of this name on this host.
    pub(crate) fn excludes(&self, host: &HostInfo, vm: &str) -> bool {
        self.selection.excludes(host, vm)
    }

    fn places(&self, uuid: Uuid) -> impl Iterator<Item = &Place> {
        self.shared.get(&uuid).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use atp_transport::domain::{DomainState, StateReason};

    use super::*;

    const VM: Uuid = Uuid::from_u128(7);

    fn domain(state: DomainState, reason: Option<StateReason>) -> DomainInfo {
        DomainInfo { reason, ..DomainInfo::new("vm", VM, state) }
    }

    fn host(id: &str) -> HostId {
        id.parse().unwrap()
    }

    /// The VM is listed by each of these hosts in this state.
    fn of(listings: &[(&str, DomainState)]) -> Placements {
        let listings: Vec<_> =
            listings.iter().map(|&(id, state)| (host(id), [domain(state, None)])).collect();
        Placements::of(listings.iter().map(|(id, domains)| (id, &domains[..])), &Selection::all())
    }

    #[test]
    fn the_other_place_of_a_vm_is_the_only_other_host_where_it_is_active() {
        use DomainState::{Paused, Running, ShutOff};
        let [h1, h2, h3] = ["h1", "h2", "h3"].map(host);
        let moved = of(&[("h1", ShutOff), ("h2", Running)]);
        assert_eq!((moved.runs_on(VM, &h1), moved.runs_on(VM, &h2)), (Some(&h2), None));
        let paused = of(&[("h1", ShutOff), ("h2", Paused), ("h3", ShutOff)]);
        assert_eq!((paused.runs_on(VM, &h1), paused.runs_on(VM, &h3)), (Some(&h2), Some(&h2)));
        let several = of(&[("h1", ShutOff), ("h2", Running), ("h3", Running)]);
        assert_eq!(several.runs_on(VM, &h1), None, "it is not known which");
        let alone = of(&[("h1", ShutOff)]);
        assert_eq!((alone.runs_on(VM, &h1), alone.others(VM, &h1).next()), (None, None));
    }

    #[test]
    fn second_ids_of_a_daemon_are_no_other_places() {
        let listings = [("h1", DomainState::ShutOff), ("h2", DomainState::Running)];
        assert_eq!(of(&listings).runs_on(VM, &host("h1")), Some(&host("h2")));
        assert_eq!(of(&listings).without_aliases(&[&host("h2")]).runs_on(VM, &host("h1")), None);
    }

    #[test]
    fn a_vm_is_worked_on_where_it_is_a_target_and_was_active() {
        let listings = [("h1", DomainState::ShutOff), ("h2", DomainState::Running)];
        let target = |id: &str| Target { host: host(id), domain: Some(domain(DomainState::Running, None)) };
        let both = of(&listings).for_targets(&[target("h1"), target("h2")]);
        assert!(both.is_worked_on(VM, &host("h2")) && both.is_target(VM, &host("h1")));
        assert!(!both.is_worked_on(VM, &host("h1")), "it is shut off there");
        let one = of(&listings).for_targets(&[target("h1")]);
        assert!(!one.is_target(VM, &host("h2")));
    }
}
