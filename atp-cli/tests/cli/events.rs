//! `events`, on libvirt's test driver.

use std::thread;

use serde_json::Value;

use crate::atp::{DEMO, Home};

/// Long enough to connect to the test driver and to look, also on a busy machine.
const A_WHILE: &str = "20s";

#[test]
fn it_begins_with_the_state_and_ends_after_its_time() {
    let home = &Home::new();
    // Side by side, for each takes its time.
    thread::scope(|scope| {
        scope.spawn(|| {
            let run = home.run(["--host", DEMO, "events", "--for", A_WHILE, "-o", "jsonl"]).exits(0);
            let first: Value = serde_json::from_str(run.stdout.lines().next().unwrap()).unwrap();
            assert_eq!((&first["item"], &first["host"]), (&"present".into(), &"demo".into()));
            assert_eq!(first["domains"][0]["name"], "test");
        });
        scope.spawn(|| {
            let args = ["--host", DEMO, "events", "other*", "--for", A_WHILE, "-o", "json"];
            let items = home.run(args).exits(0).outcomes();
            assert_eq!(items[0]["domains"], Value::Array(Vec::new()), "{items:?}");
        });
        scope.spawn(|| {
            let run = home.run(["--host", DEMO, "events", "--for", A_WHILE]).exits(0);
            assert!(run.stdout.contains("demo/test  is running\n"), "{run:#?}");
        });
    });
}

#[test]
fn a_host_that_is_down_is_reported_at_once() {
    let home = Home::new();
    let closed = "down=qemu+tcp://127.0.0.1:1/system";
    let run = home.run(["--host", closed, "--host", DEMO, "events", "--for", A_WHILE]).exits(1);
    let run = run.says(&["never watched: down", "atp doctor"]);
    assert!(run.stdout.contains("down  cannot be watched: 127.0.0.1:1 refuses connections"), "{run:#?}");
    assert!(run.stdout.contains("demo/test  is running\n"), "{run:#?}");
}

#[test]
fn a_host_that_does_not_answer_is_reported_after_its_timeout() {
    let home = Home::new();
    // Takes connections, and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("mute=qemu+tcp://{}/system", silent.local_addr().unwrap());
    let events = ["--host", &host, "--host", DEMO, "events", "--timeout", "12s", "--for", A_WHILE];
    let run = home.run(events).exits(1).says(&["not watched after 12s: mute;", "never watched: mute"]);
    assert!(run.stdout.contains("demo/test  is running\n"), "{run:#?}");
}

#[test]
fn a_missing_vm_is_reported() {
    let home = Home::new();
    let events =
        |selectors: &[&str]| home.run([&["--host", DEMO, "events", "--for", "60s"][..], selectors].concat());
    let began = std::time::Instant::now();
    events(&["demo/nosuch"]).exits(1).says(&["no VM is named 'demo/nosuch'"]);
    assert!(began.elapsed() < std::time::Duration::from_secs(55), "it waited for a VM that is not there");
    let short = ["--host", DEMO, "events", "--for", A_WHILE, "nosuch", "test"];
    let run = home.run(short).exits(1).says(&["no VM is named 'nosuch'"]);
    assert!(run.stdout.contains("demo/test  is running\n"), "{run:#?}");
}

#[test]
fn options_of_runs_are_not_taken() {
    let home = Home::new();
    for option in [
        &["--deadline", "1s"][..],
        &["--junit", "x"],
        &["--dry-run"],
        &["--parallel", "2"],
        &["--per-host", "1"],
        &["--retries", "1"],
        &["--serial", "1"],
        &["--max-failures", "1"],
        &["--resume", "j"],
    ] {
        home.run([&["--host", DEMO, "events"][..], option].concat())
            .exits(2)
            .without_data()
            .says(&[option[0]]);
    }
}

#[test]
fn what_it_cannot_do_it_says() {
    let home = Home::new();
    let run = |args: &[&str]| home.run([&["--host", DEMO, "events"][..], args].concat());
    run(&["nowhere/x"]).exits(2).without_data().says(&["nowhere"]);
    run(&["-o", "csv"]).exits(2).without_data().says(&["jsonl"]);
    run(&["--count", "0"]).exits(2).without_data();
    run(&["--exclude", "demo/"]).exits(4).without_data().says(&["no host is selected"]);
}
