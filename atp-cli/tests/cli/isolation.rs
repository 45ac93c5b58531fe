//! Scenarios that take their VMs back to a snapshot, on a simulated fleet.

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use atp_fleet::{Fleet, FleetOptions, VmFault};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::atp::{Home, NATIVE, Run, simulated};

const VMS: u64 = 20;

/// The maximum time for all VMs to come to a step, on a busy machine.
const SOON: Duration = Duration::from_secs(100);

struct Bed {
    fleet: Fleet,
    home: Home,
    settings: String,
    _runtime: Runtime,
}

impl Bed {
    /// Two hosts with ten VMs each, which have the snapshot `clean`.
    fn new() -> Self {
        let options = FleetOptions { hosts: 2, vms: 10, seed: 7, ..FleetOptions::default() };
        let (fleet, home, settings, runtime) = simulated(options, NATIVE);
        let bed = Bed { fleet, home, settings, _runtime: runtime };
        bed.run(&["snapshot", "create", "*", "clean"]).exits(0);
        bed
    }

    fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        ["--config", &self.settings, "-o", "json", "--yes"].iter().chain(args).copied().collect()
    }

    fn run(&self, args: &[&str]) -> Run {
        self.home.run(self.args(args))
    }

    fn start(&self, args: &[&str]) -> Child {
        let mut command = self.home.atp(self.args(args));
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The scenario with these steps, which are lists in YAML's short form.
    fn scenario(&self, steps: &str, teardown: &str) -> String {
        let text = format!(
            "name: s\ntargets: '*'\nisolate: {{snapshot: clean}}\nsteps: [{steps}]\nteardown: [{teardown}]\n"
        );
        self.home.write("scenario.yaml", &text).display().to_string()
    }

    /// How many VMs have ended this program more than `before` times.
    fn ran(&self, program: &str, before: u64) -> u64 {
        let vms = self.fleet.hosts().flat_map(|host| (1..=10).filter_map(move |number| host.vm(number)));
        vms.filter(|vm| vm.counts().programs.of(program) > before).count() as u64
    }

    /// Asserts that no VM has a file that a step of a scenario makes.
    #[track_caller]
    fn is_clean(&self) {
        let looked = self.run(&["exec", "*", "--", "cat", FILE]);
        let outcomes = looked.outcomes();
        assert_eq!(outcomes.len() as u64, VMS);
        for outcome in outcomes {
            assert_eq!(outcome["error"]["kind"], "exit-nonzero", "{outcome}");
        }
    }
}

const FILE: &str = "/changed";

/// A step that makes the file.
const CHANGE: &str = "{qga: [guest-file-open, path=/changed, mode=w]}";

/// A step that goes on until it is ended, and whose program shows that it was begun.
const BLOCK: &str = "{wait: {exec: ['false']}, timeout: 10m}";

#[test]
fn a_vm_begins_and_ends_at_its_snapshot_whether_its_steps_succeed_or_fail() {
    let bed = Bed::new();
    bed.run(&["qga", "*", "--", "guest-file-open", "path=/changed", "mode=w"]).exits(0);
    // What was there before is gone before the first step.
    let look = "{exec: [cat, /changed]}, {assert: {exit_code: 1}}";
    for (steps, exit, restored) in
        [(format!("{look}, {CHANGE}"), 0, true), (format!("{CHANGE}, {{exec: ['false']}}"), 1, true)]
    {
        let run = bed.run(&["run", &bed.scenario(&steps, CHANGE)]).exits(exit);
        let outcomes = run.outcomes();
        assert_eq!(outcomes.len() as u64, VMS);
        for outcome in outcomes {
            let isolated = json!({"snapshot": "clean", "restored": restored});
            assert_eq!(
                (&outcome["data"]["isolated"], &outcome["effect"]),
                (&isolated, &json!("done")),
                "{outcome}"
            );
        }
        bed.is_clean();
    }
}

#[test]
fn a_vm_without_the_snapshot_fails_before_its_first_step() {
    let bed = Bed::new();
    bed.run(&["snapshot", "delete", "h1/vm1", "clean"]).exits(0);
    let run = bed.run(&["run", &bed.scenario("{exec: ['true']}", CHANGE)]).exits(1);
    for outcome in run.outcomes() {
        let missing = outcome["host"] == "h1" && outcome["vm"] == "vm1";
        let expected = if missing { json!("snapshot-not-found") } else { json!(null) };
        assert_eq!(outcome["error"]["kind"], expected, "{outcome}");
        assert_eq!(outcome["effect"], if missing { "none" } else { "done" }, "{outcome}");
    }
}

#[test]
fn what_is_done_besides_the_steps_is_an_effect() {
    let bed = Bed::new();
    // The steps only look; the VM was taken back to its snapshot.
    let looks = bed.scenario("{wait: agent}, {assert: {state: paused}}", "{wait: agent}");
    let folder = bed.home.path("evidence").display().to_string();
    let text = format!(
        "name: s\ntargets: '*'\nsteps: [{{wait: agent}}, {{assert: {{state: paused}}}}]\n\
         evidence: {{folder: '{folder}', commands: ['touch /x']}}\n"
    );
    let evidence = bed.home.write("evidence.yaml", &text).display().to_string();
    for scenario in [looks, evidence] {
        let run = bed.run(&["run", &scenario]).exits(1);
        for outcome in run.outcomes() {
            assert_eq!(outcome["effect"], "done", "{scenario}: {outcome}");
        }
    }
}

#[test]
fn a_run_that_is_killed_at_any_step_is_undone_by_its_resume() {
    let bed = Bed::new();
    // Before the first step, between steps, after the last one, and in the teardown.
    let boundaries = [
        (format!("{BLOCK}, {CHANGE}"), CHANGE.to_owned()),
        (format!("{CHANGE}, {BLOCK}, {CHANGE}"), CHANGE.to_owned()),
        (format!("{CHANGE}, {CHANGE}, {BLOCK}"), CHANGE.to_owned()),
        (CHANGE.to_owned(), format!("{CHANGE}, {BLOCK}")),
    ];
    for (number, (steps, teardown)) in boundaries.iter().enumerate() {
        let scenario = bed.scenario(steps, teardown);
        let journal = bed.home.path(&format!("journal-{number}")).display().to_string();
        let before = bed.fleet.hosts().flat_map(|host| (1..=10).filter_map(move |number| host.vm(number)));
        let before = before.map(|vm| vm.counts().programs.of("false")).max().unwrap();
        let mut killed = bed.start(&["run", &scenario, "--journal", &journal]);
        let deadline = Instant::now() + SOON;
        while bed.ran("false", before) < VMS {
            assert!(Instant::now() < deadline, "boundary {number}: {} VMs", bed.ran("false", before));
            thread::sleep(Duration::from_millis(10));
        }
        killed.kill().unwrap();
        killed.wait().unwrap();
        let resumed = bed.run(&["run", &scenario, "--resume", &journal]).exits(1);
        let outcomes = resumed.outcomes();
        assert_eq!(outcomes.len() as u64, VMS, "boundary {number}");
        for outcome in outcomes {
            let brief =
                (&outcome["error"]["kind"], &outcome["effect"], &outcome["data"]["isolated"]["restored"]);
            let expected = (&json!("outcome-unknown"), &json!("unknown"), &json!(true));
            assert_eq!(brief, expected, "boundary {number}: {outcome}");
        }
        bed.is_clean();
        // It is done: nothing is undone a second time.
        let again = bed.run(&["run", &scenario, "--resume", &journal]).exits(1);
        assert!(again.outcomes().iter().all(|outcome| outcome["error"]["kind"] == "outcome-unknown"));
    }
}

#[test]
fn a_revert_that_is_cut_off_is_unknown_and_hurts_no_other() {
    let bed = Bed::new();
    bed.fleet.host(1).unwrap().vm(1).unwrap().set_fault(VmFault::Hung);
    for verb in [&["snapshot", "revert", "*", "clean"][..], &["snapshot", "create", "*", "second"]] {
        let run = bed.run(&[verb, &["--timeout", "15s"]].concat()).exits(1);
        for outcome in run.outcomes() {
            let hung = outcome["host"] == "h1" && outcome["vm"] == "vm1";
            let brief = (&outcome["status"], &outcome["effect"]);
            let expected =
                if hung { (&json!("timeout"), &json!("unknown")) } else { (&json!("ok"), &json!("done")) };
            // The second one finds the monitor occupied by the first: nothing is sent.
            let refused = hung && outcome["error"]["kind"] == "monitor-busy" && outcome["effect"] == "none";
            assert!(refused || brief == expected, "{verb:?}: {outcome}");
        }
    }
}
