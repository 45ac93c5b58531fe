//! Ctrl-C: once lets running targets finish, twice gives up at once.

use atp_e2e::{Bed, bed};

/// Blocks in the guest until [`release`] is called.
const BLOCK: &str = "mkfifo /tmp/gate && cat /tmp/gate";

/// Waits until the guests block.
#[track_caller]
fn wait_blocked(bed: &Bed, vms: &[&str]) {
    in_guests(bed, vms, "until [ -p /tmp/gate ]; do sleep 0.1; done");
}

/// Releases the guests.
#[track_caller]
fn release(bed: &Bed, vms: &[&str]) {
    in_guests(bed, vms, "echo gone > /tmp/gate; rm /tmp/gate");
}

#[track_caller]
fn in_guests(bed: &Bed, vms: &[&str], script: &str) {
    let args = [["exec"].as_slice(), vms, &["--", "sh", "-c", script]].concat();
    bed.run(&args).exits_with(0);
}

/// Hosts take turns, so these are the first two targets.
const FIRST: [&str; 2] = ["h1/vm1", "h2/vm1"];

#[test]
fn once_lets_running_targets_finish() {
    let bed = bed();
    let running = bed
        .atp(&["--timeout", "250s", "--parallel", "2", "exec", "*", "--", "sh", "-c", BLOCK])
        .output("json")
        .start();
    wait_blocked(&bed, &FIRST);
    running.interrupt();
    running.wait_for_stderr("interrupted");
    release(&bed, &FIRST);
    let run = running.finish();
    run.exits_with(130);
    assert_eq!(
        run.brief(),
        [
            "h1/vm1 ok done",
            "h1/vm2 skipped none stopped",
            "h2/vm1 ok done",
            "h2/vm2 skipped none stopped",
            "h3/vm1 skipped none stopped",
            "h3/vm2 skipped none stopped",
        ]
    );
    assert_eq!(run.outcome("h1/vm1").stream("stdout"), "gone\n");
    assert_eq!(run.outcome("h1/vm2").attempts, 0);
    assert!(run.stderr.contains("6 targets: 2 ok, 4 skipped in "), "{}", run.stderr);
}

#[test]
fn twice_gives_up_at_once() {
    let bed = bed();
    let running = bed
        .atp(&["--timeout", "250s", "--parallel", "2", "exec", "*", "--", "sh", "-c", BLOCK])
        .output("json")
        .start();
    wait_blocked(&bed, &FIRST);
    running.interrupt();
    running.wait_for_stderr("interrupted");
    running.interrupt();
    let run = running.finish();
    run.exits_with(130).took_between(0, 200);
    release(&bed, &FIRST);
    assert_eq!(run.brief()[..2], ["h1/vm1 cancelled unknown aborted", "h1/vm2 skipped none stopped"]);
    assert!(run.stderr.contains("6 targets: 4 skipped, 2 cancelled in "), "{}", run.stderr);
}

#[test]
fn a_wait_ends_with_what_it_saw_last() {
    let bed = bed();
    for (condition, effect) in [("state=shut-off", "none"), ("exec=exit 7", "unknown")] {
        let wait = ["--timeout", "250s", "-v", "wait", "h1/vm1", "--for", condition];
        let running = bed.atp(&wait).output("jsonl").start();
        running.wait_for_stderr("started");
        running.interrupt();
        let run = running.finish();
        run.exits_with(130).took_between(0, 200);
        let outcome = run.outcome("h1/vm1");
        assert_eq!((outcome.status.as_str(), outcome.failure().kind.as_str()), ("cancelled", "stopped"));
        assert!(outcome.effect == effect || outcome.effect == "none", "{outcome:?}");
    }
}

#[test]
fn nothing_is_done_while_hosts_are_listed() {
    let bed = bed();
    bed.host("h1").unwrap().pause_daemon().unwrap();
    let running = bed
        .atp(&["--timeout", "250s", "-vv", "exec", "*", "--", "touch", "/tmp/interrupted"])
        .output("json")
        .start();
    // Two hosts answer, the third does not.
    running.wait_for_stderr("connected");
    running.interrupt();
    let run = running.finish();
    run.exits_with(130).took_between(0, 200);
    let brief = run.brief();
    assert_eq!(brief[0], "h1 skipped none stopped");
    // A host that answered has an outcome for each of its VMs.
    assert!(brief.iter().all(|line| line.ends_with(" skipped none stopped")), "{brief:?}");
    assert_eq!(run.outcome("h1").attempts, 0);
    assert!(run.stderr.contains("interrupted; nothing was done"), "{}", run.stderr);
    let check = bed.run(&["exec", "h2/", "--", "test", "-e", "/tmp/interrupted"]);
    assert_eq!(check.brief(), ["h2/vm1 failed done exit-nonzero", "h2/vm2 failed done exit-nonzero"]);
}
