//! The fleet of a case, the way to it in memory, and what its VMs have executed.

use std::collections::BTreeSet;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use atp_executor::Operation;
use atp_fleet::{Fleet, FleetOptions, HostFault, VmCounts, VmFault};
use atp_transport::{Dialler, HostInfo, LibvirtConnector, TransportError, TransportManager};
use tokio::io::DuplexStream;

use crate::case::{Case, Change, PROGRAM, Place};

/// The fleet of a case.
pub(crate) struct World {
    ways: Arc<Ways>,
    vms: u32,
}

/// The ways to the hosts.
struct Ways {
    fleet: Fleet,
    /// Hosts that drop packets.
    silent: Mutex<BTreeSet<u32>>,
}

impl Ways {
    async fn connect(&self, name: Option<&str>) -> io::Result<DuplexStream> {
        let number = name.and_then(|name| name.strip_prefix('h')?.parse().ok()).unwrap_or(0);
        if self.silent.lock().unwrap_or_else(PoisonError::into_inner).contains(&number) {
            return pending().await;
        }
        let host = self.fleet.host(number).ok_or(io::ErrorKind::NotFound)?;
        if host.fault() == Some(HostFault::Refused) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(host.connect())
    }
}

impl World {
    pub(crate) fn new(case: &Case) -> io::Result<World> {
        let fleet = Fleet::in_memory(FleetOptions {
            hosts: case.hosts,
            vms: case.vms,
            seed: case.seed,
            rtt: case.rtt,
            max_client_requests: case.max_client_requests,
            ..FleetOptions::default()
        })?;
        let world =
            World { ways: Arc::new(Ways { fleet, silent: Mutex::new(case.silent.clone()) }), vms: case.vms };
        let hosts = case.host_faults.iter().map(|(host, fault)| Change::Host(*host, Some(*fault)));
        let vms = case.vm_faults.iter().map(|(vm, fault)| Change::Vm(*vm, Some(*fault)));
        hosts.chain(vms).for_each(|change| world.apply(change));
        Ok(world)
    }

    /// A client with all hosts of the fleet.
    pub(crate) async fn client(&self, case: &Case) -> Result<TransportManager, TransportError> {
        let ways = self.ways.clone();
        let dialler = Dialler::new(move |uri| {
            let ways = ways.clone();
            async move { ways.connect(uri.host.as_deref()).await }
        });
        let connector = LibvirtConnector::new(&case.config).with_dialler(dialler);
        let manager = TransportManager::with_connector(case.config.clone(), connector);
        for number in 1..=case.hosts {
            let uri = format!("qemu+tcp://h{number}/system");
            manager.add_host(HostInfo::from_uri(format!("h{number}"), uri)).await?;
        }
        Ok(manager)
    }

    pub(crate) fn apply(&self, change: Change) {
        let fleet = &self.ways.fleet;
        match change {
            Change::Host(number, fault) => {
                if let Some(host) = fleet.host(number) {
                    host.set_fault(fault);
                }
            }
            Change::Silent(number, is_silent) => {
                let mut silent = self.ways.silent.lock().unwrap_or_else(PoisonError::into_inner);
                let _was = if is_silent { silent.insert(number) } else { silent.remove(&number) };
            }
            Change::Vm((host, vm), fault) => {
                if let Some(vm) = fleet.host(host).and_then(|host| host.vm(vm)) {
                    vm.set_fault(fault);
                }
            }
            Change::Migrate((host, vm), to) => {
                let vm = fleet.host(host).and_then(|host| host.vm(vm));
                if let (Some(vm), Some(to)) = (vm, fleet.host(to)) {
                    vm.migrate(&to);
                }
            }
        }
    }

    /// Removes all faults, so that calls that hang are executed.
    pub(crate) fn heal(&self) {
        self.ways.silent.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for host in self.ways.fleet.hosts() {
            host.set_fault(None);
            let vms = (1..=self.vms).filter_map(|vm| host.vm(vm));
            vms.filter(|vm| vm.fault().is_some()).for_each(|vm| vm.set_fault(None::<VmFault>));
        }
    }

    /// The number of open connections to all hosts.
    pub(crate) fn open_connections(&self) -> usize {
        self.ways.fleet.hosts().map(|host| host.open_connections()).sum()
    }

    /// How often a VM has carried out an operation, on whatever host it was.
    pub(crate) fn executions(&self, (host, vm): Place, operation: &Operation) -> u64 {
        let fleet = &self.ways.fleet;
        let own = fleet.host(host).and_then(|host| host.vm(vm)).map(|vm| vm.counts());
        let moved = format!("h{host}-vm{vm}");
        let elsewhere = fleet.hosts().filter_map(|host| host.counts().vms.remove(&moved));
        own.into_iter().chain(elsewhere).map(|counts| executed(&counts, operation)).sum()
    }
}

fn executed(counts: &VmCounts, operation: &Operation) -> u64 {
    match operation {
        Operation::Exec(_) => counts.programs.of(PROGRAM),
        Operation::Qmp(command) => counts.monitor.of(command.name()),
        Operation::Lifecycle(spec) => {
            // With and without flags.
            let calls = counts.calls.iter().filter(|(name, _)| name.starts_with(spec.action.function()));
            calls.map(|(_, count)| count).sum()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use atp_executor::{Executor, LifecycleSpec, Outcome, Policy, RunControl, Selection, StartCheck, Status};
    use atp_transport::domain::Lifecycle;
    use atp_transport::{Engine, TransportConfig};
    use tokio::runtime::Builder;
    use tokio::time::Instant;

    use super::*;

    /// Starts the VM of the first of three hosts, of which these drop packets. Returns how long it took.
    fn start(check: StartCheck, silent: &[u32]) -> (Duration, Outcome) {
        let case = Case {
            hosts: 3,
            vms: 1,
            rtt: Duration::from_millis(1),
            host_faults: BTreeMap::new(),
            vm_faults: BTreeMap::from([((1, 1), VmFault::ShutOff)]),
            silent: silent.iter().copied().collect(),
            changes: Vec::new(),
            config: TransportConfig { engine: Engine::Native, ..TransportConfig::default() },
            ..Case::of(1)
        };
        let spec = LifecycleSpec { start_check: check, ..LifecycleSpec::new(Lifecycle::Start) };
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::new(&case).unwrap();
            let executor = Executor::new(world.client(&case).await.unwrap());
            let selection = Selection::of(["h1/vm1".parse().unwrap()]);
            let begun = Instant::now();
            let plan = executor.plan(&selection, Operation::Lifecycle(spec), Policy::default());
            let plan = Box::pin(plan).await.unwrap();
            let mut outcomes = executor.run(plan, &RunControl::default()).outcomes().await;
            (begun.elapsed(), outcomes.remove(0))
        })
    }

    #[test]
    fn a_start_takes_at_most_a_second_more_for_a_host_that_drops_packets() {
        let (alone, outcome) = start(StartCheck::Listed, &[]);
        assert_eq!(outcome.status, Status::Ok, "{outcome:?}");
        // Only the hosts of the selection are contacted.
        let (beside, outcome) = start(StartCheck::Listed, &[3]);
        assert_eq!((outcome.status, beside), (Status::Ok, alone), "{outcome:?}");
        // All hosts are, if that is asked for.
        let (all, outcome) = start(StartCheck::AllHosts, &[]);
        assert_eq!(outcome.status, Status::Ok, "{outcome:?}");
        let (beside, outcome) = start(StartCheck::AllHosts, &[3]);
        assert_eq!(outcome.status, Status::Failed, "{outcome:?}");
        assert!(beside <= all + Duration::from_secs(1), "{beside:?}, and {all:?} without");
    }
}
