//! `atp wait`: until the condition holds, or the deadline.

use std::time::Duration;

use atp_e2e::{Bed, becomes, bed, eventually};
use serde_json::json;

/// Time limit for a guest to boot, or to come to rest, emulated on a busy machine.
const BOOT: Duration = Duration::from_secs(120);

/// Ends the agent of `h1/vm1`, and waits until libvirt knows: before, libvirt asks it and waits for an answer.
fn stop_agent(bed: &Bed) {
    bed.host("h1").unwrap().guest("vm1").unwrap().stop_agent().unwrap();
    becomes("the agent's channel", Duration::from_secs(60), json!("disconnected"), || {
        bed.run(&["vm", "info", "h1/vm1"]).outcome("h1/vm1").data["agent"].clone()
    });
}

#[test]
fn a_condition_that_already_holds_is_seen_at_once() {
    let bed = bed();
    for condition in ["agent", "state=running", "exec=true"] {
        let run = bed.run(&["wait", "h1/*", "--for", condition]);
        run.exits_with(0);
        let effect = if condition == "exec=true" { "done" } else { "none" };
        assert_eq!(run.brief(), ["h1/vm1", "h1/vm2"].map(|vm| format!("{vm} ok {effect}")));
        assert_eq!(run.outcome("h1/vm1").data["looks"], 1);
    }
}

#[test]
fn a_booting_guest_is_waited_for() {
    let bed = bed();
    let vm = bed.host("h1").unwrap().guest("vm1").unwrap();
    vm.destroy().unwrap();
    bed.run(&["wait", "h1/vm1", "--for", "state=shut-off"]).exits_with(0);
    let waiting =
        bed.atp(&["--timeout", "3m", "-v", "wait", "h1/vm1", "--for", "agent"]).output("json").start();
    // From here on it polls, long before a guest has booted.
    waiting.wait_for_stderr("started");
    vm.start().unwrap();
    let run = waiting.finish();
    assert_eq!(run.exits_with(0).brief(), ["h1/vm1 ok none"]);
    assert!(run.outcome("h1/vm1").data["looks"].as_u64().unwrap() > 1);
}

#[test]
fn a_booting_guest_is_reported_as_booting_until_it_answers() {
    let bed = bed();
    let vm = bed.host("h1").unwrap().guest("vm1").unwrap();
    let mut seen = Vec::new();
    // The guest may boot faster than the polling, or get too little processor time to look busy; but not every time.
    for _ in 0..5 {
        vm.destroy().unwrap();
        vm.start().unwrap();
        eventually("an answer", BOOT, || {
            let run = bed.run(&["--timeout", "20s", "exec", "h1/vm1", "--", "true"]);
            let outcome = run.outcome("h1/vm1");
            match &outcome.error {
                None => Ok(()),
                Some(error) => {
                    if error.kind == "guest-booting" {
                        assert_eq!((outcome.effect.as_str(), error.retryable), ("none", true), "{outcome:?}");
                        let hint = error.hint.as_deref();
                        assert!(hint.is_some_and(|hint| hint.contains("atp wait")), "{error:?}");
                    }
                    seen.push(error.kind.clone());
                    Err(error.kind.clone())
                }
            }
        });
        if seen.iter().any(|kind| kind == "guest-booting") {
            break;
        }
    }
    assert!(seen.iter().any(|kind| kind == "guest-booting"), "{seen:?}");
    // A stopped agent in an idle guest is a different case.
    stop_agent(&bed);
    eventually("a guest at rest", BOOT, || {
        let run = bed.run(&["--timeout", "20s", "exec", "h1/vm1", "--", "true"]);
        let kind = run.outcome("h1/vm1").failure().kind.clone();
        if kind == "agent-not-connected" { Ok(()) } else { Err(kind) }
    });
}

#[test]
fn a_condition_that_does_not_come_true_is_a_timeout_with_the_last_observation() {
    let bed = bed();
    let run = bed.run(&["--timeout", "15s", "wait", "h1/vm1", "--for", "exec=exit 7"]);
    run.exits_with(1).took_between(14, 80);
    assert_eq!(run.brief(), ["h1/vm1 timeout done condition-not-met"]);
    // The last program may itself run into the deadline.
    let message = run.outcome("h1/vm1").failure().message.clone();
    let words = ["code 7", "was still running", "its result did not arrive"];
    assert!(words.iter().any(|words| message.contains(words)), "{run:?}");

    let run = bed.run(&["--timeout", "8s", "wait", "h1/vm1", "--for", "port=9"]);
    assert_eq!(run.exits_with(1).brief(), ["h1/vm1 timeout none condition-not-met"]);

    stop_agent(&bed);
    let run = bed.run(&["--timeout", "8s", "wait", "h1/vm1", "--for", "agent"]);
    assert_eq!(run.exits_with(1).brief(), ["h1/vm1 timeout none condition-not-met"]);
    let run = bed.run(&["--timeout", "8s", "wait", "h1/vm1", "--for", "state=paused"]);
    assert!(run.outcome("h1/vm1").failure().message.contains("it is running"), "{run:?}");
}

#[test]
fn no_program_runs_in_a_guest_that_is_shut_off() {
    let bed = bed();
    bed.host("h1").unwrap().guest("vm1").unwrap().destroy().unwrap();
    let run = bed.run(&["--timeout", "8s", "wait", "h1/vm1", "--for", "exec=true"]);
    assert_eq!(run.exits_with(1).brief(), ["h1/vm1 timeout none condition-not-met"]);
}

#[test]
fn a_restarting_daemon_is_waited_for() {
    let bed = bed();
    let host = bed.host("h1").unwrap();
    let waiting = bed
        .atp(&["--timeout", "250s", "-v", "wait", "h1/vm1", "--for", "exec=rm /tmp/now"])
        .output("json")
        .start();
    waiting.wait_for_stderr("started");
    host.kill_daemon().unwrap();
    waiting.wait_for_stderr("connection lost");
    host.start_daemon().unwrap();
    // A daemon that has just started may not be connected to the agent yet.
    host.guest("vm1").unwrap().wait_agent(BOOT).unwrap();
    bed.run(&["exec", "h1/vm1", "--", "touch", "/tmp/now"]).exits_with(0);
    assert_eq!(waiting.finish().exits_with(0).brief(), ["h1/vm1 ok done"]);
}

#[test]
fn a_condition_whose_program_runs_into_the_deadline_is_not_met() {
    let bed = bed();
    let run = bed.run(&["--timeout", "12s", "wait", "h1/vm1", "--for", "exec=sleep 60"]);
    run.exits_with(1).took_between(11, 70);
    assert_eq!(run.brief(), ["h1/vm1 timeout unknown condition-not-met"]);
    // On a busy machine the time may run out before the agent is asked again.
    let message = run.outcome("h1/vm1").failure().message.clone();
    assert!(
        ["was still running", "its result did not arrive"].iter().any(|words| message.contains(words)),
        "{run:?}"
    );
}
