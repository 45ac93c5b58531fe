//! VMs that are selected by their names, and that no host has listed yet.

use std::collections::{BTreeSet, HashMap, HashSet};

use atp_transport::{HostId, HostInfo};

use crate::resolve;
use crate::selection::Selection;

/// The VMs that a selection names, and those that none of their possible hosts has.
#[derive(Debug)]
pub(crate) struct Sought {
    vms: Vec<SoughtVm>,
    not_found: Vec<String>,
}

#[derive(Debug)]
struct SoughtVm {
    /// The host, if it was named as well.
    host: Option<String>,
    vm: String,
    /// The hosts that it may still be on.
    hosts: BTreeSet<HostId>,
}

impl Sought {
    /// The VMs that a selection names, each with the hosts it could be on.
    pub(crate) fn of(selection: &Selection, hosts: &HashMap<HostId, HostInfo>) -> Self {
        let mut vms = Vec::new();
        for selector in &selection.selectors {
            for host in resolve::scopes(selector) {
                let possible: Vec<_> =
                    hosts.iter().filter(|(_, known)| resolve::is_in_scope(selector, host, known)).collect();
                for vm in selector.vm_names() {
                    let may_have = possible.iter().filter(|(_, host)| !selection.excludes(host, vm));
                    let may_have: BTreeSet<_> = may_have.map(|(id, _)| (*id).clone()).collect();
                    if !may_have.is_empty() {
                        vms.push(SoughtVm { host: host.map(str::to_owned), vm: vm.clone(), hosts: may_have });
                    }
                }
            }
        }
        Sought { vms, not_found: Vec::new() }
    }

    /// Looks for them among the VMs of a host.
    pub(crate) fn seek<'a>(&mut self, host: &HostId, names: impl Iterator<Item = &'a str>) {
        let names: HashSet<&str> = names.collect();
        let not_found = &mut self.not_found;
        self.vms.retain_mut(|sought| {
            if !sought.hosts.remove(host) {
                return true;
            }
            if names.contains(sought.vm.as_str()) {
                return false;
            }
            let may_come = !sought.hosts.is_empty();
            if !may_come {
                not_found.push(match &sought.host {
                    Some(host) => format!("{host}/{}", sought.vm),
                    None => sought.vm.clone(),
                });
            }
            may_come
        });
    }

    /// Takes those that none of their possible hosts has, as `VM` or `HOST/VM`, each once.
    pub(crate) fn take_not_found(&mut self) -> Vec<String> {
        std::mem::take(&mut self.not_found)
    }
}
