//! The state that all parts of a fleet share: its options and its hosts.

use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use crate::calls;
use crate::counts::{HostCounts, Report};
use crate::faults::{Assignment, HostFault, VmFault};
use crate::host::Host;
use crate::options::FleetOptions;

/// The state that all parts of a fleet share.
pub(crate) struct Shared {
    pub(crate) options: Arc<FleetOptions>,
    pub(crate) assignment: Assignment,
    /// Created on first use.
    pub(crate) hosts: Vec<OnceLock<Arc<Host>>>,
    pub(crate) epoch: Instant,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Shared {
    /// A host by its number, from 1 on.
    pub(crate) fn host(&self, number: u32) -> Option<&Arc<Host>> {
        let place = self.hosts.get(number.checked_sub(1)? as usize)?;
        Some(place.get_or_init(|| {
            let fault = self.assignment.hosts.get(&number).copied();
            let vm_fault = |vm| self.assignment.vms.get(&(number, vm)).copied();
            Arc::new(Host::new(number, self.options.clone(), fault, vm_fault, self.epoch))
        }))
    }

    pub(crate) fn report(&self) -> Report {
        let made = self.hosts.iter().filter_map(OnceLock::get);
        let counts = made.map(|host| (host.name.clone(), counts_of(host)));
        let hosts = counts.filter(|(_, counts)| counts.connections > 0).collect();
        let faults = &self.assignment;
        let of_hosts = faults.hosts.iter().map(|(host, fault)| (format!("h{host}"), fault.to_string()));
        let of_vms =
            faults.vms.iter().map(|((host, vm), fault)| (format!("h{host}/vm{vm}"), fault.to_string()));
        Report { hosts, faults: of_hosts.chain(of_vms).collect() }
    }

    /// Sets the fault of a host (`h7`) or a VM (`h7/vm1`), or removes it.
    pub(crate) fn set_fault(&self, target: &str, fault: Option<&str>) -> Result<(), String> {
        let unknown = || format!("there is no {target}");
        let number = |name: &str, prefix| name.strip_prefix(prefix)?.parse::<u32>().ok();
        let (host, vm) = target.split_once('/').map_or((target, None), |(host, vm)| (host, Some(vm)));
        let host = number(host, "h").and_then(|number| self.host(number)).ok_or_else(unknown)?;
        match vm {
            None => {
                let fault = fault.map(str::parse::<HostFault>).transpose();
                host.set_fault(fault.map_err(|error| error.to_string())?);
            }
            Some(vm) => {
                let vm = number(vm, "vm").filter(|vm| (1..=self.options.vms).contains(vm));
                let index = vm.ok_or_else(unknown)? as usize - 1;
                let fault = fault.map(str::parse::<VmFault>).transpose();
                let fault = fault.map_err(|error| error.to_string())?;
                calls::set_vm_fault(host, index, fault, Instant::now());
            }
        }
        Ok(())
    }
}

/// What a host and its VMs have executed.
pub(crate) fn counts_of(host: &Host) -> HostCounts {
    let state = host.state();
    let vms = state.vms.iter().filter(|vm| !vm.counts.is_empty());
    HostCounts { vms: vms.map(|vm| (vm.name.clone(), vm.counts.clone())).collect(), ..state.counts.clone() }
}
