//! Help, version and misuse.

use crate::atp::{Home, demo};

#[test]
fn help_goes_to_stdout_and_ends_with_examples() {
    for command in
        [&["--help"][..], &["exec", "--help"], &["vm", "list", "--help"], &["config", "show", "--help"]]
    {
        let run = Home::new().run(command).exits(0);
        assert!(run.stdout.contains("Examples:\n  atp "), "{run:#?}");
        assert_eq!(run.stderr, "");
    }
}

#[test]
fn only_options_that_work_are_in_the_help() {
    let run = Home::new().run(["exec", "--help"]).exits(0);
    for option in [
        "--host",
        "--parallel",
        "--timeout",
        "--dry-run",
        "--yes",
        "--stdin",
        "--env",
        "--shell",
        "--exclude",
        "--junit",
        "--diff",
        "csv",
        "--per-host",
        "--deadline",
        "--retries",
        "--max-failures",
        "--serial",
        "--journal",
        "--resume",
        "--spool",
    ] {
        assert!(run.stdout.contains(option), "{option}");
    }
}

#[test]
fn the_version_is_the_crate_s() {
    let run = Home::new().run(["--version"]).exits(0);
    assert_eq!(run.stdout, format!("atp {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn misuse_is_exit_2_with_nothing_on_stdout() {
    for args in [
        &[][..],
        &["vm"],
        &["vm", "explode", "x"],
        &["vm", "start"],
        &["exec", "x"],
        &["exec", "x", "true"],
        &["vm", "list", "--timeout", "30"],
        &["vm", "list", "--parallel", "none"],
        &["vm", "list", "-o", "xml"],
        &["vm", "list", "--state", "asleep"],
        &["vm", "list", "web["],
        &["--host", "no-uri", "vm", "list"],
    ] {
        let run = Home::new().run(args).exits(2).without_data();
        assert!(!run.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn negative_values_are_errors_that_name_their_option() {
    for (option, value) in [
        ("--timeout", "-5s"),
        ("--deadline", "-5s"),
        ("--retries", "-1"),
        ("--parallel", "-1"),
        ("--per-host", "-1"),
        ("--serial", "-1"),
        ("--max-failures", "-1%"),
    ] {
        let run = demo(&["exec", "test", option, value, "--", "true"]).exits(2).without_data();
        assert!(run.stderr.contains(&format!("invalid value '{value}' for '{option} <")), "{run:#?}");
        assert!(run.stderr.contains("expected a") && !run.stderr.contains("use '-- "), "{run:#?}");
    }
}

#[test]
fn an_invalid_selector_is_an_error_with_a_position() {
    demo(&["vm", "list", "h1/web-["]).exits(2).without_data().says(&["character 8", "']'"]);
}

#[test]
fn an_invalid_raw_command_is_an_error_before_any_work() {
    demo(&["qmp", "test", "--", "{\"execute\":\"x\"}"]).exits(2).without_data().says(&["hint:"]);
    demo(&["qga", "test", "--", "guest-ping", "novalue"]).exits(2).without_data().says(&["key=value"]);
}
