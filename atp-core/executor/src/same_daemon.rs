//! Host ids that lead to the same daemon: each VM there is a target once.
//!
//! VMs with the same UUID and name under two ids are no proof: a VM that migrates is listed by both hosts for a while, and
//! a copied VM keeps its UUID. The UUID of the machine is no proof either: makers of boards and of images repeat it. Two
//! ids are one daemon only if everything agrees: the machine's UUID, the host's name, and the VMs with their ids and
//! states. If the machine's UUID agrees and something else does not, both are worked on, and a notice says so.
//!
//! Daemons are asked only if a UUID was listed twice, so that a fleet without such ids pays nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use atp_transport::HostId;
use atp_transport::domain::{DomainInfo, DomainState};
use uuid::Uuid;

use crate::plan::Notice;
use crate::target::Target;

/// The identity of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Daemon {
    /// The UUID of the machine it runs on.
    machine: Uuid,
    /// The host's own name.
    hostname: String,
    /// Its VMs by UUID, with their ids (a number that the daemon assigns at each start) and states.
    vms: BTreeMap<Uuid, (Option<u32>, DomainState)>,
}

/// The identities of daemons; none for a daemon that could not be asked, or does not know its machine.
pub(crate) type Daemons = BTreeMap<HostId, Option<Daemon>>;

impl Daemon {
    pub(crate) fn new(machine: Uuid, hostname: String, vms: &[DomainInfo]) -> Self {
        let vms = vms.iter().map(|vm| (vm.uuid, (vm.id, vm.state))).collect();
        Daemon { machine, hostname, vms }
    }

    /// Whether the two may be one daemon that was asked at different times.
    fn may_be(&self, other: &Daemon) -> bool {
        self.machine == other.machine && self.hostname == other.hostname
    }
}

/// The hosts whose daemons must be asked: those that list a VM which another host lists as well.
pub(crate) fn doubtful(targets: &[Target]) -> BTreeSet<HostId> {
    let mut hosts_of: HashMap<Uuid, BTreeSet<&HostId>> = HashMap::new();
    for target in targets {
        if let Some(uuid) = target.uuid() {
            hosts_of.entry(uuid).or_default().insert(&target.host);
        }
    }
    hosts_of.into_values().filter(|hosts| hosts.len() > 1).flatten().cloned().collect()
}

/// The hosts that must be asked once more: a VM may have changed its state between two answers of one daemon.
pub(crate) fn undecided(daemons: &Daemons) -> BTreeSet<HostId> {
    let known: Vec<_> = daemons.iter().filter_map(|(host, daemon)| Some((host, daemon.as_ref()?))).collect();
    let differs = |daemon: &Daemon| known.iter().any(|(_, other)| daemon.may_be(other) && daemon != *other);
    known.iter().filter(|(_, daemon)| differs(daemon)).map(|(host, _)| (*host).clone()).collect()
}

/// Keeps each VM under the first id of its daemon. The notices say what was left out, and what was kept twice although
/// the machine's UUID is the same.
pub(crate) fn merge(targets: Vec<Target>, daemons: &Daemons) -> (Vec<Target>, Vec<Notice>) {
    let mut kept_under: HashMap<(Uuid, String), Vec<HostId>> = HashMap::new();
    let mut left_out: BTreeMap<(HostId, HostId), usize> = BTreeMap::new();
    let mut kept_twice: BTreeMap<(HostId, HostId), usize> = BTreeMap::new();
    let mut kept = Vec::with_capacity(targets.len());
    let daemon_of = |host: &HostId| daemons.get(host)?.as_ref();
    for target in targets {
        let (Some(daemon), Some(uuid), Some(name)) =
            (daemon_of(&target.host), target.uuid(), target.vm().map(str::to_owned))
        else {
            kept.push(target);
            continue;
        };
        let others = kept_under.entry((uuid, name)).or_default();
        let is_other = |host: &&HostId| **host != target.host;
        let same = others.iter().filter(is_other).find(|host| daemon_of(host) == Some(daemon));
        if let Some(first) = same {
            *left_out.entry((first.clone(), target.host)).or_default() += 1;
            continue;
        }
        let is_twin = |host: &&HostId| daemon_of(host).is_some_and(|other| other.machine == daemon.machine);
        if let Some(first) = others.iter().filter(is_other).find(is_twin) {
            *kept_twice.entry((first.clone(), target.host.clone())).or_default() += 1;
        }
        others.push(target.host.clone());
        kept.push(target);
    }
    let aliases = left_out.into_iter().map(|((host, alias), vms)| Notice::SameDaemon { host, alias, vms });
    let twins = kept_twice.into_iter().map(|((host, other), vms)| Notice::SameMachine { host, other, vms });
    (kept, aliases.chain(twins).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(vm: u128, name: &str, state: DomainState, id: Option<u32>) -> DomainInfo {
        DomainInfo {
            name: name.to_owned(),
            uuid: Uuid::from_u128(vm),
            id,
            state,
            vcpus: None,
            memory_kib: None,
            max_memory_kib: None,
        }
    }

    fn target(host: &str, vm: u128, name: &str) -> Target {
        Target { host: host.parse().unwrap(), domain: Some(domain(vm, name, DomainState::ShutOff, None)) }
    }

    fn daemon(machine: u128, hostname: &str, vms: &[DomainInfo]) -> Option<Daemon> {
        Some(Daemon::new(Uuid::from_u128(machine), hostname.to_owned(), vms))
    }

    fn daemons<const N: usize>(of: [(&str, Option<Daemon>); N]) -> Daemons {
        of.into_iter().map(|(host, daemon)| (host.parse().unwrap(), daemon)).collect()
    }

    fn names(targets: &[Target]) -> Vec<String> {
        targets.iter().map(Target::to_string).collect()
    }

    #[test]
    fn only_hosts_that_share_a_vm_are_doubtful() {
        let targets = [target("a", 1, "x"), target("b", 1, "x"), target("c", 2, "y"), target("c", 2, "y")];
        let doubtful: Vec<_> = doubtful(&targets).into_iter().map(|host| host.to_string()).collect();
        assert_eq!(doubtful, ["a", "b"]);
    }

    #[test]
    fn a_vm_is_left_under_the_first_id_of_its_daemon() {
        let targets =
            vec![target("a", 1, "x"), target("a", 2, "y"), target("b", 1, "x"), target("b", 2, "y")];
        let vms = [domain(1, "x", DomainState::Running, Some(4)), domain(2, "y", DomainState::ShutOff, None)];
        let same = daemons([("a", daemon(7, "h", &vms)), ("b", daemon(7, "h", &vms))]);
        assert!(undecided(&same).is_empty());
        let (kept, notices) = merge(targets, &same);
        assert_eq!(names(&kept), ["a/x", "a/y"]);
        let notice = Notice::SameDaemon { host: "a".parse().unwrap(), alias: "b".parse().unwrap(), vms: 2 };
        assert_eq!(notices, [notice]);
    }

    #[test]
    fn two_machines_with_one_uuid_are_two_and_it_is_said() {
        let off = [domain(1, "x", DomainState::ShutOff, None)];
        let on = [domain(1, "x", DomainState::Running, Some(1))];
        let on_again = [domain(1, "x", DomainState::Running, Some(2))];
        let more = [off.clone(), [domain(2, "y", DomainState::ShutOff, None)]].concat();
        for (one, other, may_have_changed) in [
            (daemon(7, "h1", &off), daemon(7, "h2", &off), false),
            (daemon(7, "h1", &off), daemon(7, "h1", &on), true),
            (daemon(7, "h1", &on), daemon(7, "h1", &on_again), true),
            (daemon(7, "h1", &off), daemon(7, "h1", &more), true),
        ] {
            let daemons = daemons([("a", one), ("b", other)]);
            assert_eq!(undecided(&daemons).len(), if may_have_changed { 2 } else { 0 }, "{daemons:?}");
            let (kept, notices) = merge(vec![target("a", 1, "x"), target("b", 1, "x")], &daemons);
            assert_eq!(names(&kept), ["a/x", "b/x"], "{daemons:?}");
            let notice =
                Notice::SameMachine { host: "a".parse().unwrap(), other: "b".parse().unwrap(), vms: 1 };
            assert_eq!(notices, [notice]);
        }
    }

    #[test]
    fn a_vm_on_the_way_between_hosts_is_there_twice() {
        let targets = || vec![target("a", 1, "x"), target("b", 1, "x")];
        for daemons in [
            daemons([("a", daemon(7, "h", &[])), ("b", daemon(8, "h", &[]))]),
            daemons([("a", None), ("b", None)]),
            daemons([("a", daemon(7, "h", &[])), ("b", None)]),
            daemons([]),
        ] {
            let (kept, notices) = merge(targets(), &daemons);
            assert_eq!((kept.len(), notices.len()), (2, 0), "{daemons:?}");
        }
        let renamed = vec![target("a", 1, "x"), target("b", 1, "copy")];
        let same = daemons([("a", daemon(7, "h", &[])), ("b", daemon(7, "h", &[]))]);
        assert_eq!(merge(renamed, &same).0.len(), 2);
    }
}
