//! With one fault, `atp` completes the other targets, reports the reason, and ends by the deadline.

use std::time::{Duration, Instant};

use atp_e2e::{Bed, Run, becomes, bed, eventually, is_stopped};
use atp_testbed::{Guest, Host};

/// How long `atp` may run after its last outcome. A busy machine needs some of it; a stuck call would need the rest
/// of its time limit.
const EXIT_TIME: Duration = Duration::from_secs(20);
/// Time limit for agents that answer again.
const BOOT: Duration = Duration::from_secs(120);

fn host(bed: &Bed) -> Host {
    bed.host("h2").unwrap()
}

fn guest(bed: &Bed) -> Guest {
    host(bed).guest("vm2").unwrap()
}

/// A short command in all guests with ten seconds each, which a hung target uses up.
#[track_caller]
fn exec_everywhere(bed: &Bed) -> Run {
    let run = bed.run(&["--timeout", "10s", "exec", "*", "--", "true"]);
    run.exits_with(1);
    run
}

/// The same with a minute each, most of which is left if no target hangs.
#[track_caller]
fn exec_everywhere_soon(bed: &Bed) -> Run {
    let run = bed.run(&["--timeout", "60s", "exec", "*", "--", "true"]);
    run.exits_with(1).took_between(0, 50);
    run
}

/// The four guests of the other hosts are done, and `h2` has one outcome with this kind.
#[track_caller]
fn only_h2_is_unreachable(run: &Run, kind: &str, said: &str) {
    let unreachable = format!("h2 unreachable none {kind}");
    assert_eq!(
        run.brief(),
        ["h1/vm1 ok done", "h1/vm2 ok done", unreachable.as_str(), "h3/vm1 ok done", "h3/vm2 ok done"]
    );
    let outcome = run.outcome("h2");
    assert_eq!((outcome.vm.as_ref(), outcome.attempts), (None, 0));
    let failure = outcome.failure();
    assert!(failure.retryable && failure.hint.is_some(), "{failure:?}");
    assert!(failure.causes.iter().any(|cause| cause.contains(said)), "{failure:?}");
    assert!(run.stderr.contains("5 targets: 4 ok, 1 unreachable in "), "{}", run.stderr);
}

/// All guests but `h2/vm2` are done, and that one ended in one of these ways.
#[track_caller]
fn only_the_guest_failed(run: &Run, ends: &[impl AsRef<str>]) {
    let mut brief = run.brief();
    let end = brief.remove(3);
    let healthy = ["h1/vm1", "h1/vm2", "h2/vm1", "h3/vm1", "h3/vm2"];
    assert_eq!(brief, healthy.map(|vm| format!("{vm} ok done")));
    assert!(ends.iter().any(|expected| expected.as_ref() == end), "{end}");
    let outcome = run.outcome("h2/vm2");
    assert!(outcome.uuid.is_some() && outcome.failure().hint.is_some(), "{outcome:?}");
}

#[test]
fn a_stopped_daemon() {
    let bed = bed();
    host(&bed).pause_daemon().unwrap();
    let run = exec_everywhere(&bed);
    run.took_between(10, 60);
    only_h2_is_unreachable(&run, "connect-timeout", "the daemon does not answer");
}

#[test]
fn a_killed_daemon() {
    let bed = bed();
    host(&bed).kill_daemon().unwrap();
    let run = exec_everywhere_soon(&bed);
    only_h2_is_unreachable(&run, "connection-refused", "refuses connections");
}

#[test]
fn a_link_that_is_down() {
    let bed = bed();
    host(&bed).link_down().unwrap();
    let run = exec_everywhere(&bed);
    run.took_between(2, 60);
    // Depending on the machine's neighbour cache, nothing answers or there is no route.
    only_h2_is_unreachable(&run, "host-unreachable", &host(&bed).address().to_string());
}

#[test]
fn packets_that_are_dropped() {
    let bed = bed();
    host(&bed).drop_packets().unwrap();
    let run = exec_everywhere(&bed);
    run.took_between(10, 60);
    only_h2_is_unreachable(&run, "host-unreachable", "does not answer");
}

#[test]
fn packets_that_are_rejected() {
    let bed = bed();
    host(&bed).reject_packets().unwrap();
    let run = exec_everywhere_soon(&bed);
    only_h2_is_unreachable(&run, "connection-refused", "refuses connections");
}

#[test]
fn everything_is_stopped() {
    let bed = bed();
    bed.hosts().iter().for_each(|host| host.pause_daemon().unwrap());
    let run = exec_everywhere(&bed);
    // The hosts are tried in parallel, not in sequence.
    run.took_between(10, 28);
    assert_eq!(
        run.brief(),
        ["h1", "h2", "h3"].map(|host| format!("{host} unreachable none connect-timeout"))
    );
}

#[test]
fn a_literal_on_an_unreachable_host_is_named() {
    let bed = bed();
    host(&bed).kill_daemon().unwrap();
    let run = bed.run(&["exec", "h2/vm1", "h1/vm1", "h2/v*", "--", "true"]);
    run.exits_with(1);
    assert_eq!(
        run.brief(),
        [
            "h1/vm1 ok done",
            "h2 unreachable none connection-refused",
            "h2/vm1 unreachable none connection-refused"
        ]
    );
}

#[test]
fn a_guest_that_is_shut_off() {
    let bed = bed();
    guest(&bed).destroy().unwrap();
    let run = exec_everywhere_soon(&bed);
    only_the_guest_failed(&run, &["h2/vm2 failed none vm-not-running"]);
}

#[test]
fn an_agent_that_is_stopped() {
    let bed = bed();
    guest(&bed).stop_agent().unwrap();
    // QEMU reports it to libvirt up to a second later. Until then a command would be sent and lost.
    eventually("libvirt knows that the agent is gone", Duration::from_secs(60), || {
        let agents = host(&bed).virsh(&["dumpxml", guest(&bed).uuid()]).unwrap();
        if agents.contains("name='org.qemu.guest_agent.0' state='disconnected'") {
            Ok(())
        } else {
            Err(agents)
        }
    });
    let run = exec_everywhere_soon(&bed);
    only_the_guest_failed(&run, &["h2/vm2 failed none agent-not-connected"]);
}

#[test]
fn an_agent_behind_a_stopped_qemu() {
    let bed = bed();
    guest(&bed).pause_qemu().unwrap();
    let run = exec_everywhere(&bed);
    run.took_between(0, 60);
    // libvirt accepts only whole seconds for the agent's time limit, so either limit may end the wait.
    let ends = ["failed unknown agent-unresponsive", "timeout unknown agent-unresponsive"];
    only_the_guest_failed(&run, &ends.map(|end| format!("h2/vm2 {end}")));
}

#[test]
fn a_monitor_of_a_stopped_qemu() {
    let bed = bed();
    guest(&bed).pause_qemu().unwrap();
    // The second command finds the monitor occupied by the first, whose caller is gone and for which the daemon still
    // waits.
    for _ in 0..2 {
        let asked = bed.atp(&["--timeout", "10s", "qmp", "*", "--", "query-status"]);
        let run = asked.env("ATP_TRANSPORT__CALLS__MONITOR_BUSY_AFTER", "1h").output("json").run();
        run.exits_with(1).took_between(10, 60);
        only_the_guest_failed(&run, &["h2/vm2 timeout unknown call-timeout"]);
    }
    // It has been occupied for too long to send a third.
    let run = bed.run(&["qmp", "*", "--", "query-status"]);
    run.exits_with(1).took_between(0, 50);
    only_the_guest_failed(&run, &["h2/vm2 failed none monitor-busy"]);
    // This look does not need the monitor.
    let look = bed.run(&["vm", "info", "h2/"]);
    look.exits_with(0).took_between(0, 50);
    guest(&bed).resume_qemu().unwrap();
    // It answers the earlier ones first.
    becomes("the monitor", BOOT, vec!["h2/vm2 ok done".to_owned()], || {
        bed.run(&["qmp", "h2/vm2", "--", "query-status"]).brief()
    });
}

#[test]
fn more_hung_vms_than_a_connection_has_calls() {
    let bed = bed();
    let host = host(&bed);
    let hung: Vec<Guest> = (1..=6).map(|n| host.boot_guest(&format!("hung{n}")).unwrap()).collect();
    hung.iter().for_each(|guest| guest.pause_qemu().unwrap());
    // The hung ones come first in the order of names.
    let run = bed.run(&["--timeout", "16s", "qmp", "h2/", "--", "query-status"]);
    hung.iter().for_each(|guest| guest.kill_qemu().unwrap());

    run.exits_with(1).took_between(16, 70);
    let (healthy, others): (Vec<_>, Vec<_>) =
        run.outcomes().into_iter().partition(|outcome| outcome.status == "ok");
    assert_eq!(healthy.iter().map(|outcome| outcome.name()).collect::<Vec<_>>(), ["h2/vm1", "h2/vm2"]);
    assert!(healthy.iter().all(|outcome| outcome.duration_ms < 14_000), "{healthy:#?}");
    for (n, outcome) in (1..).zip(&others) {
        assert_eq!(outcome.brief(), format!("h2/hung{n} timeout unknown call-timeout"));
    }
    assert_eq!(others.len(), 6);
}

#[test]
fn the_process_ends_although_a_connect_hangs() {
    let bed = bed();
    host(&bed).pause_daemon().unwrap();
    let run = bed.atp(&["--timeout", "3s", "vm", "list", "h2/"]).output("jsonl").run();
    run.exits_with(1).took_between(3, 30);
    assert!(is_stopped(host(&bed).daemon_pid().unwrap()));
    assert!(run.took_after_last_line() < EXIT_TIME, "{run:#?}");
}

#[test]
fn the_process_ends_although_a_call_hangs() {
    let bed = bed();
    guest(&bed).pause_qemu().unwrap();
    let run = bed.atp(&["--timeout", "10s", "qmp", "h2/", "--", "query-status"]).output("jsonl").run();
    run.exits_with(1).took_between(10, 60);
    assert_eq!(run.brief(), ["h2/vm1 ok done", "h2/vm2 timeout unknown call-timeout"]);
    assert!(is_stopped(guest(&bed).qemu_pid().unwrap()));
    assert!(run.took_after_last_line() < EXIT_TIME, "{run:#?}");
}

#[test]
fn a_daemon_that_stops_during_the_run() {
    let bed = bed();
    let script = "mkfifo /tmp/under-way; cat /tmp/under-way";
    let running =
        bed.atp(&["--timeout", "20s", "exec", "*/vm2", "--", "sh", "-c", script]).output("json").start();
    let wait = "until [ -p /tmp/under-way ]; do sleep 0.1; done";
    bed.run(&["exec", "*/vm2", "--", "sh", "-c", wait]).exits_with(0);
    host(&bed).pause_daemon().unwrap();
    bed.run(&["exec", "h1/vm2", "h3/vm2", "--", "sh", "-c", "echo > /tmp/under-way; rm /tmp/under-way"])
        .exits_with(0);
    let run = running.finish();
    run.exits_with(1).took_between(20, 70);
    let brief = run.brief();
    assert_eq!([&brief[0], &brief[2]], ["h1/vm2 ok done", "h3/vm2 ok done"]);
    // It was started, and its end is unknown.
    let outcome = run.outcome("h2/vm2");
    assert_eq!((outcome.status.as_str(), outcome.effect.as_str()), ("timeout", "unknown"), "{outcome:?}");
    host(&bed).resume_daemon().unwrap();
    bed.run(&["exec", "h2/vm2", "--", "sh", "-c", "echo > /tmp/under-way; rm /tmp/under-way"]).exits_with(0);
}

#[test]
fn a_qemu_that_stops_under_a_program_is_as_silent_as_one_that_stopped_before() {
    let bed = bed();
    let script = "mkfifo /tmp/hangs; cat /tmp/hangs; rm /tmp/hangs";
    // With less than libvirt's own time limit for an agent left, which is 5 s, and with more.
    for (timeout, pause_at) in [("20s", 16), ("30s", 0)] {
        let began = Instant::now();
        let exec = ["--timeout", timeout, "exec", "h2/vm2", "--", "sh", "-c", script];
        let running = bed.atp(&exec).output("json").start();
        bed.run(&["exec", "h2/vm2", "--", "sh", "-c", "until [ -p /tmp/hangs ]; do sleep 0.1; done"])
            .exits_with(0);
        std::thread::sleep(Duration::from_secs(pause_at).saturating_sub(began.elapsed()));
        guest(&bed).pause_qemu().unwrap();
        let run = running.finish();
        guest(&bed).resume_qemu().unwrap();
        guest(&bed).wait_agent(BOOT).unwrap();
        assert_eq!(run.exits_with(1).brief(), ["h2/vm2 timeout unknown agent-unresponsive"]);
        assert!(run.outcome("h2/vm2").failure().hint.as_ref().is_some_and(|hint| hint.contains("QEMU")));
        bed.run(&["exec", "h2/vm2", "--", "sh", "-c", "echo > /tmp/hangs"]).exits_with(0);
    }
}

#[test]
fn a_daemon_that_is_killed_during_programs_is_one_kind_for_all_of_them() {
    let bed = bed();
    let exec = ["--timeout", "30s", "exec", "h2/", "--", "sh", "-c", "mkfifo /tmp/killed; cat /tmp/killed"];
    let running = bed.atp(&exec).output("json").start();
    bed.run(&["exec", "h2/", "--", "sh", "-c", "until [ -p /tmp/killed ]; do sleep 0.1; done"]).exits_with(0);
    host(&bed).kill_daemon().unwrap();
    let run = running.finish();
    let lost = ["h2/vm1", "h2/vm2"].map(|vm| format!("{vm} failed unknown connection-lost"));
    assert_eq!(run.exits_with(1).brief(), lost);
    for outcome in run.outcomes() {
        let causes = &outcome.failure().causes;
        assert!(causes[0].contains("the connection to the host was lost"), "{causes:?}");
    }
    host(&bed).start_daemon().unwrap();
    host(&bed).guests().iter().for_each(|guest| assert!(guest.wait_agent(BOOT).is_ok()));
    bed.run(&["exec", "h2/", "--", "sh", "-c", "echo > /tmp/killed; rm /tmp/killed"]).exits_with(0);
}
