//! `atp exec`: the same command in many guests in parallel.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use atp_e2e::{bed, eventually};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

const ALL: [&str; 6] = ["h1/vm1", "h1/vm2", "h2/vm1", "h2/vm2", "h3/vm1", "h3/vm2"];

#[test]
fn six_guests_with_the_same_output_are_one_group() {
    let bed = bed();
    let one = bed.atp(&["exec", "h1/vm1", "--", "uname", "-r"]).run();
    one.exits_with(0);
    let stdout = one.stdout();
    let kernel = stdout.lines().last().unwrap();
    assert!(kernel.ends_with("-amd64"), "{kernel}");

    let six = bed.atp(&["exec", "*", "--", "uname", "-r"]).run();
    six.exits_with(0);
    let rule = "-".repeat(15);
    assert_eq!(six.stdout(), format!("{rule}\nh[1-3]/vm[1-2] (6)\n{rule}\n{kernel}\n"));
    assert!(six.stderr.contains("6 targets: 6 ok in "), "{}", six.stderr);
    println!("one guest alone: {:?}, six on three hosts: {:?}", one.took, six.took);
}

#[test]
fn guests_work_at_the_same_time() {
    let bed = bed();
    let run = bed.run(&["exec", "*", "--", "sleep", "15"]);
    // Sequentially it would take 90 s. The clocks of guests differ from that of the machine.
    run.exits_with(0).took_between(8, 80);
    assert_eq!(run.brief(), ALL.map(|name| format!("{name} ok done")));
}

#[test]
fn a_failed_process_has_both_streams_and_its_exit_code() {
    let bed = bed();
    let script = "echo out; echo err >&2; exit 3";
    let run = bed.run(&["exec", "*", "--", "sh", "-c", script]);
    run.exits_with(1);
    assert_eq!(run.names(), ALL);
    for outcome in run.outcomes() {
        let guest =
            bed.host(outcome.host.as_ref().unwrap()).unwrap().guest(outcome.vm.as_ref().unwrap()).unwrap();
        assert_eq!(outcome.uuid.as_deref(), Some(guest.uuid()));
        assert_eq!((outcome.op.as_str(), outcome.status.as_str()), ("exec", "failed"));
        assert_eq!((outcome.effect.as_str(), outcome.attempts), ("done", 1));
        assert_eq!(outcome.failure().kind, "exit-nonzero");
        let stream = |text: &str| json!({"text": text, "encoding": "utf-8", "truncated": false});
        let data =
            json!({"exit_code": 3, "signal": null, "stdout": stream("out\n"), "stderr": stream("err\n")});
        assert_eq!(outcome.data, data);
    }
    let raw: Vec<Value> = serde_json::from_str(&run.stdout()).unwrap();
    let mut fields: Vec<_> = raw[0].as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    let contract =
        ["attempts", "data", "duration_ms", "effect", "error", "host", "op", "status", "uuid", "vm"];
    assert_eq!(fields, contract);

    let table = bed.atp(&["exec", "*", "--", "sh", "-c", script]).run();
    table.exits_with(1);
    assert!(table.stdout().ends_with("out\n[stderr]\nerr\n[exit code 3]\n"), "{}", table.stdout());
    assert!(table.stderr.contains("6 targets: 6 failed in "), "{}", table.stderr);
}

#[test]
fn different_outputs_are_different_groups() {
    let bed = bed();
    let run = bed.atp(&["exec", "*", "--", "hostname"]).run();
    run.exits_with(0);
    let stdout = run.stdout();
    assert!(stdout.contains("\nh[1-3]/vm1 (3)\n"), "{stdout}");
    assert!(stdout.contains("\nh[1-3]/vm2 (3)\n"), "{stdout}");
}

#[test]
fn stdin_comes_from_a_file_or_from_the_stdin_of_atp() {
    let bed = bed();
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("stdin.txt");
    // About the maximum that fits into one command to the agent.
    let text = "a line to be counted\n".repeat(4000);
    fs::write(&file, &text).unwrap();
    let from_file = bed.run(&["exec", "--stdin", file.to_str().unwrap(), "*/vm1", "--", "wc", "-l"]);
    from_file.exits_with(0);
    assert_eq!(from_file.outcomes().len(), 3);
    for outcome in from_file.outcomes() {
        assert_eq!(outcome.stream("stdout").trim(), "4000");
    }

    let own =
        bed.atp(&["exec", "--stdin", "-", "h1/vm1", "--", "cat"]).output("json").stdin("hallo Gast\n").run();
    own.exits_with(0);
    assert_eq!(own.outcome("h1/vm1").stream("stdout"), "hallo Gast\n");

    let nothing = bed.run(&["exec", "h1/vm1", "--", "cat"]);
    assert_eq!(nothing.exits_with(0).outcome("h1/vm1").stream("stdout"), "");
}

#[test]
fn stdin_too_long_for_the_agent_is_refused_before_it_is_sent() {
    let bed = bed();
    let run = bed
        .atp(&["exec", "--stdin", "-", "h1/vm1", "--", "cat"])
        .output("json")
        .stdin(vec![b'x'; 300_000])
        .run();
    run.exits_with(1);
    assert_eq!(run.brief(), ["h1/vm1 failed none command-too-large"]);
    assert_eq!(bed.run(&["exec", "h1/vm1", "--", "true"]).brief(), ["h1/vm1 ok done"]);
}

#[test]
fn environment_and_shell() {
    let bed = bed();
    let print = r#"echo "$GREETING|$NAME""#;
    let run = bed.run(&[
        "exec",
        "--env",
        "GREETING=good day",
        "--env",
        "NAME=a=b",
        "h2/vm1",
        "--",
        "sh",
        "-c",
        print,
    ]);
    assert_eq!(run.exits_with(0).outcome("h2/vm1").stream("stdout"), "good day|a=b\n");

    // Without a shell, the words are the program and its arguments; with a shell, they are one line.
    let words = ["h2/vm1", "--", "echo", "$((6", "*", "7))", "|", "cat"];
    let plain = bed.run(&[["exec"].as_slice(), &words].concat());
    assert_eq!(plain.exits_with(0).outcome("h2/vm1").stream("stdout"), "$((6 * 7)) | cat\n");
    let shell = bed.run(&[["exec", "--shell"].as_slice(), &words].concat());
    assert_eq!(shell.exits_with(0).outcome("h2/vm1").stream("stdout"), "42\n");
}

#[test]
fn a_signal_is_distinguished_from_an_exit_code() {
    let bed = bed();
    let run = bed.run(&["exec", "h1/vm1", "--", "sh", "-c", "kill -9 $$"]);
    run.exits_with(1);
    let outcome = run.outcome("h1/vm1");
    assert_eq!(outcome.brief(), "h1/vm1 failed done exit-nonzero");
    assert_eq!((&outcome.data["exit_code"], &outcome.data["signal"]), (&Value::Null, &json!(9)));
}

#[test]
fn bytes_that_are_not_text_arrive_unchanged() {
    let bed = bed();
    let run = bed.run(&["exec", "h1/vm1", "--", "printf", r"\377\000\001\n"]);
    let stdout = &run.exits_with(0).outcome("h1/vm1").data["stdout"];
    assert_eq!(stdout["encoding"], "base64");
    assert_eq!(BASE64.decode(stdout["text"].as_str().unwrap()).unwrap(), b"\xff\x00\x01\n");

    // Output of a guest cannot send control sequences to the terminal.
    let escape = ["exec", "h1/vm1", "--", "printf", r"\033[2J\033]0;title\007"];
    let table = bed.atp(&escape).run();
    assert!(!table.exits_with(0).stdout().contains(['\x1b', '\x07']), "{:?}", table.stdout());
}

#[test]
fn one_megabyte_arrives_and_five_are_too_large() {
    let bed = bed();
    let print = |bytes: u32| format!("head -c {bytes} /dev/zero | tr '\\0' x");
    let fits = bed.run(&["exec", "h1/vm1", "--", "sh", "-c", &print(1_000_000)]);
    assert_eq!(fits.exits_with(0).outcome("h1/vm1").stream("stdout"), "x".repeat(1_000_000));

    let too_large = bed.run(&["exec", "h1/vm1", "h1/vm2", "--", "sh", "-c", &print(5_000_000)]);
    too_large.exits_with(1);
    // It ran, and its output is lost.
    assert_eq!(
        too_large.brief(),
        ["h1/vm1 failed done output-too-large", "h1/vm2 failed done output-too-large"]
    );
    assert!(too_large.outcome("h1/vm1").failure().hint.as_ref().unwrap().contains("--spool"));

    assert_eq!(bed.run(&["exec", "h1/", "--", "true"]).brief(), ["h1/vm1 ok done", "h1/vm2 ok done"]);
}

#[test]
fn a_missing_program_has_no_effect() {
    let bed = bed();
    let run = bed.run(&["exec", "h1/vm1", "--", "no-such-program"]);
    run.exits_with(1);
    let outcome = run.outcome("h1/vm1");
    assert_eq!(outcome.brief(), "h1/vm1 failed none guest-exec-failed");
    assert!(outcome.failure().message.contains("no-such-program"), "{outcome:?}");
}

#[test]
fn a_process_that_does_not_end_is_a_timeout() {
    let bed = bed();
    let run = bed.run(&[
        "--timeout",
        "12s",
        "exec",
        "h1/vm1",
        "h2/vm1",
        "--",
        "sh",
        "-c",
        "[ $(hostname) = vm2 ] || sleep 60",
    ]);
    run.exits_with(1).took_between(11, 70);
    for (line, vm) in run.brief().iter().zip(["h1/vm1", "h2/vm1"]) {
        assert!(is_late(line, vm), "{line}");
    }
    assert_eq!(run.brief().len(), 2);
}

/// Whether a program did not end in time: on a busy machine the last status request may itself be unanswered at the
/// deadline.
pub(crate) fn is_late(brief: &str, vm: &str) -> bool {
    ["exec-timeout", "call-timeout", "agent-unresponsive"]
        .map(|kind| format!("{vm} timeout unknown {kind}"))
        .contains(&brief.to_owned())
}

#[test]
fn outcomes_are_reported_as_they_arrive() {
    let bed = bed();
    let script = "[ $(hostname) = vm2 ] || { mkfifo /tmp/later; cat /tmp/later; rm /tmp/later; }";
    let running = bed.atp(&["exec", "h1/", "h2/", "--", "sh", "-c", script]).output("jsonl").start();
    // The others end only when these have been reported.
    running.wait_for_lines(2);
    let end = "until [ -p /tmp/later ]; do sleep 0.1; done; echo > /tmp/later";
    bed.run(&["exec", "h1/vm1", "h2/vm1", "--", "sh", "-c", end]).exits_with(0);
    let run = running.finish();
    run.exits_with(0);
    let mut names = run.names();
    // The order within each half is not defined.
    names[..2].sort();
    names[2..].sort();
    assert_eq!(names, ["h1/vm2", "h2/vm2", "h1/vm1", "h2/vm1"]);
}

#[test]
fn work_continues_when_stdout_is_closed() {
    let bed = bed();
    let run = bed.atp(&["exec", "*", "--", "touch", "/tmp/unread"]).output("jsonl").run_unread();
    run.exits_with(0);
    let check = bed.run(&["exec", "*", "--", "rm", "/tmp/unread"]);
    assert_eq!(check.exits_with(0).brief(), ALL.map(|name| format!("{name} ok done")));
}

#[test]
fn a_program_has_not_ended_while_its_child_holds_its_output() {
    let bed = bed();
    let line = "sleep 600 & echo done";
    let hint =
        eventually("the guest is asked once more before the time is up", Duration::from_secs(100), || {
            let run = bed.run(&["--timeout", "12s", "exec", "h1/vm1", "--shell", "--", line]);
            run.exits_with(1).took_between(11, 60);
            assert!(is_late(&run.brief()[0], "h1/vm1"), "{:?}", run.brief());
            let failure = run.outcome("h1/vm1").failure().clone();
            if failure.kind == "exec-timeout" { Ok(failure.hint) } else { Err(failure) }
        });
    assert!(hint.as_deref().is_some_and(|hint| hint.contains(">/dev/null")), "{hint:?}");
    // Both streams.
    let elsewhere = ["exec", "h1/vm1", "--shell", "--", "sleep 600 >/dev/null 2>&1 & echo done"];
    let spooled = ["exec", "h1/vm1", "--spool", "--shell", "--", line];
    for args in [&elsewhere[..], &spooled] {
        let run = bed.run(args);
        assert_eq!(run.exits_with(0).outcome("h1/vm1").stream("stdout"), "done\n");
    }
    bed.run(&["exec", "h1/vm1", "--", "killall", "sleep"]).exits_with(0);
}

#[test]
fn work_continues_when_stdout_is_closed_in_the_middle() {
    let bed = bed();
    let exec = ["--parallel", "1", "exec", "*", "--", "touch", "/tmp/left"];
    let run = bed.atp(&exec).output("jsonl").run_read_for(2);
    run.exits_with(0);
    assert_eq!(run.outcomes().len(), 2);
    assert!(run.stderr.contains("6 targets: 6 ok in "), "{}", run.stderr);
    let check = bed.run(&["exec", "*", "--", "rm", "/tmp/left"]);
    assert_eq!(check.exits_with(0).brief(), ALL.map(|name| format!("{name} ok done")));
}
