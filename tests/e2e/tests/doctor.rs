//! `atp doctor` on hosts and guests with faults.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use atp_e2e::{Outcome, bed};

/// The checks of an outcome, with their results.
fn verdicts(outcome: &Outcome) -> Vec<(String, String)> {
    let findings = outcome.data["findings"].as_array().unwrap();
    let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    findings.iter().map(|finding| (word(&finding["check"]), word(&finding["verdict"]))).collect()
}

#[test]
fn a_healthy_fleet_has_a_finding_for_every_step_and_no_problem() {
    let bed = bed();
    let run = bed.run(&["doctor", "h1", "h2"]);
    run.exits_with(0);
    assert_eq!(run.names(), ["h1", "h1/vm1", "h1/vm2", "h2", "h2/vm1", "h2/vm2"]);
    let host = run.outcome("h1");
    let checks: Vec<_> = verdicts(&host).into_iter().map(|(check, _)| check).collect();
    assert_eq!(checks, ["engine", "name", "tcp", "auth", "daemon", "limits"]);
    assert_eq!(host.data["host"]["hypervisor"], "QEMU");
    assert_eq!(verdicts(&run.outcome("h2/vm2")), [("agent".to_owned(), "ok".to_owned())]);
}

#[test]
fn faults_are_found_and_reported_with_a_remedy() {
    let bed = bed();
    let (h1, h2) = (bed.host("h1").unwrap(), bed.host("h2").unwrap());
    h1.guest("vm1").unwrap().destroy().unwrap();
    // The same daemon again under another id, and a port on which nothing listens.
    let again = format!("again={}", h2.uri());
    let args = [
        "--host",
        &again,
        "--host",
        "dead=qemu+tcp://127.0.0.1:1/system",
        "doctor",
        "h1",
        "h2",
        "again",
        "dead",
    ];
    let run = bed.run(&args);
    run.exits_with(1);
    let dead = run.outcome("dead");
    assert_eq!(dead.brief(), "dead unreachable none connection-refused");
    assert_eq!(verdicts(&dead).last().unwrap(), &("tcp".to_owned(), "problem".to_owned()));
    assert_eq!(verdicts(&run.outcome("h1/vm1")), [("agent".to_owned(), "note".to_owned())]);
    let double = run.outcomes().into_iter().find(|outcome| outcome.host.is_none()).unwrap();
    assert_eq!(double.failure().kind, "duplicate-daemon");
    assert!(double.failure().message.contains("again and h2"), "{double:?}");

    let table = bed.atp(&args).run();
    table.exits_with(1);
    assert!(table.stdout().contains("127.0.0.1:1 refuses connections"), "{}", table.stdout());
    assert!(table.stderr.contains("hint: check that the daemon runs there"), "{}", table.stderr);
}

#[test]
fn a_hung_agent_takes_no_more_than_its_own_time_limit() {
    let bed = bed();
    bed.host("h1").unwrap().guest("vm1").unwrap().pause_qemu().unwrap();
    let run = bed.run(&["--timeout", "16s", "doctor", "h1"]);
    run.exits_with(1).took_between(0, 60);
    assert_eq!(run.outcome("h1/vm2").status, "ok");
    let hung = run.outcome("h1/vm1");
    assert!(
        hung.status != "ok" && verdicts(&hung) == [("agent".to_owned(), "problem".to_owned())],
        "{hung:?}"
    );
}

#[test]
fn files_with_secrets_that_others_can_read_are_found() {
    let bed = bed();
    let path = format!("{}/secret.toml", env!("CARGO_TARGET_TMPDIR"));
    let uri = bed.host("h1").unwrap().uri();
    fs::write(
        &path,
        format!("[hosts.h1]\nuri = \"{uri}\"\n[hosts.x]\nuri = \"qemu+ssh://me:hunter2@x/system\"\n"),
    )
    .unwrap();
    for (mode, code) in [(0o644, 1), (0o600, 0)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let run = atp_e2e::Atp::new(&["--config", &path, "doctor", "h1"]).output("json").run();
        run.exits_with(code);
        assert!(!run.stdout().contains("hunter2") && !run.stderr.contains("hunter2"));
    }
}
