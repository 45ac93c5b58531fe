//! `atp` on a simulated fleet with faults. The fleet counts what was really executed.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use atp_fleet::{Fleet, FleetOptions, HostFault, VmFault};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::atp::{Home, Run, simulated};

/// The engines.
const ENGINES: [&str; 2] = ["library", "native"];

/// The time limit for a target where some hang. Each such run takes this long, and healthy targets have to finish within it on a
/// busy machine.
const TIME: &str = "12s";

/// A fleet, and `atp` with its settings.
struct Bed {
    fleet: Fleet,
    home: Home,
    settings: String,
    _runtime: Runtime,
}

impl Bed {
    fn new(engine: &str, hosts: u32, vms: u32, seed: u64, faults: &str) -> Self {
        let faults = faults.parse().unwrap();
        Bed::with(engine, FleetOptions { hosts, vms, seed, faults, ..FleetOptions::default() })
    }

    fn with(engine: &str, options: FleetOptions) -> Self {
        let (fleet, home, settings, runtime) =
            simulated(options, &format!("[transport]\nengine = \"{engine}\"\n"));
        Bed { fleet, home, settings, _runtime: runtime }
    }

    fn run(&self, args: &[&str]) -> Run {
        self.home.run(["--config", &self.settings, "-o", "json"].iter().chain(args))
    }

    /// How often each VM ran a program, by `h1/vm1`. Hung calls are executed first.
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

/// Tests both engines side by side, since tests with hosts that hang mostly wait.
fn for_engines<T: Send>(test: impl Fn(&'static str) -> T + Sync) -> [T; 2] {
    let test = &test;
    thread::scope(|scope| {
        ENGINES.map(|engine| scope.spawn(move || test(engine))).map(|thread| thread.join().unwrap())
    })
}

#[test]
fn the_numbers_of_outcomes_follow_from_the_faults() {
    for_engines(|engine| {
        let bed = Bed::new(engine, 100, 1, 1, "refused=3,hung=5,agent-absent=2,shut-off=1");
        let run = bed.run(&["--timeout", TIME, "exec", "*", "--", "hostname"]).exits(1);
        // Those without an agent and the one that is shut off have failed.
        let expected = counts([("ok", 89), ("timeout", 5), ("failed", 3), ("unreachable", 3)]);
        assert_eq!(statuses(&run), expected, "{engine}");
    });
}

#[test]
fn each_program_runs_once_or_is_reported_as_not_run() {
    for_engines(|engine| {
        for seed in 1..=2 {
            run_once_or_not(engine, seed);
        }
    });
}

fn run_once_or_not(engine: &str, seed: u64) {
    let faults = "refused=1,slow=4:30ms,flapping=6:400ms/200ms,cutting=8:6,hung=2,agent-silent=2";
    let bed = Bed::new(engine, 40, 2, seed, faults);
    let run = bed.run(&["--timeout", TIME, "--retries", "3", "exec", "*", "--", "hostname"]);
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
        assert!(is_true, "{engine}, seed {seed}: {name} ran it {count} times: {outcome:#}");
        ok += usize::from(outcome["status"] == "ok");
    }
    assert!(ran.values().all(|count| *count == 0), "{engine}, seed {seed}: run without an outcome: {ran:?}");
    // Half of the hosts have no fault.
    assert!(ok >= 36, "{engine}, seed {seed}: {:?}\n{}", statuses(&run), run.stderr);
}

#[test]
fn states_change_once_and_are_waited_for() {
    for_engines(change_states);
}

fn change_states(engine: &str) {
    let bed = Bed::new(engine, 30, 2, 1, "slow=10:20ms");
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
        assert_eq!(statuses(&run), counts([("ok", 60)]), "{engine}: {words:?}");
        assert_eq!(list(state), 60, "{engine}: after {words:?}");
    }
    let calls = ["Reboot", "Suspend", "Resume", "Shutdown", "Create"];
    for host in bed.fleet.hosts() {
        for (name, vm) in host.counts().vms {
            for call in calls.map(|call| format!("virDomain{call}")) {
                assert_eq!(vm.calls.of(&call), 1, "{engine}: {call} of {}/{name}", host.name());
            }
        }
    }
}

#[test]
fn both_engines_report_the_same() {
    compare(
        "refused=1,agent-absent=1,shut-off=2",
        "60s",
        &[
            &["vm", "list"],
            &["vm", "info", "*"],
            &["host", "check"],
            &["qmp", "*", "--", "query-status"],
            &["qmp", "*", "--", "nope"],
            &["qga", "*", "--", "guest-get-osinfo"],
            &["qga", "*", "--", "guest-nope"],
            &["exec", "*", "--", "hostname"],
            &["exec", "*", "--", "nope"],
            &["vm", "suspend", "--yes", "*"],
            &["vm", "suspend", "--yes", "*"],
            &["vm", "start", "*"],
            &["vm", "resume", "*"],
            &["vm", "reset", "--yes", "*"],
            &["screenshot", "-d", "shots", "*"],
            &["vm", "destroy", "--yes", "*"],
        ],
    );
}

#[test]
fn both_engines_report_the_same_of_hung_vms() {
    compare(
        "hung=2,agent-silent=1",
        TIME,
        &[
            &["exec", "*", "--", "hostname"],
            &["qmp", "*", "--", "query-status"],
            &["vm", "suspend", "--yes", "*"],
        ],
    );
}

/// Performs the same runs with each engine, on a fleet of its own, and compares all but times and messages.
fn compare(faults: &str, time: &str, runs: &[&[&str]]) {
    let report = |engine| {
        let bed = Bed::new(engine, 6, 3, 2, faults);
        let brief = |outcome: &Value| {
            let words = ["host", "vm", "status", "effect"].map(|key| word(&outcome[key]));
            let (error, data) = (&outcome["error"], without_times(&outcome["data"]));
            format!("{words:?} {} {} {data}", error["kind"], error["libvirt"])
        };
        let outcomes = |args: &&[&str]| {
            let run = bed.run(&[&["--timeout", time], *args].concat());
            (args.join(" "), run.outcomes().iter().map(brief).collect::<Vec<_>>())
        };
        runs.iter().map(outcomes).collect::<Vec<_>>()
    };
    let [library, native] = for_engines(report);
    for (library, native) in library.iter().zip(&native) {
        assert_eq!(library, native);
    }
    assert_eq!(library.len(), runs.len());
}

/// Data without what is measured.
fn without_times(data: &Value) -> Value {
    let mut data = data.clone();
    if let Some(data) = data.as_object_mut() {
        data.retain(|key, _| !key.ends_with("_ms") && !key.ends_with("_us"));
    }
    data
}

/// VMs of the first host that moves takes to others while `atp` works on them.
const MOVED_VMS: u32 = 24;

/// Runs `atp` while each VM of the first host is migrated at a moment within `span`, which the seed determines.
fn run_while_vms_move(bed: &Bed, seed: u64, span: Duration, args: &[&str]) -> Run {
    let millis = span.as_millis() as u64;
    let mut moves: Vec<(Duration, u32, u32)> = (1..=MOVED_VMS)
        .map(|vm| {
            let at = (u64::from(vm) * 7_919 + seed * 104_729) % millis;
            (Duration::from_millis(at), vm, 2 + vm % 2)
        })
        .collect();
    moves.sort();
    thread::scope(|scope| {
        let run = scope.spawn(|| bed.run(args));
        // The time in which the process starts is none in which it works. It ends early only if it fails, which is seen below.
        while bed.fleet.host(1).unwrap().counts().connections == 0 && !run.is_finished() {
            thread::sleep(Duration::from_millis(1));
        }
        let began = Instant::now();
        for (at, vm, to) in moves {
            thread::sleep(at.saturating_sub(began.elapsed()));
            bed.fleet.host(1).unwrap().vm(vm).unwrap().migrate(&bed.fleet.host(to).unwrap());
        }
        run.join().unwrap()
    })
}

/// How often something was executed in a VM of the first host, on all hosts together.
fn executed(bed: &Bed, vm: &str, count: impl Fn(&atp_fleet::VmCounts) -> u64) -> u64 {
    let hosts = bed.fleet.report().hosts;
    let of_host =
        |host: &atp_fleet::HostCounts, name: &str| host.vms.get(name).map(&count).unwrap_or_default();
    hosts
        .iter()
        .map(|(host, counts)| match host.as_str() {
            "h1" => of_host(counts, vm),
            _ => of_host(counts, &format!("h1-{vm}")),
        })
        .sum()
}

#[test]
fn a_vm_that_moves_at_any_moment_has_one_outcome_and_is_worked_on_at_most_once() {
    for engine in ENGINES {
        let mut followed = 0;
        for seed in 0..3 {
            let bed = Bed::new(engine, 3, MOVED_VMS, seed, "");
            let args = ["--timeout", "40s", "exec", "h1/", "--", "sleep", "1"];
            let run = run_while_vms_move(&bed, seed, Duration::from_millis(2_500), &args);
            let outcomes = run.outcomes();
            assert_eq!(outcomes.len(), MOVED_VMS as usize, "{engine} {seed}");
            for outcome in outcomes {
                let vm = outcome["vm"].as_str().unwrap();
                let times = executed(&bed, vm, |counts| counts.programs.of("sleep 1"));
                let is_true = match (outcome["status"].as_str().unwrap(), outcome["effect"].as_str().unwrap())
                {
                    ("ok", "done") => times == 1,
                    // It was an old place already when it was listed.
                    ("failed", "none") => times == 0 && outcome["error"]["kind"] == "vm-moved",
                    _ => false,
                };
                assert!(is_true, "{engine} {seed}: executed {times} times: {outcome}");
                followed += usize::from(outcome["status"] == "ok" && outcome["found_on"].is_string());
            }
        }
        assert!(followed > 5, "{engine}: only {followed} moved while they were worked on");
    }
}

#[test]
fn a_vm_that_moves_at_any_moment_is_destroyed_once_or_said_to_have_moved() {
    for engine in ENGINES {
        for seed in 0..3 {
            let bed = Bed::new(engine, 3, MOVED_VMS, seed, "");
            let args = ["--timeout", "40s", "vm", "destroy", "h1/", "--yes"];
            let run = run_while_vms_move(&bed, seed, Duration::from_millis(700), &args);
            let outcomes = run.outcomes();
            assert_eq!(outcomes.len(), MOVED_VMS as usize, "{engine} {seed}");
            for outcome in outcomes {
                let times = executed(&bed, outcome["vm"].as_str().unwrap(), |counts| {
                    counts
                        .calls
                        .iter()
                        .filter(|(name, _)| name.contains("Destroy"))
                        .map(|(_, times)| times)
                        .sum()
                });
                let is_true = match outcome["status"].as_str().unwrap() {
                    "ok" => times == 1 && outcome["found_on"].is_null(),
                    "failed" => times == 0 && outcome["error"]["kind"] == "vm-moved",
                    _ => false,
                };
                assert!(is_true, "{engine} {seed}: destroyed {times} times: {outcome}");
            }
        }
    }
}

#[test]
fn a_start_contacts_the_hosts_of_its_selection_and_all_others_only_if_it_is_told_to() {
    for_engines(|engine| {
        let bed = Bed::new(engine, 4, 2, 1, "");
        let h1 = bed.fleet.host(1).unwrap();
        [1, 2].into_iter().for_each(|vm| h1.vm(vm).unwrap().set_fault(VmFault::ShutOff));
        bed.fleet.host(3).unwrap().set_fault(HostFault::Dead);
        let contacted = || bed.fleet.report().hosts.into_keys().collect::<Vec<_>>();

        bed.run(&["vm", "start", "h1/vm1"]).exits(0);
        assert_eq!(contacted(), ["h1"], "{engine}");
        // One that does not answer has a second. Without that, it would have the minute.
        let run = bed.run(&["--timeout", "1m", "vm", "start", "h1/vm2", "--ask-all-hosts"]).exits(1);
        assert_eq!(contacted(), ["h1", "h2", "h3", "h4"], "{engine}");
        let outcome = &run.outcomes()[0];
        assert_eq!(outcome["error"]["kind"], "vm-moved", "{engine}: {outcome:#}");
        assert!(word(&outcome["error"]["message"]).contains("h3"), "{engine}: {outcome:#}");
        assert!(outcome["duration_ms"].as_u64().unwrap() < 30_000, "{engine}: {outcome:#}");
    });
}

#[test]
fn a_scenario_does_nothing_to_a_vm_where_it_is_excluded_or_a_target_of_its_own() {
    const ALONE: &str = "targets: h1/vm1\nexclude: h2/";
    const BOTH: &str = "targets: '*/*vm1'";
    for (targets, looks) in
        [(ALONE, "wait: agent"), (ALONE, "assert: {state: running}"), (BOTH, "wait: agent")]
    {
        let bed = Bed::new("native", 2, 1, 1, "");
        let [h1, h2] = [1, 2].map(|number| bed.fleet.host(number).unwrap());
        assert!(h1.vm(1).unwrap().migrate(&h2));
        let text = format!("name: s\n{targets}\nsteps:\n  - {looks}\n  - exec: [echo, here]\n");
        let file = bed.home.write("s.yaml", &text).display().to_string();
        let outcomes = bed.run(&["--timeout", "20s", "run", &file]).exits(1).outcomes();
        let old = outcomes.iter().find(|outcome| outcome["host"] == "h1").unwrap();
        assert_eq!(
            (&old["status"], &old["error"]["kind"]),
            (&json!("failed"), &json!("vm-moved")),
            "{old:#}"
        );
        let times = executed(&bed, "vm1", |counts| counts.programs.of("echo here"));
        assert_eq!(times, u64::from(targets == BOTH), "{targets}, {looks}: {outcomes:#?}");
    }
}

/// As virtqemud behind virtproxyd, which answers pings.
#[test]
fn a_daemon_that_hangs_behind_a_proxy_is_named_with_its_proxy() {
    for_engines(|engine| {
        let bed = Bed::new(engine, 1, 1, 1, "");
        bed.fleet.host(1).unwrap().set_fault(HostFault::Behind);
        let run = bed.run(&["--timeout", "10s", "vm", "info", "h1/vm1"]).exits(1);
        let outcome = &run.outcomes()[0];
        let hint = word(&outcome["error"]["hint"]);
        assert!(hint.contains("virtqemud") && hint.contains("virtproxyd"), "{engine}: {outcome:#}");
    });
}

/// Newer daemons ask QEMU for parts of a definition.
#[test]
fn a_vm_whose_qemu_hangs_is_shown_as_far_as_its_daemon_knows_it() {
    for_engines(|engine| {
        let options = FleetOptions { vms: 2, asks_qemu_for_definitions: true, ..FleetOptions::default() };
        let bed = Bed::with(engine, options);
        bed.fleet.hosts().next().unwrap().vm(1).unwrap().set_fault(VmFault::Hung);

        let run = bed.run(&["--timeout", TIME, "vm", "info", "*"]).exits(1);
        let outcomes = run.outcomes();
        let [hung, healthy] =
            ["vm1", "vm2"].map(|vm| outcomes.iter().find(|outcome| outcome["vm"] == vm).unwrap());
        assert_eq!(
            (&hung["status"], &hung["effect"]),
            (&json!("timeout"), &json!("none")),
            "{engine}: {hung:#}"
        );
        assert_eq!(hung["error"]["kind"], "call-timeout", "{engine}: {hung:#}");
        assert!(hung["error"]["message"].as_str().unwrap().contains("virDomainGetXMLDesc"), "{hung:#}");
        let known = |vm: &Value| ["state", "vcpus", "memory_kib"].map(|field| vm["data"][field].clone());
        assert_eq!(known(hung), known(healthy), "{engine}: {hung:#}");
        assert_eq!((&hung["data"]["state"], &hung["data"]["agent"]), (&json!("running"), &Value::Null));
        assert_eq!((&healthy["status"], healthy["data"]["agent"].is_string()), (&json!("ok"), true));
        assert!(hung["duration_ms"].as_u64().unwrap() < 12_000, "{engine}: {hung:#}");

        let run = bed.run(&["--timeout", TIME, "doctor", "*"]).exits(1);
        let outcomes = run.outcomes();
        let hung = outcomes.iter().find(|outcome| outcome["vm"] == "vm1").unwrap();
        let finding = |check: &str| {
            let findings = hung["data"]["findings"].as_array().unwrap();
            findings.iter().find(|finding| finding["check"] == check).map(|finding| word(&finding["message"]))
        };
        assert_eq!(finding("vm").unwrap(), "running, 2 vCPUs, 1024 MiB of memory", "{engine}: {hung:#}");
        assert!(finding("definition").unwrap().contains("no answer after"), "{engine}: {hung:#}");
    });
}
