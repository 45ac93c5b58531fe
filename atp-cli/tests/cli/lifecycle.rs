//! Changing states, and being asked first.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::json;

use crate::atp::{Home, Run, demo};

#[test]
fn each_change_leads_to_its_state() {
    for (verb, op, status, effect, state) in [
        ("start", "vm-start", "unchanged", "none", "running"),
        ("resume", "vm-resume", "unchanged", "none", "running"),
        ("reset", "vm-reset", "ok", "done", "running"),
        ("reboot", "vm-reboot", "ok", "done", "running"),
        ("suspend", "vm-suspend", "ok", "done", "paused"),
        ("shutdown", "vm-shutdown", "ok", "done", "shut off"),
        ("destroy", "vm-destroy", "ok", "done", "shut off"),
    ] {
        let run = demo(&["vm", verb, "test", "--wait", "-o", "json"]).exits(0);
        let outcome = &run.outcomes()[0];
        assert_eq!(
            (&outcome["op"], &outcome["status"], &outcome["effect"], &outcome["data"]),
            (&json!(op), &json!(status), &json!(effect), &json!({"state": state})),
            "{verb}"
        );
    }
}

#[test]
fn the_table_has_a_row_for_each_vm() {
    let run = demo(&["vm", "suspend", "test"]).exits(0).says(&["1 target: 1 ok"]);
    let mut lines = run.stdout.lines();
    assert_eq!(
        lines.next().map(|line| line.split_whitespace().collect()),
        Some(vec!["HOST", "VM", "RESULT", "STATE", "TIME"])
    );
    assert!(lines.next().is_some_and(|line| line.starts_with("demo  test  ok      paused")), "{run:#?}");
}

#[test]
fn several_vms_are_not_taken_away_without_consent() {
    let home = Home::new();
    let host = home.host("h1", &["a", "b"]);
    for verb in ["destroy", "reset", "reboot", "shutdown", "suspend"] {
        home.run(["--host", &host, "vm", verb, "*"]).exits(2).without_data().says(&[
            &format!("`atp vm {verb}` of 2 VMs"),
            "nothing was done",
            "--yes",
        ]);
    }
    for (verb, consent) in [("destroy", "--yes"), ("shutdown", "-y")] {
        let run = home.run(["--host", &host, "vm", verb, "*", consent, "-o", "json"]).exits(0);
        assert_eq!(run.outcomes().len(), 2);
    }
}

#[test]
fn one_vm_and_harmless_changes_need_no_consent() {
    let home = Home::new();
    let host = home.host("h1", &["a", "b"]);
    home.run(["--host", &host, "vm", "destroy", "a"]).exits(0);
    home.run(["--host", &host, "vm", "start", "*"]).exits(0).says(&["2 unchanged"]);
    home.run(["--host", &host, "vm", "resume", "*"]).exits(0).says(&["2 unchanged"]);
}

#[test]
fn a_dry_run_shows_what_would_be_done() {
    let home = Home::new();
    let host = home.host("h1", &["a", "b"]);
    let run = home
        .run(["--host", &host, "vm", "destroy", "*", "--dry-run"])
        .exits(0)
        .says(&["dry run: 2 targets: 2 to do"]);
    assert_eq!(
        run.stdout,
        "HOST  VM  STATE    WOULD\nh1    a   running  vm destroy\nh1    b   running  vm destroy\n"
    );
    let run = home.run(["--host", &host, "vm", "start", "*", "--dry-run"]).exits(0);
    assert!(run.stdout.contains("do nothing"), "{run:#?}");

    let run = home.run(["--host", &host, "exec", "*", "--dry-run", "-o", "json", "--", "true"]).exits(0);
    let outcomes = run.outcomes();
    assert_eq!(outcomes.len(), 2);
    for outcome in outcomes {
        assert_eq!((&outcome["status"], &outcome["attempts"]), (&json!("skipped"), &json!(0)));
        assert_eq!(outcome["data"]["state"], "running");
    }
    home.run(["--host", &host, "vm", "destroy", "a", "nosuch", "--dry-run"]).exits(1).says(&["vm-not-found"]);
}

/// Runs the command on a terminal, with an answer typed.
fn on_a_terminal(home: &Home, args: &[&str], answer: &str) -> Run {
    let mut command = home.on_terminal(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Run {
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        status: output.status,
    }
}

#[test]
fn on_a_terminal_a_person_is_asked() {
    let home = Home::new();
    let host = home.host("h1", &["a", "b"]);
    let args = ["--host", &host, "vm", "destroy", "*"];
    let run = on_a_terminal(&home, &args, "y\n").exits(0);
    assert!(
        run.stdout.contains("`atp vm destroy` of 2 VMs") && run.stdout.contains("h1/b (running)"),
        "{run:#?}"
    );
    assert!(run.stdout.contains("2 ok"), "{run:#?}");
    let run = on_a_terminal(&home, &args, "n\n").exits(2);
    assert!(run.stdout.contains("nothing was done") && !run.stdout.contains("2 ok"), "{run:#?}");
}

/// A host of the test driver with a VM in each state that a daemon knows: `running`, `paused`, `off`, `crashed`, `asleep`.
fn every_state(home: &Home) -> String {
    let domain = |(vm, number): (&str, u32)| {
        format!(
            "<domain type='test'><name>{vm}</name><uuid>00000000-0000-4000-8000-{number:012}</uuid><memory>65536</memory>\
             <os><type>hvm</type></os><test:runstate>{number}</test:runstate></domain>"
        )
    };
    let domains: String = [("running", 1), ("paused", 3), ("off", 5), ("crashed", 6), ("asleep", 7)]
        .into_iter()
        .map(domain)
        .collect();
    let node = format!("<node xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>{domains}</node>");
    format!("h1=test://{}", home.write("states.xml", &node).display())
}

#[test]
fn vms_that_crashed_or_sleep_are_listed_and_selected_by_their_state() {
    let home = Home::new();
    let host = every_state(&home);
    let list = |args: &[&str]| home.run(["--host", &host, "vm", "list"].iter().chain(args));
    for (state, vm) in [
        ("crashed", "crashed"),
        ("pmsuspended", "asleep"),
        ("paused", "paused"),
        ("shut-off", "off"),
        ("running", "running"),
    ] {
        let run = list(&["--state", state, "-o", "name"]).exits(0);
        assert_eq!(run.stdout, format!("h1/{vm}\n"), "{state}");
    }
    for state in ["io-error", "saved", "migrating"] {
        list(&["--state", state]).exits(4).without_data();
    }
    let run = list(&[]).exits(0);
    assert!(
        run.stdout.contains("crashed  crashed") && run.stdout.contains("asleep   pmsuspended"),
        "{run:#?}"
    );
}

#[test]
fn a_crashed_vm_is_not_started_or_typed_into_but_destroyed_or_reset() {
    let home = Home::new();
    let host = every_state(&home);
    let run = |args: &[&str]| home.run(["--host", &host, "-o", "json"].iter().chain(args));
    for (args, kind) in [
        (&["vm", "start", "crashed"][..], "operation-invalid"),
        (&["vm", "resume", "crashed"], "vm-not-running"),
        (&["vm", "shutdown", "crashed"], "vm-not-running"),
        (&["vm", "suspend", "crashed"], "vm-not-running"),
        (&["exec", "crashed", "--", "true"], "vm-not-running"),
        (&["qga", "crashed", "--", "guest-ping"], "vm-not-running"),
        (&["key", "crashed", "--", "enter"], "vm-not-running"),
        (&["mouse", "crashed", "--", "click"], "vm-not-running"),
    ] {
        let outcome = &run(args).exits(1).outcomes()[0];
        assert_eq!(
            (&outcome["error"]["kind"], &outcome["effect"]),
            (&json!(kind), &json!("none")),
            "{args:?}"
        );
        let hint = outcome["error"]["hint"].as_str().unwrap();
        assert!(hint.contains("atp vm destroy") && hint.contains("atp vm reset"), "{args:?}: {hint}");
    }
    run(&["vm", "destroy", "crashed"]).exits(0);
    let dry = home.run(["--host", &host, "vm", "start", "crashed", "--dry-run"]).exits(0);
    assert!(dry.stdout.contains("fail: operation-invalid"), "{dry:#?}");
}

#[test]
fn a_vm_that_sleeps_is_not_worked_on_and_the_hint_wakes_it() {
    let home = Home::new();
    let host = every_state(&home);
    for (args, kind) in [
        (&["vm", "start", "asleep"][..], "operation-invalid"),
        (&["vm", "shutdown", "asleep"], "vm-not-running"),
        (&["vm", "suspend", "asleep"], "vm-not-running"),
        (&["exec", "asleep", "--", "true"], "vm-not-running"),
        (&["key", "asleep", "--", "enter"], "vm-not-running"),
    ] {
        let run = home.run(["--host", &host, "-o", "json"].iter().chain(args)).exits(1);
        let outcome = &run.outcomes()[0];
        assert_eq!(
            (&outcome["error"]["kind"], &outcome["effect"]),
            (&json!(kind), &json!("none")),
            "{args:?}"
        );
        assert!(outcome["error"]["hint"].as_str().unwrap().contains("`atp vm resume` wakes it"), "{outcome}");
    }
    let run = home.run(["--host", &host, "vm", "resume", "asleep", "--dry-run"]).exits(0);
    assert!(run.stdout.contains("vm resume"), "{run:#?}");
}

#[test]
fn a_paused_vm_is_resumed_rather_than_started_or_asked() {
    let home = Home::new();
    let host = every_state(&home);
    for args in
        [&["vm", "start", "paused"][..], &["exec", "paused", "--", "true"], &["key", "paused", "--", "enter"]]
    {
        let run = home.run(["--host", &host].iter().chain(args)).exits(1);
        run.says(&["paused", "hint: resume it first (`atp vm resume`)"]);
    }
}
