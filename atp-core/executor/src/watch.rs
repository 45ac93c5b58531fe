//! Watching the VMs of a selection: a stream of their events.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use atp_transport::domain::{DomainEventKind, DomainInfo};
use atp_transport::{DomainEvents, HostId, HostInfo, WatchItem, WatchOptions};

use crate::executor::Executor;
use crate::plan::PlanError;
use crate::resolve;
use crate::selection::Selection;
use crate::selector::Selector;
use crate::verbs::job::KnownAgents;

/// The events of a selection's VMs, over all hosts; see [`Executor::watch`].
#[derive(Debug)]
pub struct Watch {
    events: DomainEvents,
    agents: Arc<KnownAgents>,
    hosts: HashMap<HostId, HostInfo>,
    selection: Selection,
    sought: Vec<Sought>,
    not_found: Vec<Selector>,
}

/// A VM that was selected by its name, and that no host has listed yet.
#[derive(Debug)]
struct Sought {
    selector: Selector,
    /// The hosts that it may still be on.
    hosts: BTreeSet<HostId>,
}

impl Executor {
    /// Watches the VMs of a selection, including those that are created later. Connects only to the hosts that the selection
    /// concerns, in the background and until the watch is dropped. The selection's filter by state is ignored, as states
    /// are what is watched. Labels are those of hosts: labels of VMs would need a listing.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn watch(&self, selection: &Selection, options: &WatchOptions) -> Result<Watch, PlanError> {
        let known = self.manager().hosts();
        resolve::check_names(selection, &known)?;
        let hosts: HashMap<HostId, HostInfo> = known
            .into_iter()
            .filter(|host| selection.concerns(host) && selection.labels_beyond(host).next().is_none())
            .filter_map(|host| Some((host.id.parse().ok()?, host)))
            .collect();
        let ids: Vec<&HostId> = hosts.keys().collect();
        // Fails only if a host was removed since the lines above.
        let events = self.manager().watch_domains(&ids, options).map_err(|_| PlanError::NoHosts)?;
        let sought = sought(selection, &hosts);
        let (agents, selection) = (Arc::clone(self.agents()), selection.clone());
        Ok(Watch { events, agents, hosts, selection, sought, not_found: Vec::new() })
    }
}

/// The VMs that a selection names, each with the hosts it could be on.
fn sought(selection: &Selection, hosts: &HashMap<HostId, HostInfo>) -> Vec<Sought> {
    let literals = selection.selectors.iter().filter_map(|selector| Some((selector, selector.vm_literal()?)));
    let sought = literals.map(|(selector, vm)| {
        let possible =
            hosts.iter().filter(|(_, host)| selector.host().matches(host) && !selection.excludes(host, vm));
        Sought { selector: selector.clone(), hosts: possible.map(|(id, _)| id.clone()).collect() }
    });
    sought.filter(|sought| !sought.hosts.is_empty()).collect()
}

impl Watch {
    /// The next item that is about a VM of the selection, or about a host as a whole; none when all hosts are gone.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<WatchItem> {
        loop {
            let item = self.events.next().await?;
            self.forget_agents(&item);
            match item {
                WatchItem::Event { host, event, .. } if !self.chooses(&host, &event.name) => {}
                WatchItem::Present { host, at, domains } => {
                    self.seek(&host, &domains);
                    let chosen: Vec<DomainInfo> =
                        domains.iter().filter(|domain| self.chooses(&host, &domain.name)).cloned().collect();
                    return Some(WatchItem::Present { host, at, domains: chosen.into() });
                }
                item => return Some(item),
            }
        }
    }

    /// The hosts that are watched, as soon as they can be.
    pub fn hosts(&self) -> impl Iterator<Item = &HostId> {
        self.hosts.keys()
    }

    /// Takes the selectors that name a VM which none of its possible hosts has. Each is returned once, when all of these
    /// hosts have listed their VMs. A VM of that name that is created later is watched all the same.
    pub fn take_not_found(&mut self) -> Vec<Selector> {
        std::mem::take(&mut self.not_found)
    }

    /// Looks for the VMs that were selected by name among those of a host.
    fn seek(&mut self, host: &HostId, domains: &[DomainInfo]) {
        let not_found = &mut self.not_found;
        self.sought.retain_mut(|sought| {
            if !sought.hosts.remove(host) {
                return true;
            }
            if domains.iter().any(|domain| sought.selector.matches_vm(&domain.name)) {
                return false;
            }
            let may_come = !sought.hosts.is_empty();
            if !may_come {
                not_found.push(sought.selector.clone());
            }
            may_come
        });
    }

    /// Forgets what the executor knows of a VM's agent when the agent connects anew, or when that could go unnoticed.
    fn forget_agents(&self, item: &WatchItem) {
        match item {
            WatchItem::Event { host, event, .. } if matches!(event.kind, DomainEventKind::Agent { .. }) => {
                self.agents.forget(&(host.clone(), event.uuid));
            }
            WatchItem::Gap { host, .. } | WatchItem::Removed { host, .. } => {
                self.agents.forget_all(|(of, _)| of == host);
            }
            WatchItem::Missed { .. } => self.agents.forget_all(|_| true),
            _ => {}
        }
    }

    fn chooses(&self, host: &HostId, vm: &str) -> bool {
        self.hosts.get(host).is_some_and(|host| self.selection.includes(host, vm))
    }
}
