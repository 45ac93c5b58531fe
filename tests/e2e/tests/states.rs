//! VMs in rare states, brought about by real guests: asleep, crashed and kept, stalled by a disk.

use std::time::Duration;

use atp_e2e::{Bed, becomes, bed};

/// Time limit for changes that happen soon.
const SOON: Duration = Duration::from_secs(60);

/// Lets the guest of `h1/vm1` suspend to RAM.
fn put_to_sleep(bed: &Bed) {
    let h1 = bed.host("h1").unwrap();
    h1.virsh(&["dompmsuspend", "vm1", "mem"]).unwrap();
    becomes("state", SOON, "pmsuspended".to_owned(), || h1.guest("vm1").unwrap().state().unwrap());
}

#[test]
fn a_guest_that_suspended_itself_to_ram_is_shown_as_asleep_and_sent_nothing_until_it_is_resumed() {
    let bed = bed();
    put_to_sleep(&bed);
    let asleep = bed.atp(&["vm", "list", "--state", "pmsuspended"]).run();
    let asleep = asleep.exits_with(0).stdout();
    assert!(asleep.contains("vm1  pmsuspended") && asleep.lines().count() == 2, "{asleep}");
    for args in [
        &["exec", "h1/vm1", "--", "true"][..],
        &["qga", "h1/vm1", "--", "guest-ping"],
        &["cp", "/etc/hostname", "h1/vm1:/tmp/"],
        &["key", "h1/vm1", "--", "enter"],
        &["type", "h1/vm1", "--", "x"],
        &["mouse", "h1/vm1", "--", "click"],
        &["vm", "shutdown", "h1/vm1"],
        &["vm", "reboot", "h1/vm1"],
        &["vm", "suspend", "h1/vm1"],
    ] {
        let run = bed.run(args);
        assert_eq!(run.exits_with(1).brief(), ["h1/vm1 failed none vm-not-running"], "{args:?}");
        let hint = run.outcome("h1/vm1").failure().hint.clone();
        assert!(hint.is_some_and(|hint| hint.contains("atp vm resume")), "{args:?}");
    }
    let start = bed.run(&["vm", "start", "h1/vm1"]);
    assert_eq!(start.exits_with(1).brief(), ["h1/vm1 failed none operation-invalid"]);
    let resume = bed.run(&["vm", "resume", "h1/vm1", "--wait"]);
    assert_eq!(resume.exits_with(0).brief(), ["h1/vm1 ok done"]);
    assert_eq!(bed.host("h1").unwrap().guest("vm1").unwrap().state().unwrap(), "running");
    bed.run(&["exec", "h1/vm1", "--", "true"]).exits_with(0);
}

#[test]
fn a_sleeping_vm_that_is_reset_boots_again() {
    let bed = bed();
    put_to_sleep(&bed);
    let reset = bed.run(&["vm", "reset", "h1/vm1", "--wait", "--timeout", "2m"]);
    assert_eq!(reset.exits_with(0).brief(), ["h1/vm1 ok done"]);
    bed.run(&["exec", "h1/vm1", "--", "true"]).exits_with(0);
}

#[test]
fn a_vm_that_another_client_reset_in_its_sleep_cannot_be_woken_and_says_what_helps() {
    let bed = bed();
    put_to_sleep(&bed);
    bed.host("h1").unwrap().virsh(&["reset", "vm1"]).unwrap();
    for verb in ["resume", "reset"] {
        let run = bed.run(&["vm", verb, "h1/vm1"]);
        assert_eq!(run.exits_with(1).brief(), ["h1/vm1 failed none operation-invalid"], "{verb}");
        let hint = run.outcome("h1/vm1").failure().hint.clone();
        assert!(hint.is_some_and(|hint| hint.contains("atp vm destroy")), "{verb}");
    }
    bed.run(&["vm", "destroy", "h1/vm1", "--wait"]).exits_with(0);
    bed.run(&["vm", "start", "h1/vm1", "--wait", "--timeout", "2m"]).exits_with(0);
}

#[test]
fn after_a_start_that_was_waited_for_the_guest_can_be_worked_with() {
    let bed = bed();
    let vm1 = bed.host("h1").unwrap().guest("vm1").unwrap();
    for wait in ["--wait", "--wait=agent"] {
        vm1.destroy().unwrap();
        bed.run(&["vm", "start", "h1/vm1", wait, "--timeout", "2m"]).exits_with(0);
        assert_eq!(bed.run(&["exec", "h1/vm1", "--", "true"]).brief(), ["h1/vm1 ok done"], "{wait}");
    }
    // The agent of a VM that runs already may not answer yet.
    vm1.destroy().unwrap();
    vm1.start().unwrap();
    let again = bed.run(&["vm", "start", "h1/vm1", "--wait", "--timeout", "2m"]);
    assert_eq!(again.exits_with(0).brief(), ["h1/vm1 unchanged none"]);
    bed.run(&["exec", "h1/vm1", "--", "true"]).exits_with(0);
}

#[test]
fn a_wait_for_the_state_ends_before_the_guest_has_booted() {
    let bed = bed();
    let vm1 = bed.host("h1").unwrap().guest("vm1").unwrap();
    vm1.stop_agent().unwrap();
    // Without an agent that answers, the wait for it would last until the timeout.
    for (args, expected) in [
        (&["vm", "reset", "h1/vm1", "--wait=state"][..], "h1/vm1 ok done"),
        (&["vm", "start", "h1/vm1", "--wait=state"], "h1/vm1 unchanged none"),
        (&["vm", "suspend", "h1/vm1", "--wait=state"], "h1/vm1 ok done"),
        (&["vm", "reset", "h1/vm1", "--wait"], "h1/vm1 ok done"),
        (&["vm", "resume", "h1/vm1", "--wait=state"], "h1/vm1 ok done"),
    ] {
        assert_eq!(bed.run(args).exits_with(0).brief(), [expected], "{args:?}");
    }
    let refused = bed.atp(&["vm", "destroy", "h1/vm1", "--wait=agent"]).run();
    refused.exits_with(2);
    assert!(refused.stderr.contains("destroy cannot wait for the agent"), "{}", refused.stderr);
}
