//! `atp` on many hosts at once, some of which fail: a simulated fleet, whose counts say what was really done.

use std::collections::BTreeMap;

use atp_fleet::{Fleet, FleetOptions, VmFault};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::atp::{Home, Run};

/// A fleet, and `atp` with its settings.
struct Bed {
    fleet: Fleet,
    home: Home,
    settings: String,
    _runtime: Runtime,
}

impl Bed {
    fn new(hosts: u32, vms: u32, seed: u64, faults: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let faults = faults.parse().unwrap();
        let options = FleetOptions { hosts, vms, seed, faults, ..FleetOptions::default() };
        let fleet = runtime.block_on(Fleet::start(options)).unwrap();
        let home = Home::new();
        let settings = home.write("fleet.toml", &fleet.settings()).display().to_string();
        Bed { fleet, home, settings, _runtime: runtime }
    }

    fn run(&self, args: &[&str]) -> Run {
        self.home.run(["--config", &self.settings, "-o", "json"].iter().chain(args))
    }

    /// How often each VM ran a program, by `h1/vm1`. What hung is carried out first.
    fn ran(&self, program: &str) -> BTreeMap<String, u64> {
        let mut ran = BTreeMap::new();
        for host in self.fleet.hosts() {
            let vms = (1..).map_while(|number| host.vm(number).map(|vm| (number, vm)));
            for (number, vm) in vms {
                if vm.fault() == Some(VmFault::Hung) {
                    vm.set_fault(None);
                }
                ran.insert(format!("{}/vm{number}", host.name()), vm.counts().programs.of(program));
            }
        }
        ran
    }
}

/// How many outcomes have each status.
fn statuses(run: &Run) -> BTreeMap<String, usize> {
    let mut statuses = BTreeMap::new();
    for outcome in run.outcomes() {
        *statuses.entry(word(&outcome["status"])).or_default() += 1;
    }
    statuses
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn counts<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    expected.into_iter().map(|(status, count)| (status.to_owned(), count)).collect()
}

#[test]
fn outcomes_are_in_the_numbers_of_the_faults() {
    let bed = Bed::new(100, 1, 1, "refused=3,hung=5,agent-absent=2,shut-off=1");
    let run = bed.run(&["--timeout", "3s", "exec", "*", "--", "hostname"]).exits(1);
    // Those without an agent and the one that is shut off have failed.
    assert_eq!(statuses(&run), counts([("ok", 89), ("timeout", 5), ("failed", 3), ("unreachable", 3)]));
}

#[test]
fn each_program_is_run_once_or_said_not_to_have_been() {
    // Side by side, since each waits for what hangs.
    std::thread::scope(|scope| {
        for seed in 1..=4 {
            scope.spawn(move || run_once_or_not(seed));
        }
    });
}

fn run_once_or_not(seed: u64) {
    let faults = "refused=1,dead=1,slow=4:30ms,flapping=6:400ms/200ms,cutting=8:6,hung=2,agent-silent=2";
    let bed = Bed::new(40, 2, seed, faults);
    let run = bed.run(&["--timeout", "2s", "--retries", "3", "exec", "*", "--", "hostname"]);
    let mut ran = bed.ran("hostname");
    let mut ok = 0;
    for outcome in run.outcomes() {
        let name = format!("{}/{}", word(&outcome["host"]), word(&outcome["vm"]));
        // Hosts that could not be listed have one outcome.
        let Some(count) = ran.remove(&name) else { continue };
        let is_true = match (outcome["status"].as_str(), outcome["effect"].as_str()) {
            (Some("ok"), Some("done")) => count == 1,
            (_, Some("none")) => count == 0,
            (_, Some("unknown")) => count <= 1,
            _ => false,
        };
        assert!(is_true, "seed {seed}: {name} ran it {count} times: {outcome:#}");
        ok += usize::from(outcome["status"] == "ok");
    }
    assert!(ran.values().all(|count| *count == 0), "seed {seed}: run without an outcome: {ran:?}");
    // Half of the hosts have no fault.
    assert!(ok >= 36, "seed {seed}: {:?}", statuses(&run));
}

#[test]
fn states_change_once_and_are_waited_for() {
    let bed = Bed::new(30, 2, 1, "slow=10:20ms");
    let list = |state: &str| {
        let listed = bed.run(&["vm", "list"]).exits(0).outcomes();
        listed.iter().filter(|vm| vm["data"]["state"] == state).count()
    };
    assert_eq!(list("running"), 60);
    for (words, state) in [
        (&["vm", "reboot", "--wait"][..], "running"),
        (&["vm", "suspend"], "paused"),
        (&["vm", "resume"], "running"),
        (&["vm", "shutdown", "--wait"], "shut off"),
        (&["vm", "start", "--wait"], "running"),
    ] {
        let run = bed.run(&[words, &["--yes", "*"]].concat()).exits(0);
        assert_eq!(statuses(&run), counts([("ok", 60)]), "{words:?}");
        assert_eq!(list(state), 60, "after {words:?}");
    }
    let calls = ["Reboot", "Suspend", "Resume", "Shutdown", "Create"];
    for host in bed.fleet.hosts() {
        for (name, vm) in host.counts().vms {
            for call in calls.map(|call| format!("virDomain{call}")) {
                assert_eq!(vm.calls.of(&call), 1, "{call} of {}/{name}", host.name());
            }
        }
    }
}
