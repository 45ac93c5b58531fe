//! What is shown while a run lasts, and to whom.

use std::net::TcpListener;

use crate::atp::{DEMO, Home};
use crate::top::Terminal;

/// A host that takes connections and never says a word.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("silent=qemu+tcp://{}/system", listener.local_addr().unwrap());
    (listener, host)
}

#[test]
fn a_terminal_has_a_bar_that_names_what_runs_and_goes_at_the_end() {
    let (_listener, host) = silent();
    let home = Home::new();
    let args = ["--host", DEMO, "--host", &host, "host", "check", "--timeout", "8s"];
    let run = home.run_on_terminal(&args, &[]).exits(1);
    let named = (1..8).any(|n| run.stdout.contains(&format!("  silent  {n} s")));
    assert!(run.stdout.contains("1/2") && named, "{run:#?}");
    // Erased before the report, which stands alone.
    let report = run.stdout.rfind("HOST").unwrap();
    assert!(run.stdout[..report].contains("\x1b[2K") || run.stdout[..report].contains("\x1b[K"), "{run:#?}");
    assert!(!run.stdout[report..].contains("1/2"), "{run:#?}");
}

#[test]
fn waiting_for_the_hosts_is_shown_too() {
    let (_listener, host) = silent();
    let run = Home::new().run_on_terminal(&["--host", &host, "vm", "list", "--timeout", "6s"], &[]).exits(1);
    assert!(run.stdout.contains("asking the hosts for their VMs"), "{run:#?}");
}

#[test]
fn without_a_terminal_there_is_no_bar() {
    let (_listener, host) = silent();
    let home = Home::new();
    let args = ["--host", &host, "host", "check", "--timeout", "1s"];
    for (more, variables) in [
        (&["-q"][..], &[][..]),
        (&["-v"], &[]),
        (&["--log-format", "json"], &[]),
        (&[], &[("CI", "true")]),
        (&[], &[("TERM", "dumb")]),
    ] {
        let run = home.run_on_terminal(&[&args[..], more].concat(), variables).exits(1);
        assert!(!run.stdout.contains("0/1"), "{more:?} {variables:?} {run:#?}");
    }
    let run = home.run(args).exits(1);
    assert!(!run.stderr.contains("0/1") && !run.stderr.contains('\x1b'), "{run:#?}");
}

#[test]
fn outcomes_that_stream_to_a_terminal_are_its_progress() {
    let (_listener, host) = silent();
    let args = ["--host", &host, "host", "check", "--timeout", "1s", "-o", "jsonl"];
    let run = Home::new().run_on_terminal(&args, &[]).exits(1);
    assert!(!run.stdout.contains("0/1") && run.stdout.contains("{\"host\":\"silent\""), "{run:#?}");
}

#[test]
fn who_interrupts_at_the_question_is_told_of_no_failure() {
    let home = Home::new();
    let host = home.host("h1", &["a", "b"]);
    let mut asked = Terminal::start(&home, 100, &["--host", &host, "vm", "destroy", "*"]);
    asked.shows("the question", |text| text.contains("Go ahead? [y/N]"));
    asked.types("\x03");
    // The table has its VMs, and no line for each comes before it.
    asked.shows("the end", |text| {
        text.contains("2 targets: 2 skipped") && !text.contains("failed") && !text.contains("h1/a: skipped")
    });
    assert_eq!(asked.ends().code(), Some(130));
}

#[test]
fn a_terminal_can_go_without_colours() {
    let home = Home::new();
    let args = ["--host", DEMO, "vm", "list"];
    let run = home.run_on_terminal(&args, &[]).exits(0);
    assert!(is_coloured(&run.stdout), "{run:#?}");
    for (more, variables) in [(&[][..], &[("NO_COLOR", "1")][..]), (&["--color", "never"], &[])] {
        let run = home.run_on_terminal(&[&args[..], more].concat(), variables).exits(0);
        assert!(!is_coloured(&run.stdout), "{run:#?}");
    }
}

/// Whether a sequence sets colours or weight. Others may be there: on a slow machine a bar comes and is erased.
fn is_coloured(text: &str) -> bool {
    text.split("\x1b[").skip(1).any(|rest| {
        rest.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ';').starts_with('m')
    })
}

#[test]
fn names_of_vms_cannot_steer_a_terminal_by_way_of_the_bar_or_the_question() {
    let home = Home::new();
    let host = home.host("h1", &["a\u{9b}31mb", "c\u{202e}d"]);
    // Nobody answers: that is no.
    let run = home.run_on_terminal(&["--host", &host, "vm", "destroy", "*"], &[]).exits(2);
    assert!(run.stdout.contains("a\\u{9b}31mb") && run.stdout.contains("Go ahead? [y/N]"), "{run:#?}");
    let run2 = home.run_on_terminal(&["--host", &host, "exec", "*", "--", "true"], &[]).exits(1);
    for run in [run, run2] {
        assert!(!run.stdout.contains('\u{9b}') && !run.stdout.contains('\u{202e}'), "{run:#?}");
    }
}
