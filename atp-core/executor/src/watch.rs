//! Watching the VMs of a selection: a stream of their events.

use std::collections::HashMap;
use std::sync::Arc;

use atp_transport::domain::{DomainEventKind, DomainInfo};
use atp_transport::{DomainEvents, HostId, HostInfo, WatchItem, WatchOptions};

use crate::executor::Executor;
use crate::plan::PlanError;
use crate::resolve;
use crate::selection::Selection;
use crate::sought::Sought;
use crate::verbs::job::KnownAgents;

/// The events of a selection's VMs, over all hosts; see [`Executor::watch`].
#[derive(Debug)]
pub struct Watch {
    events: DomainEvents,
    agents: Arc<KnownAgents>,
    watched: WatchedVms,
}

/// Which items of a stream are about the VMs of a selection, and which VMs are named and not found.
#[derive(Debug)]
pub struct WatchedVms {
    hosts: HashMap<HostId, HostInfo>,
    selection: Selection,
    sought: Sought,
}

impl WatchedVms {
    /// The VMs of a selection on these hosts. Its filter by state is ignored, and its labels are those of hosts.
    ///
    /// # Errors
    /// The selection names a host or a group that there is not, or there are no hosts.
    pub fn new(selection: &Selection, known: Vec<HostInfo>) -> Result<Self, PlanError> {
        resolve::check_names(selection, &known)?;
        let hosts: HashMap<HostId, HostInfo> = known
            .into_iter()
            .filter(|host| selection.concerns(host) && selection.labels_beyond(host).next().is_none())
            .filter_map(|host| Some((host.id.parse().ok()?, host)))
            .collect();
        let sought = Sought::of(selection, &hosts);
        Ok(WatchedVms { hosts, selection: selection.clone(), sought })
    }

    /// The hosts that the selection concerns.
    pub fn hosts(&self) -> impl Iterator<Item = &HostId> {
        self.hosts.keys()
    }

    /// What an item says of the selection; none if that is nothing.
    pub fn choose(&mut self, item: WatchItem) -> Option<WatchItem> {
        if item.host().is_some_and(|host| !self.hosts.contains_key(host)) {
            return None;
        }
        match item {
            WatchItem::Event { host, event, .. } if !self.chooses(&host, &event.name) => None,
            WatchItem::Present { host, at, domains } => {
                self.sought.seek(&host, domains.iter().map(|domain| domain.name.as_str()));
                let chosen: Vec<DomainInfo> =
                    domains.iter().filter(|domain| self.chooses(&host, &domain.name)).cloned().collect();
                Some(WatchItem::Present { host, at, domains: chosen.into() })
            }
            item => Some(item),
        }
    }

    /// Takes the VMs that are selected by name and that none of their possible hosts has, as `VM` or `HOST/VM`. Each is
    /// returned once, when all of these hosts have listed their VMs. A VM of that name that is created later is watched all the same.
    pub fn take_not_found(&mut self) -> Vec<String> {
        self.sought.take_not_found()
    }

    fn chooses(&self, host: &HostId, vm: &str) -> bool {
        self.hosts.get(host).is_some_and(|host| self.selection.includes(host, vm))
    }
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
        let watched = WatchedVms::new(selection, self.manager().hosts())?;
        let ids: Vec<&HostId> = watched.hosts().collect();
        // Fails only if a host was removed since the lines above.
        let events = self.manager().watch_domains(&ids, options).map_err(|_| PlanError::NoHosts)?;
        Ok(Watch { events, agents: Arc::clone(self.agents()), watched })
    }
}

impl Watch {
    /// The next item that is about a VM of the selection, or about a host as a whole; none when all hosts are gone.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<WatchItem> {
        loop {
            let item = self.events.next().await?;
            self.forget_agents(&item);
            if let Some(item) = self.watched.choose(item) {
                return Some(item);
            }
        }
    }

    /// Which of the items are chosen: its hosts, and the VMs that were not found.
    pub fn watched(&mut self) -> &mut WatchedVms {
        &mut self.watched
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
}
