//! Two host ids that lead to the same daemon: each VM there is a target once.
//!
//! Two targets are one VM if VMs of the same UUID and name were listed under both ids, and both daemons say that they
//! run on the same machine. A VM alone does not tell: one that moves from host to host is listed by both for a
//! while, and one that was copied keeps its UUID. So machines are asked for only where a UUID came up twice, which
//! costs a fleet without such ids nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use atp_transport::HostId;
use uuid::Uuid;

use crate::plan::{Notice, Target};

/// What a host said of the machine it runs on; none if it could not be asked, or does not know.
pub(crate) type Machines = BTreeMap<HostId, Option<Uuid>>;

/// The hosts whose machines have to be known: those that list a VM which another host lists as well.
pub(crate) fn doubtful(targets: &[Target]) -> BTreeSet<HostId> {
    let mut hosts_of: HashMap<Uuid, BTreeSet<&HostId>> = HashMap::new();
    for target in targets {
        if let Some(uuid) = target.uuid() {
            hosts_of.entry(uuid).or_default().insert(&target.host);
        }
    }
    hosts_of.into_values().filter(|hosts| hosts.len() > 1).flatten().cloned().collect()
}

/// Leaves each VM under the first of its host's ids, and says what was left out.
pub(crate) fn merge(targets: Vec<Target>, machines: &Machines) -> (Vec<Target>, Vec<Notice>) {
    let mut first_id: HashMap<(Uuid, Uuid, String), HostId> = HashMap::new();
    let mut left_out: BTreeMap<(HostId, HostId), usize> = BTreeMap::new();
    let mut kept = Vec::with_capacity(targets.len());
    for target in targets {
        let machine = machines.get(&target.host).copied().flatten();
        let vm = machine.zip(target.uuid()).zip(target.vm()).map(|((machine, uuid), name)| {
            first_id.entry((machine, uuid, name.to_owned())).or_insert_with(|| target.host.clone())
        });
        match vm {
            Some(first) if *first != target.host => {
                *left_out.entry((first.clone(), target.host)).or_default() += 1;
            }
            _ => kept.push(target),
        }
    }
    let notice = |((host, alias), vms)| Notice::SameDaemon { host, alias, vms };
    (kept, left_out.into_iter().map(notice).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use atp_transport::domain::{DomainInfo, DomainState};

    fn target(host: &str, vm: u128, name: &str) -> Target {
        let domain = DomainInfo {
            name: name.to_owned(),
            uuid: Uuid::from_u128(vm),
            id: None,
            state: DomainState::ShutOff,
            vcpus: None,
            memory_kib: None,
            max_memory_kib: None,
        };
        Target { host: host.parse().unwrap(), domain: Some(domain) }
    }

    fn machines(of: &[(&str, Option<u128>)]) -> Machines {
        of.iter().map(|(host, machine)| (host.parse().unwrap(), machine.map(Uuid::from_u128))).collect()
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
        let (kept, notices) = merge(targets, &machines(&[("a", Some(7)), ("b", Some(7))]));
        assert_eq!(names(&kept), ["a/x", "a/y"]);
        let notice = Notice::SameDaemon { host: "a".parse().unwrap(), alias: "b".parse().unwrap(), vms: 2 };
        assert_eq!(notices, [notice]);
    }

    #[test]
    fn a_vm_on_the_way_between_hosts_is_there_twice() {
        let targets = || vec![target("a", 1, "x"), target("b", 1, "x")];
        for machines in [
            machines(&[("a", Some(7)), ("b", Some(8))]),
            machines(&[("a", None), ("b", None)]),
            machines(&[("a", Some(7)), ("b", None)]),
            machines(&[]),
        ] {
            let (kept, notices) = merge(targets(), &machines);
            assert_eq!((kept.len(), notices.len()), (2, 0), "{machines:?}");
        }
        let renamed = vec![target("a", 1, "x"), target("b", 1, "copy")];
        assert_eq!(merge(renamed, &machines(&[("a", Some(7)), ("b", Some(7))])).0.len(), 2);
    }
}
