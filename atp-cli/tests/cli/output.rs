//! Where output goes, in which form, and what happens when it cannot.

use std::fs::OpenOptions;
use std::io;
use std::process::Stdio;

use crate::atp::{DEMO, Home, Run, demo};

#[test]
fn colours_come_when_asked_for() {
    let plain = demo(&["vm", "list"]).exits(0);
    assert!(!plain.stdout.contains('\x1b') && !plain.stderr.contains('\x1b'), "{plain:#?}");
    let colored = demo(&["vm", "list", "--color", "always"]).exits(0);
    assert!(colored.stdout.contains("\x1b[1m") && colored.stderr.contains('\x1b'), "{colored:#?}");
    assert_eq!(demo(&["vm", "list", "-o", "json", "--color", "always"]).exits(0).stdout.find('\x1b'), None);
    let never = Run::of(
        Home::new().atp(["--host", DEMO, "vm", "list", "--color", "never"]).env("CLICOLOR_FORCE", "1"),
    )
    .exits(0);
    assert!(!never.stdout.contains('\x1b'), "{never:#?}");
}

#[test]
fn no_color_is_honoured() {
    let home = Home::new();
    let run = Run::of(home.atp(["--host", DEMO, "vm", "list"]).env("CLICOLOR_FORCE", "1")).exits(0);
    assert!(run.stdout.contains('\x1b'), "{run:#?}");
    let run = Run::of(home.atp(["--host", DEMO, "vm", "list"]).env("NO_COLOR", "1")).exits(0);
    assert!(!run.stdout.contains('\x1b') && !run.stderr.contains('\x1b'), "{run:#?}");
}

#[test]
fn quiet_leaves_data_and_errors() {
    let run = demo(&["-q", "vm", "list"]).exits(0);
    assert!(run.stdout.contains("test") && run.stderr.is_empty(), "{run:#?}");
    demo(&["-q", "vm", "list", "nosuch"]).exits(1).says(&["vm-not-found"]);
}

#[test]
fn messages_can_be_json_lines() {
    for args in [
        &["vm", "list"][..],
        &["-vv", "vm", "list"],
        &["vm", "list", "nosuch/x"],
        &["vm", "list", "nosuch-*"],
    ] {
        let run = demo(&[&["--log-format", "json"], args].concat());
        assert!(!run.stderr.is_empty(), "{run:#?}");
        for line in run.stderr.lines() {
            let record: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {run:#?}"));
            assert!(record["level"].is_string(), "{record}");
        }
    }
}

#[test]
fn a_failed_target_has_a_json_line_with_the_reason() {
    let records = |run: &Run| -> Vec<serde_json::Value> {
        run.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    for form in ["table", "json", "jsonl", "csv", "name"] {
        let run = demo(&["--log-format", "json", "-q", "-o", form, "vm", "info", "test", "nosuch", "other"]);
        let records = records(&run);
        assert_eq!(records.len(), 2, "{run:#?}");
        for record in &records {
            assert_eq!((&record["level"], &record["kind"]), (&"ERROR".into(), &"vm-not-found".into()));
            assert!(record["message"].as_str().unwrap().starts_with("no VM is named"), "{record}");
            assert!(record["hint"].is_string() && record["vm"].is_string(), "{record}");
        }
        run.exits(1);
    }
    let run = demo(&["--log-format", "json", "-v", "exec", "test", "--", "false"]).exits(1);
    let finished = records(&run).into_iter().find(|record| record["message"] == "finished").unwrap();
    assert!(finished["kind"].is_string() && finished["error"].is_string(), "{finished}");
    // What would be done is data, and nothing that is wrong.
    let run = demo(&["--log-format", "json", "-q", "--dry-run", "vm", "destroy", "test"]).exits(0);
    assert_eq!(run.stderr, "");
}

#[test]
fn an_invalid_command_line_is_reported_in_json_too() {
    for args in [
        &["--log-format", "json", "vm", "list", "--bogus"][..],
        &["vm", "list", "--state", "foo", "--log-format=json"],
        &["--log-format", "json", "exec", "x", "true"],
        &["--log-format", "json", "vm"],
    ] {
        let run = Home::new().run(args).exits(2).without_data();
        let record: serde_json::Value =
            serde_json::from_str(&run.stderr).unwrap_or_else(|error| panic!("{error}: {run:#?}"));
        assert_eq!(record["level"], "ERROR");
        let message = record["message"].as_str().unwrap();
        assert!(
            !message.is_empty() && !message.starts_with("error") && record["hint"].is_string(),
            "{record}"
        );
    }
    let run = Run::of(Home::new().atp(["vm", "list", "--bogus"]).env("ATP_LOG_FORMAT", "json")).exits(2);
    assert!(run.stderr.starts_with('{') && run.stderr.contains("--bogus"), "{run:#?}");
    // What follows two dashes is the guest's.
    let run = Home::new().run(["exec", "x", "--bogus", "--", "--log-format", "json"]).exits(2);
    assert!(run.stderr.starts_with("error: "), "{run:#?}");
}

#[test]
fn a_reader_that_left_changes_nothing() {
    for (args, code) in [(&["vm", "list"][..], 0), (&["vm", "list", "-o", "jsonl", "test", "nosuch"], 1)] {
        let home = Home::new();
        // A pipe whose reading end is closed before anything is written.
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let run = Run::of(home.atp(["--host", DEMO].iter().chain(args)).stdout(writer)).exits(code);
        assert!(!run.stderr.contains("panic") && !run.stderr.contains("Broken pipe"), "{run:#?}");
    }
}

#[test]
fn lost_data_is_reported() {
    let home = Home::new();
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    for args in [&["vm", "list"][..], &["vm", "list", "-o", "json"], &["host", "list"], &["config", "show"]] {
        Run::of(home.atp(["--host", DEMO].iter().chain(args)).stdout(Stdio::from(full())))
            .exits(1)
            .says(&["could not be written to stdout", "No space left"]);
    }
}

#[test]
fn names_of_vms_cannot_steer_the_terminal() {
    let home = Home::new();
    // CSI as one C1 character, and an override of the reading direction: XML allows both in a name.
    let host = home.host("h1", &["a\u{9b}31mb", "c\u{202e}d", "quote\"colon:[x]"]);
    for form in ["table", "json", "jsonl", "csv", "name"] {
        let run = home.run(["--host", &host, "vm", "list", "-o", form]).exits(0);
        assert!(!run.stdout.contains('\u{9b}') && !run.stdout.contains('\u{202e}'), "{run:#?}");
    }
    let run = home.run(["--host", &host, "vm", "list", "-o", "json"]).exits(0);
    let names: Vec<_> =
        run.outcomes().iter().map(|outcome| outcome["vm"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["a\u{9b}31mb", "c\u{202e}d", "quote\"colon:[x]"]);
    let run = home.run(["--host", &host, "exec", "*", "--", "true"]).exits(1);
    assert!(!run.stderr.contains('\u{9b}') && !run.stderr.contains('\u{202e}'), "{run:#?}");
}
