//! `atp run`: the worked examples, and teardowns.

use std::fs;
use std::path::{Path, PathBuf};

use atp_e2e::{Bed, Run, bed};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/scenarios").join(name)
}

#[track_caller]
fn run(bed: &Bed, path: &Path, args: &[&str]) -> Run {
    bed.run(&[&["run", path.to_str().unwrap(), "--yes"], args].concat())
}

/// A scenario of the test's own.
fn write(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_worked_examples_work() {
    let bed = bed();
    for (name, targets, steps) in [
        ("smoke.yaml", "*", 6),
        ("deploy-file.yaml", "*", 3),
        ("pause-and-resume.yaml", "h2/", 4),
        ("disk-space.yaml", "*", 4),
        ("rolling-restart.yaml", "h1/", 5),
    ] {
        let targets_of = format!("targets={targets}");
        let run = run(&bed, &example(name), &["--timeout", "80s", "--serial", "50%", "--set", &targets_of]);
        run.exits_with(0);
        let outcomes = run.outcomes();
        assert_eq!(outcomes.len(), if targets == "*" { 6 } else { 2 }, "{name}");
        for outcome in outcomes {
            assert_eq!((outcome.op.as_str(), outcome.status.as_str()), ("run", "ok"), "{name}");
            assert_eq!(outcome.data["steps"].as_array().unwrap().len(), steps, "{name}");
            assert_eq!(outcome.data["steps_total"], steps, "{name}");
        }
    }
    for guest in bed.hosts().iter().flat_map(|host| host.guests()) {
        assert_eq!(guest.state().unwrap(), "running");
    }
}

#[test]
fn the_teardown_runs_after_ctrl_c() {
    let bed = bed();
    let path = write(
        "teardown.yaml",
        "name: teardown\ntargets: h1/vm1\nsteps:\n  - exec: touch /tmp/left\n  \
         - {name: long, wait: {exec: touch /tmp/waits; test -e /tmp/never}, timeout: 300s}\n  \
         - exec: touch /tmp/too-far\n\
         teardown:\n  - exec: rm /tmp/left /tmp/waits\n",
    );
    bed.run(&["exec", "h1/vm1", "--", "rm", "-f", "/tmp/waits"]).exits_with(0);
    let running = bed.atp(&["run", path.to_str().unwrap()]).output("json").start();
    // The run is in its second step and waits for it.
    bed.run(&["exec", "h1/vm1", "--", "sh", "-c", "until [ -e /tmp/waits ]; do sleep 1; done"]).exits_with(0);
    running.interrupt();
    let run = running.finish();
    run.exits_with(130);
    let outcome = run.outcome("h1/vm1");
    assert_eq!(outcome.status, "cancelled");
    assert_eq!(outcome.data["steps"].as_array().unwrap().len(), 2);
    assert_eq!(outcome.data["teardown"][0]["status"], "ok");
    let check =
        bed.run(&["exec", "h1/vm1", "--", "sh", "-c", "ls /tmp/left /tmp/too-far 2>/dev/null || true"]);
    assert_eq!(check.outcome("h1/vm1").stream("stdout"), "");
}

#[test]
fn a_failed_step_is_reported_by_number_and_name_and_stops_the_run_after_the_canary() {
    let bed = bed();
    let path = write(
        "fails.yaml",
        "name: fails\nvariables: {code: 3}\ntargets: h1/\nsteps:\n  - exec: exit ${code}\n  - name: is zero\n    \
         assert: {exit_code: 0}\n",
    );
    let run = run(&bed, &path, &["--serial", "1"]);
    run.exits_with(5);
    assert_eq!(run.brief(), ["h1/vm1 failed done assertion-failed", "h1/vm2 skipped none canary-failed"]);
    let message = &run.outcome("h1/vm1").failure().message.clone();
    assert_eq!(message, "step 2 (is zero): the exit code is 3, not 0");

    let run = bed.run(&["run", path.to_str().unwrap(), "--set", "code=0"]);
    run.exits_with(0);
}
