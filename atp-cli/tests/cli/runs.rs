//! How a run goes about its targets: early ends, batches, journals.

use std::fs;
use std::net::TcpListener;

use crate::atp::{Home, Run, demo};

/// A host with four VMs, none of which has an agent: `exec` fails on each, and changes nothing.
fn four(home: &Home) -> String {
    home.host("h1", &["a", "b", "c", "d"])
}

fn run(home: &Home, args: &[&str]) -> Run {
    let host = four(home);
    home.run(["-o", "json", "--parallel", "1", "--host", &host].iter().chain(args))
}

/// `vm status kind attempts` of each outcome.
fn brief(run: &Run) -> Vec<String> {
    let word = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
    let outcomes = run.outcomes();
    let line = |o: &serde_json::Value| {
        format!("{} {} {} {}", word(&o["vm"]), word(&o["status"]), word(&o["error"]["kind"]), o["attempts"])
    };
    outcomes.iter().map(line).collect()
}

const EXEC: [&str; 4] = ["exec", "h1/", "--", "true"];

#[test]
fn too_many_failures_end_the_run_with_exit_5() {
    for most in ["2", "50%"] {
        let home = Home::new();
        let run = run(&home, &[&["--max-failures", most][..], &EXEC].concat()).exits(5);
        let run = run.says(&["stopped early: 2 targets failed", "2 failed, 2 skipped"]);
        let skipped = "skipped max-failures-reached 0";
        assert_eq!(brief(&run)[2..], [format!("c {skipped}"), format!("d {skipped}")]);
    }
}

#[test]
fn the_time_for_the_whole_run_ends_it_with_exit_5() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("a=qemu+tcp://{}/system", listener.local_addr().unwrap());
    let hosts = ["--host", &silent, "--host", "b=test:///default"];
    let args = ["host", "check", "-o", "json", "--parallel", "1", "--timeout", "10m", "--deadline", "6s"];
    let run = Home::new().run([&hosts[..], &args].concat()).exits(5);
    let run =
        run.says(&["stopped early: the time for the whole run was used up", "1 unreachable, 1 skipped"]);
    let kinds: Vec<_> = run.outcomes().iter().map(|outcome| outcome["error"]["kind"].clone()).collect();
    assert_eq!(kinds, ["connect-timeout", "run-deadline-passed"]);
}

#[test]
fn a_canary_that_fails_ends_the_run_with_exit_5() {
    let home = Home::new();
    let run =
        run(&home, &[&["--serial", "1"][..], &EXEC].concat()).exits(5).says(&["the first batch failed"]);
    assert_eq!(brief(&run)[1], "b skipped canary-failed 0");
}

#[test]
fn what_changes_nothing_and_may_pass_is_tried_again() {
    let home = Home::new();
    let args = ["--host", "gone=qemu+tcp://127.0.0.1:1/system", "--retries", "2", "host", "check", "gone"];
    let run = run(&home, &args).exits(1);
    assert_eq!(brief(&run), ["- unreachable connection-refused 3"]);
}

#[test]
fn a_duration_of_centuries_is_refused() {
    let home = Home::new();
    let (file, scenario) = (
        home.write("long.toml", "timeout = '1000years'"),
        home.write(
            "long.yaml",
            "name: long\ntargets: [h1/a]\nsteps:\n  - {wait: agent, timeout: 1000years}\n",
        ),
    );
    let (file, scenario) = (file.to_str().unwrap(), scenario.to_str().unwrap());
    for args in [
        &["--timeout", "600000000000years", "vm", "list"][..],
        &["--deadline", "1000years", "vm", "list"],
        &["events", "--for", "101years"],
        &["mouse", "a", "--hold", "1000years", "--", "click"],
        &["--config", file, "vm", "list"],
        &["run", scenario],
    ] {
        run(&home, args).exits(2).without_data().says(&["at most 100 years"]);
    }
}

#[test]
fn portions_that_are_none_are_refused() {
    for args in [["--serial", "0"], ["--max-failures", "101%"], ["--retries", "-1"], ["--deadline", "0s"]] {
        let home = Home::new();
        run(&home, &[&args[..], &EXEC].concat()).exits(2).without_data();
    }
}

#[test]
fn limits_of_a_run_can_be_settings() {
    let home = Home::new();
    let file = home.write("limits.toml", "max_failures = 3\nretries = 1\n");
    let args = [&["--config", file.to_str().unwrap()][..], &EXEC].concat();
    let run_with = |args: &[&str], variables: &[(&str, &str)]| {
        let host = four(&home);
        let common = ["-o", "json", "--parallel", "1", "--host", &host];
        Run::of(home.atp([&common[..], args].concat()).envs(variables.iter().copied()))
    };
    run_with(&args, &[]).exits(5).says(&["3 failed, 1 skipped"]);
    run_with(&args, &[("ATP_MAX_FAILURES", "25%")]).exits(5).says(&["1 failed, 3 skipped"]);
    run_with(&args, &[("ATP_MAX_FAILURES", "none")]).exits(1).says(&["4 targets: 4 failed"]);
    let typed = [&["--max-failures", "none"][..], &args].concat();
    run_with(&typed, &[("ATP_MAX_FAILURES", "1")]).exits(1).says(&["4 targets: 4 failed"]);
    run_with(&args, &[("ATP_SERIAL", "1"), ("ATP_PER_HOST", "1")]).exits(5).says(&["1 failed, 3 skipped"]);
    run_with(&args, &[("ATP_SERIAL", "0")]).exits(2).without_data().says(&["ATP_SERIAL", "\"none\""]);
}

#[test]
fn a_doctor_keeps_to_the_limits_too() {
    let home = Home::new();
    let dead = ["--host", "a=qemu+tcp://127.0.0.1:1/system", "--host", "b=test:///default"];
    let args = [&dead[..], &["-o", "json", "--parallel", "1", "--max-failures", "1", "doctor"]].concat();
    let run = home.run(&args).exits(5).says(&["stopped early"]);
    let told: Vec<_> = run.outcomes().iter().map(|o| (o["host"].clone(), o["status"].clone())).collect();
    // One of them is looked at first; the VMs of neither are looked at.
    let gone = ("a".into(), "unreachable".into());
    assert!(told.contains(&gone) && told.len() == 2, "{run:#?}");
    let args = [&dead[..], &["-o", "json", "--retries", "1", "--deadline", "30s", "doctor"]].concat();
    let run = home.run(&args).exits(1);
    let outcomes = run.outcomes();
    let gone = outcomes.iter().find(|outcome| outcome["host"] == "a").unwrap();
    assert_eq!(gone["attempts"], 2, "{gone}");
    assert!(outcomes.iter().any(|outcome| outcome["vm"] == "test"), "{run:#?}");
}

#[test]
fn a_journal_is_only_of_what_is_a_run() {
    for command in [&["host", "list"][..], &["events", "--for", "1s"], &["doctor"], &["config", "show"]] {
        let home = Home::new();
        run(&home, &[&["--journal", "j"][..], command].concat()).exits(2).without_data().says(&["--journal"]);
        assert!(!home.path("j").exists());
    }
}

#[test]
fn a_report_does_not_replace_the_journal() {
    let home = Home::new();
    for (journal, junit) in [("j", "j"), ("j", "./j"), ("./j", "j")] {
        let run = run(&home, &["--journal", journal, "--junit", junit, "vm", "list"]).exits(2);
        run.says(&["this file is the journal"]);
        assert!(!home.path("j").exists());
    }
    run(&home, &["--journal", "j", "vm", "list"]).exits(0);
    run(&home, &["--resume", "j", "--junit", "j", "vm", "list"]).exits(2);
    assert!(fs::read_to_string(home.path("j")).unwrap().starts_with("{\"begun\""));
    run(&home, &["--junit", "j", "host", "list"]).exits(2).says(&["--junit is for outcomes"]);
}

#[test]
fn where_the_report_cannot_be_written_no_journal_is_begun() {
    let home = Home::new();
    run(&home, &["--journal", "j", "--junit", "none/r.xml", "vm", "list"])
        .exits(2)
        .says(&["cannot be written"]);
    assert!(!home.path("j").exists());
}

#[test]
fn a_folder_cannot_be_resumed_as_a_journal() {
    let home = Home::new();
    run(&home, &["--journal", ".", "vm", "list"]).exits(2).says(&["not a regular file", "check the path"]);
}

#[test]
fn as_many_at_once_as_a_person_can_type_is_no_trouble() {
    demo(&["--parallel", &usize::MAX.to_string(), "vm", "list"]).exits(0);
}

#[test]
fn a_journal_is_begun_once_and_gone_on_from() {
    let home = Home::new();
    let journal = home.write("x", "").with_file_name("run.journal");
    let journal = journal.to_str().unwrap();
    let begin = [&["--max-failures", "1", "--journal", journal][..], &EXEC].concat();
    run(&home, &begin).exits(5);
    run(&home, &begin).exits(2).without_data().says(&["exists already", "--resume"]);

    // All had no effect: they are done again.
    let go_on = [&["--resume", journal][..], &EXEC].concat();
    let resumed = run(&home, &go_on).exits(1).says(&["run 0 targets are done, 4 are to do\n"]);
    assert_eq!(resumed.outcomes().len(), 4);
    let looked = [&["--dry-run"][..], &go_on].concat();
    run(&home, &looked).exits(0);

    let other = ["--resume", journal, "exec", "h1/", "--", "false"];
    run(&home, &other).exits(2).without_data().says(&["another operation"]);
    let both = [&["--resume", journal, "--journal", "y"][..], &EXEC].concat();
    run(&home, &both).exits(2).without_data();
    let none = [&["--resume", "/nonexistent"][..], &EXEC].concat();
    run(&home, &none).exits(2).without_data().says(&["cannot be read", "No such file"]);
}

#[test]
fn a_journal_of_a_run_that_is_done_leaves_nothing_to_do() {
    let home = Home::new();
    let journal = home.write("x", "").with_file_name("run.journal");
    let journal = journal.to_str().unwrap();
    run(&home, &["--journal", journal, "vm", "info", "h1/"]).exits(0);
    let resumed = run(&home, &["--resume", journal, "vm", "info", "h1/"]).exits(0);
    assert!(resumed.says(&["nothing left to do: 4 of 4 targets were done before"]).outcomes().is_empty());
}

#[test]
fn what_could_not_be_listed_is_done_when_the_run_is_gone_on_with() {
    let home = Home::new();
    let journal = home.path("run.journal");
    let journal = journal.to_str().unwrap();
    let (h1, h2) = (home.host("h1", &["a", "b"]), home.host("h2", &["c", "d"]));
    let atp =
        |h2: &str, args: &[&str]| home.run([&["-o", "json", "--host", &h1, "--host", h2][..], args].concat());
    let down = "h2=qemu+tcp://127.0.0.1:1/system";
    for (selectors, left) in [(&["*"][..], &["c ok", "d ok"][..]), (&["h1/a", "h2/d"], &["d ok"])] {
        let info = [&["vm", "info"][..], selectors].concat();
        atp(down, &[&["--journal", journal][..], &info].concat()).exits(1);
        let go_on = [&["--resume", journal][..], &info].concat();
        atp(down, &go_on).exits(1).says(&["1 unreachable"]);
        let resumed = atp(&h2, &go_on).exits(0);
        assert_eq!(brief(&resumed).iter().map(|o| o.replace(" - 1", "")).collect::<Vec<_>>(), left);
        atp(&h2, &go_on).exits(0).says(&["nothing left to do"]);
        fs::remove_file(journal).unwrap();
    }
}

#[test]
fn a_vm_that_has_moved_is_not_run_again_on_its_new_host() {
    let home = Home::new();
    let journal = home.path("run.journal");
    let journal = journal.to_str().unwrap();
    let h1 = home.host("h1", &["a"]);
    let h2 = h1.replacen("h1=", "h2=", 1);
    let atp = |h1: &str, h2: &str, journal: [&str; 2]| {
        let hosts = ["-o", "json", "--host", h1, "--host", h2];
        home.run([&hosts[..], &journal, &["vm", "info", "*"]].concat())
    };
    atp(&h1, "h2=qemu+tcp://127.0.0.1:1/system", ["--journal", journal]).exits(1);
    let empty = format!("h1=test://{}", home.write("empty.xml", "<node></node>").display());
    let resumed = atp(&empty, &h2, ["--resume", journal]).exits(0);
    let resumed = resumed.says(&["h2/a ran on h1", "nothing left to do"]);
    assert!(resumed.outcomes().is_empty());
}

#[test]
fn an_empty_file_can_become_a_journal() {
    let home = Home::new();
    let journal = home.write("run.journal", "");
    let journal = journal.to_str().unwrap();
    run(&home, &["--resume", journal, "vm", "info", "h1/"]).exits(2).says(&["is empty", "--journal instead"]);
    run(&home, &["--journal", journal, "vm", "info", "h1/"]).exits(0);
}
