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
            &format!("vm-{verb} of 2 VMs"),
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
        "HOST  VM  STATE    WOULD\nh1    a   running  vm-destroy\nh1    b   running  vm-destroy\n"
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
    assert!(run.stdout.contains("vm-destroy of 2 VMs") && run.stdout.contains("h1/b (running)"), "{run:#?}");
    assert!(run.stdout.contains("2 ok"), "{run:#?}");
    let run = on_a_terminal(&home, &args, "n\n").exits(2);
    assert!(run.stdout.contains("nothing was done") && !run.stdout.contains("2 ok"), "{run:#?}");
}
