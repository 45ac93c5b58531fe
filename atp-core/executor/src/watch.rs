//! What happens to the VMs of a selection.

use std::collections::HashMap;
use std::sync::Arc;

use atp_transport::domain::{DomainEventKind, DomainInfo};
use atp_transport::{DomainEvents, HostId, HostInfo, WatchItem, WatchOptions};

use crate::executor::{Executor, KnownAgents};
use crate::plan::PlanError;
use crate::resolve;
use crate::selection::Selection;

/// The events of a selection's VMs, over all hosts; see [`Executor::watch`].
#[derive(Debug)]
pub struct Watch {
    events: DomainEvents,
    agents: Arc<KnownAgents>,
    hosts: HashMap<HostId, HostInfo>,
    selection: Selection,
}

impl Executor {
    /// Watches the VMs that a selection chooses, also those that come to be later. Only hosts that it concerns are
    /// connected to, in the background and for as long as the watch lives. The selection's filter by state does not
    /// count: states are what is watched.
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
            .filter(|host| selection.concerns(host))
            .filter_map(|host| Some((host.id.parse().ok()?, host)))
            .collect();
        let ids: Vec<&HostId> = hosts.keys().collect();
        // Fails only if one was removed in this moment.
        let events = self.manager().watch_domains(&ids, options).map_err(|_| PlanError::NoHosts)?;
        Ok(Watch { events, agents: Arc::clone(self.agents()), hosts, selection: selection.clone() })
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
            match item {
                WatchItem::Event { host, event, .. } if !self.chooses(&host, &event.name) => {}
                WatchItem::Present { host, at, domains } => {
                    let chosen: Vec<DomainInfo> =
                        domains.iter().filter(|domain| self.chooses(&host, &domain.name)).cloned().collect();
                    return Some(WatchItem::Present { host, at, domains: chosen.into() });
                }
                item => return Some(item),
            }
        }
    }

    /// How many hosts are watched.
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// What the executor knows of a VM's agent holds until that connects anew, or until nobody would be told so.
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
