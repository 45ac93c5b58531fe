//! What steps of scenarios find in guests, and evidence, on a simulated fleet.

use std::fs;
use std::path::PathBuf;

use atp_fleet::{Exit, Fleet, FleetOptions, Programs, VmFault};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::atp::{Home, NATIVE, simulated};

struct Bed {
    fleet: Fleet,
    home: Home,
    settings: String,
    _runtime: Runtime,
}

impl Bed {
    /// A host with two VMs. In `vm2` the shell is killed that looks at a file.
    fn new() -> Self {
        let programs = Programs::new(|execution| {
            let looks = execution.args.iter().any(|word| word.contains("stat -L"));
            (execution.vm == "vm2" && looks).then(|| Exit { code: 137, ..Exit::default() })
        });
        let options = FleetOptions {
            hosts: 1,
            vms: 2,
            seed: 7,
            programs: Some(programs.into()),
            ..FleetOptions::default()
        };
        let (fleet, home, settings, runtime) = simulated(options, NATIVE);
        Bed { fleet, home, settings, _runtime: runtime }
    }

    /// The outcomes of a scenario with these keys and steps, by VM.
    fn run(&self, targets: &str, rest: &str, timeout: &str) -> Vec<Value> {
        let text = format!("name: s\ntargets: {targets}\n{rest}\n");
        let scenario = self.home.write("scenario.yaml", &text).display().to_string();
        let args =
            ["--config", &self.settings, "-o", "json", "--yes", "--timeout", timeout, "run", &scenario];
        self.home.run(args).outcomes()
    }

    fn evidence(&self) -> PathBuf {
        self.home.path("evidence")
    }
}

#[test]
fn a_file_is_there_or_is_not_and_a_guest_that_cannot_say_fails_the_step() {
    let bed = Bed::new();
    let there = "{qga: [guest-file-open, path=/there, mode=w]}";
    let outcomes = bed.run(
        "h1/",
        &format!(
            "steps: [{there}, {{assert: {{file: {{path: /there}}}}}}, {{assert: {{file: {{path: /there, matches: '^$'}}}}}}, \
             {{assert: {{file: {{path: /none, exists: false}}}}}}]"
        ),
        "20s",
    );
    assert_eq!(outcomes[0]["status"], "ok", "{outcomes:?}");
    let steps = outcomes[1]["data"]["steps"].as_array().unwrap();
    assert_eq!((steps.len(), &steps[1]["error"]["kind"]), (2, &json!("guest-file-error")), "{outcomes:?}");
    let outcomes = bed.run(
        "h1/",
        &format!("steps: [{there}, {{assert: {{file: {{path: /none, exists: false}}}}}}]"),
        "20s",
    );
    assert_eq!(outcomes[0]["status"], "ok", "{outcomes:?}");
    assert_eq!(outcomes[1]["error"]["kind"], "guest-file-error", "{outcomes:?}");
    for (file, message) in [
        ("path: /none", "step 2 (assert): /none is not there"),
        ("path: /there, exists: false", "step 2 (assert): /there is there"),
        ("path: /there, matches: x", "step 2 (assert): /there does not match /x/"),
    ] {
        let outcomes =
            bed.run("h1/vm1", &format!("steps: [{there}, {{assert: {{file: {{{file}}}}}}}]"), "20s");
        assert_eq!(outcomes[0]["error"]["message"], message);
        assert_eq!(outcomes[0]["error"]["kind"], "assertion-failed");
    }
}

#[test]
fn an_assert_is_not_repeated_for_what_stays_wrong() {
    let bed = Bed::new();
    for (assert, attempts) in [
        ("stdout: two, file: {path: /none}", 1),
        ("stdout: one, file: {path: /none}", 3),
        ("state: running, stdout: two", 1),
    ] {
        let steps = format!(
            "steps: [{{exec: [echo, one]}}, {{assert: {{{assert}}}, retry: {{times: 2, every: 10ms}}}}]"
        );
        let outcomes = bed.run("h1/vm1", &steps, "20s");
        assert_eq!(outcomes[0]["error"]["kind"], "assertion-failed", "{outcomes:?}");
        assert_eq!(outcomes[0]["data"]["steps"][1]["attempts"], attempts, "{outcomes:?}");
    }
}

#[test]
fn a_command_that_hangs_leaves_time_to_the_others_and_yields_what_it_has_printed() {
    let bed = Bed::new();
    let evidence = format!(
        "evidence: {{folder: '{}', console: 9, commands: ['echo begun; sleep 600', hostname]}}\n\
         steps: [{{exec: ['false']}}]",
        bed.evidence().display()
    );
    let outcomes = bed.run("h1/vm1", &evidence, "60s");
    let report = &outcomes[0]["data"]["evidence"];
    assert_eq!(report["missed"], json!([]), "{outcomes:?}");
    let text = |name: &str| fs::read_to_string(bed.evidence().join("h1/vm1").join(name)).unwrap();
    assert!(text("command-1.txt").starts_with("$ echo begun; sleep 600\nbegun\n[ended after "), "{report}");
    assert_eq!(text("command-2.txt"), "$ hostname\nvm1\n[exit code 0]\n");
    assert!(text("console.log").contains("vm1 login:"));
}

#[test]
fn a_vm_that_is_not_taken_to_its_snapshot_yields_evidence_also_if_its_qemu_hangs() {
    let bed = Bed::new();
    bed.home.run(["--config", &bed.settings, "snapshot", "create", "*", "clean"]).exits(0);
    bed.home.run(["--config", &bed.settings, "snapshot", "delete", "h1/vm2", "clean"]).exits(0);
    bed.fleet.host(1).unwrap().vm(1).unwrap().set_fault(VmFault::Hung);
    let rest = format!(
        "isolate: {{snapshot: clean}}\nevidence: {{folder: '{}', console: 9, screenshot: true, commands: [hostname]}}\n\
         steps: [{{exec: ['true']}}]",
        bed.evidence().display()
    );
    let outcomes = bed.run("h1/", &rest, "5s");
    // The console is open for a moment only if nothing hangs: what it writes may come too late.
    for (outcome, status, effect, files) in [
        (&outcomes[0], "timeout", "unknown", &["console.log"][..]),
        (&outcomes[1], "failed", "done", &["screen.png", "command-1.txt"]),
    ] {
        assert_eq!((&outcome["status"], &outcome["effect"]), (&json!(status), &json!(effect)), "{outcome}");
        let found = outcome["data"]["evidence"]["files"].as_array().unwrap();
        assert!(files.iter().all(|file| found.contains(&json!(file))), "{outcome}");
        let missed = outcome["data"]["evidence"]["missed"].as_array().unwrap();
        assert_eq!(missed.len() + found.len(), 3, "{outcome}");
        assert_eq!(outcome["data"]["steps"], json!([]), "{outcome}");
        let causes = outcome["error"]["causes"].to_string();
        assert!(causes.contains("evidence is in ") && causes.contains("h1/vm"), "{causes}");
    }
}

#[test]
fn no_fault_is_asserted_only_of_a_console_that_was_seen() {
    let bed = Bed::new();
    let none_of = "{assert: {console: {none_of: [panic]}}}";
    // A VM that is stopped and started is seen, and one that does not run writes nothing.
    let steps = format!("steps: [{none_of}, {{vm: destroy}}, {none_of}, {{vm: start}}, {none_of}]");
    let outcomes = bed.run("h1/vm1", &steps, "60s");
    assert_eq!(outcomes[0]["status"], "ok", "{outcomes:?}");
    // The console of a VM that is not started was never open.
    let steps = format!("steps: [{{vm: info}}, {none_of}]");
    bed.home.run(["--config", &bed.settings, "--yes", "vm", "destroy", "h1/vm2"]).exits(0);
    let outcomes = bed.run("h1/vm2", &steps, "60s");
    assert_eq!(outcomes[0]["error"]["kind"], "condition-not-met", "{outcomes:?}");
}
