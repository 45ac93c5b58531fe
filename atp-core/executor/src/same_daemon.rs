//! Host ids that lead to the same daemon: each VM there is a target once.
//!
//! VMs with the same UUID and name under two ids are no proof: a VM that migrates is listed by both hosts for a while, and
//! a copied VM keeps its UUID. The UUID of the machine is no proof either: makers of boards repeat it, and cloned machines
//! keep it. Two ids are one daemon only if everything agrees: the machine's UUID, the host's name, and the VMs with their
//! names, ids and states. If in doubt, the ids stay two hosts, and a notice says so: work that is done twice has two
//! outcomes, and a VM that is left out by mistake has none.
//!
//! Daemons are asked only if a UUID was listed twice, so that a fleet without such ids pays nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use atp_transport::HostId;
use atp_transport::domain::{DomainInfo, DomainState};
use uuid::Uuid;

use crate::plan::{Doubt, Notice};
use crate::target::Target;

/// The identity of a daemon.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    /// The UUID of the machine it runs on; none where its driver knows none.
    machine: Option<Uuid>,
    /// The machine's host name.
    hostname: String,
    /// All of its VMs, by UUID.
    vms: BTreeMap<Uuid, Vm>,
}

/// A VM as a daemon lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Vm {
    name: String,
    /// A number that the daemon assigns at each start.
    id: Option<u32>,
    state: DomainState,
}

impl Daemon {
    pub(crate) fn new(machine: Option<Uuid>, hostname: String, domains: Vec<DomainInfo>) -> Self {
        let vm =
            |domain: DomainInfo| (domain.uuid, Vm { name: domain.name, id: domain.id, state: domain.state });
        Daemon { machine, hostname, vms: domains.into_iter().map(vm).collect() }
    }
}

/// The identities of daemons, or why they could not be asked.
pub(crate) type Daemons = BTreeMap<HostId, Result<Daemon, String>>;

/// What two host ids are to each other.
#[derive(Debug, Clone)]
enum Relation {
    /// They lead to one daemon.
    Same,
    /// They lead to two.
    Other,
    /// They are treated as two, and may lead to one.
    Doubtful(Doubt),
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

/// The hosts that must be asked once more, as their daemons differ in their VMs alone: a VM may have changed between two
/// answers of one daemon.
pub(crate) fn undecided(daemons: &Daemons) -> BTreeSet<HostId> {
    let mut alike: BTreeMap<(Uuid, &str), Vec<(&HostId, &Daemon)>> = BTreeMap::new();
    for (host, daemon) in daemons {
        if let Ok(daemon) = daemon
            && let Some(machine) = daemon.machine
        {
            alike.entry((machine, &daemon.hostname)).or_default().push((host, daemon));
        }
    }
    let differ = |group: &Vec<(&HostId, &Daemon)>| group.windows(2).any(|two| two[0].1.vms != two[1].1.vms);
    alike.into_values().filter(differ).flatten().map(|(host, _)| host.clone()).collect()
}

/// Keeps each VM under the first id of its daemon. The notices say what was left out, and where there is doubt.
pub(crate) fn merge(targets: Vec<Target>, daemons: &Daemons) -> (Vec<Target>, Vec<Notice>) {
    let mut relations: HashMap<(HostId, HostId), Relation> = HashMap::new();
    let mut kept_under: HashMap<(Uuid, String), Vec<HostId>> = HashMap::new();
    let mut left_out: BTreeMap<(HostId, HostId), usize> = BTreeMap::new();
    let mut in_doubt: BTreeMap<(HostId, HostId), (Doubt, usize)> = BTreeMap::new();
    let mut kept = Vec::with_capacity(targets.len());
    for target in targets {
        let Some(vm) = target.uuid().zip(target.vm().map(str::to_owned)) else {
            kept.push(target);
            continue;
        };
        let hosts = kept_under.entry(vm).or_default();
        let mut doubt = None;
        let mut is_same = false;
        for host in hosts.iter() {
            let pair = (host.clone(), target.host.clone());
            let relation =
                relations.entry(pair.clone()).or_insert_with(|| relation(&pair.0, &pair.1, daemons));
            match relation {
                Relation::Same => {
                    *left_out.entry(pair).or_default() += 1;
                    is_same = true;
                    break;
                }
                // The first is enough: many hosts that are alike make too many pairs for a notice each.
                Relation::Doubtful(why) if doubt.is_none() => doubt = Some((pair, why.clone())),
                Relation::Doubtful(_) | Relation::Other => {}
            }
        }
        if is_same {
            continue;
        }
        if let Some((pair, why)) = doubt {
            in_doubt.entry(pair).or_insert((why, 0)).1 += 1;
        }
        hosts.push(target.host.clone());
        kept.push(target);
    }
    let same = left_out.into_iter().map(|((host, alias), vms)| Notice::SameDaemon { host, alias, vms });
    let doubts = in_doubt.into_iter().map(|((host, other), (doubt, vms))| Notice::PerhapsSameDaemon {
        host,
        other,
        vms,
        doubt,
    });
    (kept, same.chain(doubts).collect())
}

fn relation(host: &HostId, other: &HostId, daemons: &Daemons) -> Relation {
    let (one, two) = match (daemons.get(host), daemons.get(other)) {
        (Some(Ok(one)), Some(Ok(two))) => (one, two),
        (Some(Err(error)), _) => {
            return Relation::Doubtful(Doubt::NotAsked { host: host.clone(), error: error.clone() });
        }
        (_, Some(Err(error))) => {
            return Relation::Doubtful(Doubt::NotAsked { host: other.clone(), error: error.clone() });
        }
        // Every host that shares a VM is asked.
        (None, _) | (_, None) => return Relation::Other,
    };
    if one.machine.is_none() || one.machine != two.machine {
        return Relation::Other;
    }
    if one.hostname != two.hostname {
        let (hostname, other) = (one.hostname.clone(), two.hostname.clone());
        return Relation::Doubtful(Doubt::HostNames { hostname, other });
    }
    let all = one.vms.keys().chain(two.vms.keys());
    let different =
        all.map(|uuid| (one.vms.get(uuid), two.vms.get(uuid))).find(|(here, there)| here != there);
    match different {
        None => Relation::Same,
        Some((here, there)) => {
            let vm = here.or(there).map(|vm| vm.name.clone()).unwrap_or_default();
            let (state, other) = (described(here, &vm), described(there, &vm));
            Relation::Doubtful(Doubt::Vm { vm, state, other })
        }
    }
}

/// What a daemon lists of a VM that is known by this name.
fn described(vm: Option<&Vm>, known_as: &str) -> String {
    let Some(Vm { name, id, state }) = vm else { return "not there".to_owned() };
    let id = id.map(|id| format!(" with the id {id}")).unwrap_or_default();
    let name = if name == known_as { String::new() } else { format!(" as {name:?}") };
    format!("{state}{id}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(vm: u128, name: &str, running_as: Option<u32>) -> DomainInfo {
        let state = if running_as.is_some() { DomainState::Running } else { DomainState::ShutOff };
        DomainInfo { id: running_as, ..DomainInfo::new(name, Uuid::from_u128(vm), state) }
    }

    fn target(host: &str, vm: u128, name: &str) -> Target {
        Target { host: host.parse().unwrap(), domain: Some(domain(vm, name, None)) }
    }

    /// A daemon on the machine of that number and name, with these VMs, each with its id if it runs.
    fn daemon(machine: u128, hostname: &str, vms: &[(u128, &str, Option<u32>)]) -> Result<Daemon, String> {
        let domains = vms.iter().map(|&(vm, name, id)| domain(vm, name, id)).collect();
        Ok(Daemon::new(Some(Uuid::from_u128(machine)), hostname.to_owned(), domains))
    }

    fn daemons<const N: usize>(of: [(&str, Result<Daemon, String>); N]) -> Daemons {
        of.into_iter().map(|(host, daemon)| (host.parse().unwrap(), daemon)).collect()
    }

    fn names(targets: &[Target]) -> Vec<String> {
        targets.iter().map(Target::to_string).collect()
    }

    /// What is left of one VM that is listed under two ids, and the notices.
    fn merged(a: Result<Daemon, String>, b: Result<Daemon, String>) -> (Vec<String>, Vec<Notice>) {
        let targets = vec![target("a", 1, "x"), target("b", 1, "x")];
        let (kept, notices) = merge(targets, &daemons([("a", a), ("b", b)]));
        (names(&kept), notices)
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
        let one = || daemon(7, "box", &[(1, "x", Some(4)), (2, "y", None), (3, "not selected", None)]);
        let (kept, notices) = merge(targets, &daemons([("a", one()), ("b", one())]));
        assert_eq!(names(&kept), ["a/x", "a/y"]);
        let notice = Notice::SameDaemon { host: "a".parse().unwrap(), alias: "b".parse().unwrap(), vms: 2 };
        assert_eq!(notices, [notice]);
    }

    #[test]
    fn machines_that_only_share_a_uuid_are_two_and_the_notice_says_why() {
        let one = daemon(7, "box", &[(1, "x", Some(4))]);
        for (other, why) in [
            (daemon(7, "crate", &[(1, "x", Some(4))]), "host names are not (\"box\", \"crate\")"),
            (daemon(7, "box", &[(1, "x", None)]), "running with the id 4 under a and shut off under b"),
            (daemon(7, "box", &[(1, "x", Some(5))]), "id 4 under a and running with the id 5 under b"),
            (
                daemon(7, "box", &[(1, "x", Some(4)), (2, "y", None)]),
                "VM \"y\" is not there under a and shut off under b",
            ),
            (daemon(7, "box", &[(1, "z", Some(4))]), "under a and running with the id 4 as \"z\" under b"),
            (Err("no answer".to_owned()), "b could not be asked for the UUID of its machine: no answer"),
        ] {
            for (a, b) in [(one.clone(), other.clone()), (other.clone(), one.clone())] {
                let (kept, notices) = merged(a, b);
                assert_eq!(kept, ["a/x", "b/x"]);
                assert_eq!(notices.len(), 1, "{why}");
                let text = notices[0].to_string();
                assert!(
                    text.starts_with("b may be the same host as a, and is treated as another: "),
                    "{text}"
                );
                assert!(text.ends_with("; VMs selected under both are processed under both: 1"), "{text}");
            }
            let text = merged(one.clone(), other).1[0].to_string();
            assert!(text.contains(why), "{text} does not say {why}");
        }
    }

    #[test]
    fn a_vm_on_the_way_between_hosts_is_there_twice_without_a_notice() {
        let one = daemon(7, "box", &[(1, "x", Some(4))]);
        let unknown = || Ok(Daemon::new(None, "box".to_owned(), vec![domain(1, "x", Some(4))]));
        for (a, b) in [
            (one.clone(), daemon(8, "box", &[(1, "x", Some(4))])),
            (unknown(), unknown()),
            (one.clone(), unknown()),
        ] {
            assert_eq!(merged(a, b), (vec!["a/x".to_owned(), "b/x".to_owned()], Vec::new()));
        }
        let renamed = vec![target("a", 1, "x"), target("b", 1, "copy")];
        assert_eq!(merge(renamed, &daemons([("a", one.clone()), ("b", one)])).0.len(), 2);
    }

    #[test]
    fn each_of_many_machines_that_are_alike_has_one_notice() {
        let hosts = ["a", "b", "c", "d"];
        let targets = hosts.iter().map(|host| target(host, 1, "x")).collect();
        // The second and the fourth are one.
        let answers = [1, 2, 3, 2].map(|id| daemon(7, "box", &[(1, "x", Some(id))]));
        let daemons =
            hosts.iter().zip(answers).map(|(host, daemon)| (host.parse().unwrap(), daemon)).collect();
        let (kept, notices) = merge(targets, &daemons);
        assert_eq!(names(&kept), ["a/x", "b/x", "c/x"]);
        let pairs: Vec<_> = notices
            .iter()
            .map(|notice| match notice {
                Notice::SameDaemon { host, alias, .. } => format!("{host}={alias}"),
                Notice::PerhapsSameDaemon { host, other, .. } => format!("{host}?{other}"),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(pairs, ["b=d", "a?b", "a?c"]);
    }

    #[test]
    fn daemons_that_differ_in_their_vms_alone_are_asked_again() {
        let asked = daemons([
            ("a", daemon(7, "box", &[(1, "x", Some(4))])),
            ("b", daemon(7, "box", &[(1, "x", None)])),
            ("c", daemon(7, "box", &[(1, "x", Some(4))])),
            ("other-name", daemon(7, "crate", &[(1, "x", None)])),
            ("other-machine", daemon(8, "box", &[(1, "x", None)])),
            ("silent", Err("no answer".to_owned())),
        ]);
        let again: Vec<_> = undecided(&asked).into_iter().map(|host| host.to_string()).collect();
        assert_eq!(again, ["a", "b", "c"]);
        let settled = daemons([("a", daemon(7, "box", &[])), ("b", daemon(7, "box", &[]))]);
        assert!(undecided(&settled).is_empty());
    }
}
