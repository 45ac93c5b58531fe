//! VMs in rare states, brought about by real guests: asleep, crashed and kept, stalled by a disk.

use std::fs;
use std::time::Duration;

use atp_e2e::{Bed, becomes, bed};

use crate::support::{changed_guest, without};

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

#[test]
fn a_guest_whose_file_systems_are_frozen_is_told_from_one_whose_agent_forbids_commands() {
    let bed = bed();
    bed.run(&["exec", "h1/vm1", "--", "mount-data"]).exits_with(0);
    bed.run(&["qga", "h1/vm1", "--", "guest-fsfreeze-freeze"]).exits_with(0);
    let exec = bed.run(&["exec", "h1/vm1", "--", "true"]);
    assert_eq!(exec.exits_with(1).brief(), ["h1/vm1 failed none guest-frozen"]);
    let wait = bed.run(&["wait", "h1/vm1", "--for", "exec=true", "--timeout", "10s"]);
    assert_eq!(wait.exits_with(1).brief(), ["h1/vm1 timeout none condition-not-met"]);
    for run in [exec, wait] {
        let hint = run.outcome("h1/vm1").failure().hint.clone().unwrap();
        assert!(hint.contains("atp qga SEL -- guest-fsfreeze-thaw"), "{hint}");
    }
    let doctor = bed.run(&["doctor", "h1"]);
    let findings = doctor.outcome("h1/vm1").data["findings"].to_string();
    assert!(findings.contains("file systems are frozen") && !findings.contains("block-rpcs"), "{findings}");
    bed.run(&["qga", "h1/vm1", "--", "guest-fsfreeze-thaw"]).exits_with(0);
    bed.run(&["exec", "h1/vm1", "--", "true"]).exits_with(0);
}

#[test]
fn without_a_tablet_the_mouse_cannot_go_to_a_point_and_the_error_says_what_is_missing() {
    let bed = bed();
    let guest = changed_guest(&bed, "plain", |xml| without(&xml, "<input type='tablet'", "</input>"));
    guest.start().unwrap();
    for action in [&["move", "50%", "50%"][..], &["click", "left", "0.1", "0.1"]] {
        let run = bed.run(&[&["mouse", "h1/plain", "--"], action].concat());
        assert_eq!(run.exits_with(1).brief(), ["h1/plain failed none no-input-device"], "{action:?}");
        let hint = run.outcome("h1/plain").failure().hint.clone().unwrap();
        assert!(hint.contains("<input type='tablet'"), "{hint}");
    }
    bed.run(&["mouse", "h1/plain", "--", "click"]).exits_with(0);
}

#[test]
fn a_vm_without_a_video_device_has_no_screen_for_a_screenshot_or_for_points_in_pixels() {
    let bed = bed();
    let guest = changed_guest(&bed, "blind", |xml| {
        without(&xml, "<video>", "</video>")
            .replace("<devices>", "<devices><video><model type='none'/></video>")
    });
    guest.start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap();
    for args in
        [&["screenshot", "h1/blind", "-d", directory][..], &["mouse", "h1/blind", "--", "move", "1", "1"]]
    {
        let run = bed.run(args);
        assert_eq!(run.exits_with(1).brief(), ["h1/blind failed none no-screen"], "{args:?}");
    }
}

#[test]
fn a_vm_whose_memory_was_saved_says_so_and_goes_on_from_there_when_it_is_started() {
    let bed = bed();
    bed.run(&["exec", "h1/vm1", "--", "touch", "/tmp/kept-in-memory"]).exits_with(0);
    bed.host("h1").unwrap().virsh(&["managedsave", "vm1"]).unwrap();
    let saved = bed.atp(&["vm", "list", "--state", "saved"]).run();
    let listed = saved.exits_with(0).stdout();
    assert!(listed.contains("vm1  shut off (saved)") && listed.lines().count() == 2, "{listed}");
    assert_eq!(bed.run(&["vm", "info", "h1/vm1"]).outcome("h1/vm1").data["reason"], "saved");
    let exec = bed.run(&["exec", "h1/vm1", "--", "true"]);
    assert_eq!(exec.exits_with(1).brief(), ["h1/vm1 failed none vm-not-running"]);
    let failure = exec.outcome("h1/vm1").failure().clone();
    assert!(failure.message.contains("shut off (saved)"), "{failure:?}");
    assert!(failure.hint.as_ref().is_some_and(|hint| hint.contains("atp vm start")), "{failure:?}");
    bed.run(&["vm", "start", "h1/vm1", "--wait", "--timeout", "2m"]).exits_with(0);
    // A guest that boots has an empty /tmp.
    bed.run(&["exec", "h1/vm1", "--", "rm", "/tmp/kept-in-memory"]).exits_with(0);
    // The bed waits for the boot of guests that run.
    bed.host("h1").unwrap().guest("vm1").unwrap().destroy().unwrap();
}

#[test]
fn a_transient_vm_says_so_and_is_gone_when_it_is_destroyed() {
    let bed = bed();
    let h1 = bed.host("h1").unwrap();
    let guest = h1.boot_guest("brief").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), h1.virsh(&["dumpxml", "--inactive", "brief"]).unwrap()).unwrap();
    h1.virsh(&["undefine", "brief"]).unwrap();
    let info = bed.run(&["vm", "info", "h1/brief"]);
    assert_eq!(info.exits_with(0).outcome("h1/brief").data["persistent"], false);
    assert_eq!(bed.run(&["vm", "destroy", "h1/brief"]).exits_with(0).brief(), ["h1/brief ok done"]);
    let start = bed.run(&["vm", "start", "h1/brief"]);
    assert_eq!(start.exits_with(1).brief(), ["h1/brief failed none vm-not-found"]);
    assert!(guest.state().is_err(), "no definition is left");
    // So that the bed can remove it.
    h1.virsh(&["define", file.path().to_str().unwrap()]).unwrap();
}
