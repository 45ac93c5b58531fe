//! `atp vm start|shutdown|reboot|reset|destroy|suspend|resume` on real guests.

use std::time::Duration;

use atp_e2e::{Bed, bed};

const AGENT: Duration = Duration::from_secs(60);

/// Runs a lifecycle command on one VM and checks its outcome and the state libvirt says it is in then.
#[track_caller]
fn changes(bed: &Bed, words: &str, expected: &str, state: &str) {
    let mut args = vec!["vm"];
    args.extend(words.split(' '));
    let run = bed.run(&args);
    let code = if expected.starts_with("failed") { 1 } else { 0 };
    run.exits_with(code);
    assert_eq!(run.brief(), [format!("h1/vm1 {expected}")], "{words}");
    assert_eq!(bed.host("h1").unwrap().guest("vm1").unwrap().state().unwrap(), state, "{words}");
}

/// Changes with every boot of the guest.
#[track_caller]
fn boot_id(bed: &Bed) -> String {
    let run = bed.run(&["exec", "h1/vm1", "--", "cat", "/proc/sys/kernel/random/boot_id"]);
    run.exits_with(0).outcome("h1/vm1").stream("stdout").to_owned()
}

#[test]
fn each_state_is_reached_once() {
    let bed = bed();
    changes(&bed, "suspend h1/vm1 --wait", "ok done", "paused");
    changes(&bed, "suspend h1/vm1 --wait", "unchanged none", "paused");
    changes(&bed, "resume h1/vm1 --wait", "ok done", "running");
    changes(&bed, "resume h1/vm1", "unchanged none", "running");
    changes(&bed, "start h1/vm1", "unchanged none", "running");
    changes(&bed, "shutdown h1/vm1 --wait", "ok done", "shut off");
    changes(&bed, "shutdown h1/vm1 --wait", "unchanged none", "shut off");
    changes(&bed, "destroy h1/vm1", "unchanged none", "shut off");
    for verb in ["suspend", "resume", "reboot", "reset"] {
        changes(&bed, &format!("{verb} h1/vm1"), "failed none vm-not-running", "shut off");
    }
    changes(&bed, "start h1/vm1 --wait", "ok done", "running");
    bed.host("h1").unwrap().guest("vm1").unwrap().wait_agent(AGENT).unwrap();
    changes(&bed, "destroy h1/vm1 --wait", "ok done", "shut off");
}

#[test]
fn reboot_and_reset_boot_the_guest_anew() {
    let bed = bed();
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    let mut boots = vec![boot_id(&bed)];
    for verb in ["reboot", "reset"] {
        changes(&bed, &format!("{verb} h1/vm1 --wait"), "ok done", "running");
        // The agent of the boot before may answer once more.
        atp_e2e::eventually("the guest is up again", AGENT, || {
            guest.wait_agent(AGENT).unwrap();
            let run = bed.run(&["exec", "h1/vm1", "--", "cat", "/proc/sys/kernel/random/boot_id"]);
            let now = run.outcome("h1/vm1").data["stdout"]["text"].as_str()?.to_owned();
            (!boots.contains(&now)).then(|| boots.push(now))
        });
    }
}

#[test]
fn several_vms_are_not_taken_away_without_consent() {
    let bed = bed();
    for verb in ["destroy", "reset", "reboot", "shutdown", "suspend"] {
        let run = bed.atp(&["vm", verb, "*/vm1"]).run();
        run.exits_with(2);
        assert_eq!(run.stdout(), "");
        assert!(run.stderr.contains("3 VMs needs consent; nothing was done"), "{}", run.stderr);
        assert!(run.stderr.contains("--yes"), "{}", run.stderr);
    }
    assert!(bed.guests().iter().all(|guest| guest.state().unwrap() == "running"));

    // What takes nothing away needs no consent, nor does a single VM.
    assert_eq!(bed.run(&["vm", "resume", "*/vm1"]).exits_with(0).brief().len(), 3);
    let run = bed.run(&["vm", "suspend", "*/vm1", "--yes"]);
    assert_eq!(run.exits_with(0).brief(), ["h1/vm1 ok done", "h2/vm1 ok done", "h3/vm1 ok done"]);
    let run = bed.run(&["vm", "resume", "*"]);
    assert_eq!(
        run.exits_with(0).brief(),
        [
            "h1/vm1 ok done",
            "h1/vm2 unchanged none",
            "h2/vm1 ok done",
            "h2/vm2 unchanged none",
            "h3/vm1 ok done",
            "h3/vm2 unchanged none",
        ]
    );
}

#[test]
fn a_dry_run_touches_nothing() {
    let bed = bed();
    bed.host("h2").unwrap().guest("vm2").unwrap().destroy().unwrap();
    let before = bed.run(&["vm", "list"]).outcomes();
    let run = bed.run(&["vm", "destroy", "h1/", "h2/", "--dry-run"]);
    run.exits_with(0);
    assert_eq!(
        run.brief(),
        ["h1/vm1 skipped none", "h1/vm2 skipped none", "h2/vm1 skipped none", "h2/vm2 unchanged none"]
    );
    assert!(run.outcomes().iter().all(|outcome| outcome.attempts == 0));
    let exec = bed.run(&["exec", "h1/vm1", "--dry-run", "--", "touch", "/tmp/dry"]);
    assert_eq!(exec.exits_with(0).brief(), ["h1/vm1 skipped none"]);
    assert_eq!(
        bed.run(&["exec", "h1/vm1", "--", "test", "-e", "/tmp/dry"]).brief(),
        ["h1/vm1 failed done exit-nonzero"]
    );
    let states = |outcomes: Vec<atp_e2e::Outcome>| -> Vec<_> {
        outcomes.into_iter().map(|outcome| (outcome.name(), outcome.data)).collect()
    };
    assert_eq!(states(bed.run(&["vm", "list"]).outcomes()), states(before));
}

#[test]
fn a_guest_that_ignores_the_request_is_a_timeout() {
    let bed = bed();
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    // Paused, it gets the request and cannot follow it.
    bed.host("h1").unwrap().virsh(&["suspend", guest.uuid()]).unwrap();
    let run = bed.run(&["--timeout", "3s", "vm", "shutdown", "h1/vm1", "--wait"]);
    run.exits_with(1).took_between(3, 13);
    let outcome = run.outcome("h1/vm1");
    assert_eq!((outcome.status.as_str(), outcome.failure().kind.as_str()), ("timeout", "state-not-reached"));
    assert_eq!(guest.state().unwrap(), "paused");
}

#[test]
fn a_hung_vm_can_be_destroyed() {
    let bed = bed();
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    guest.pause_qemu().unwrap();
    changes(&bed, "destroy h1/vm1 --wait", "ok done", "shut off");
}
