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
        ("smoke.yaml", "*", 5),
        ("deploy-file.yaml", "*", 3),
        ("pause-and-resume.yaml", "h2/", 4),
        ("disk-space.yaml", "*", 4),
        ("rolling-restart.yaml", "h1/", 5),
        ("tools.yaml", "*", 13),
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

#[test]
fn a_changed_file_is_kept_where_the_guest_accepts_it_and_put_back_where_not() {
    let bed = bed();
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(example("file-change.yaml")).unwrap();
    let path = write(
        "file-change.yaml",
        &text.replace("  on: failure", &format!("  folder: '{}'", folder.path().display())),
    );
    let in_both = |line: &str| {
        let run = bed.run(&["exec", "h1/vm1", "h1/vm2", "--", "sh", "-c", line]);
        run.exits_with(0);
        ["h1/vm1", "h1/vm2"].map(|vm| run.outcome(vm).stream("stdout").to_owned())
    };
    in_both("echo old > /etc/atp-message");
    // Only one of the guests works with it.
    in_both("rm -f /tmp/works");
    bed.run(&["exec", "h1/vm1", "--", "touch", "/tmp/works"]).exits_with(0);
    let args = ["--set", "targets=h1/", "--set", "works=test -e /tmp/works", "--timeout", "80s"];
    let run = run(&bed, &path, &args);
    run.exits_with(1);
    assert_eq!(run.brief(), ["h1/vm1 ok done", "h1/vm2 failed done exit-nonzero"]);
    let failed = run.outcome("h1/vm2");
    assert_eq!(failed.data["steps"][3]["attempts"], 3, "{}", failed.data);
    assert_eq!(failed.data["teardown"][0]["status"], "ok");
    assert_eq!(failed.data["teardown"][1]["status"], "skipped");
    let listing = fs::read_to_string(folder.path().join("h1/vm2/command-1.txt")).unwrap();
    assert!(listing.contains("/etc/atp-message.before"), "{listing}");
    let left = in_both("cat /etc/atp-message; ls /etc/atp-message*; rm -f /etc/atp-message /tmp/works");
    assert_eq!(left, ["old\nchanged by atp\n/etc/atp-message\n", "old\n/etc/atp-message\n"]);
}

#[test]
fn a_reboot_is_watched_on_the_console_and_all_that_was_run_is_in_one_report() {
    let bed = bed();
    let folder = tempfile::tempdir().unwrap();
    let [junit, html] = ["report.xml", "report.html"].map(|name| folder.path().join(name));
    let (reboot, tools) = (example("reboot-console.yaml"), example("tools.yaml"));
    // The evidence of the example, of a VM whose console has a fault after the reboot.
    let text = fs::read_to_string(reboot).unwrap();
    let last = text.rfind("  - assert: {console").unwrap();
    let fault = "  - exec: echo 'Kernel panic - not syncing' > /dev/ttyS0\n    when: {value: '${vm}', equals: vm2}\n  \
                 - wait: {console: 'not syncing'}\n    when: {value: '${vm}', equals: vm2}\n";
    let evidence = folder.path().join("evidence");
    let text = format!("{}{fault}{}", &text[..last], &text[last..])
        .replace("  on: failure", &format!("  folder: '{}'", evidence.display()));
    let reboot = write("reboot-console.yaml", &text);
    let run = bed.run(&[
        "run",
        reboot.to_str().unwrap(),
        tools.to_str().unwrap(),
        "--yes",
        "--set",
        "targets=h3/",
        "--set",
        "ssh=no",
        "--timeout",
        "80s",
        "--junit",
        junit.to_str().unwrap(),
        "--html",
        html.to_str().unwrap(),
    ]);
    run.exits_with(1);
    let outcomes = run.outcomes();
    let names: Vec<_> = outcomes.iter().map(|outcome| outcome.data["scenario"].as_str().unwrap()).collect();
    assert_eq!(names, ["reboot-console", "reboot-console", "tools", "tools"]);
    let statuses: Vec<_> = outcomes.iter().map(|outcome| outcome.status.as_str()).collect();
    assert_eq!(statuses, ["ok", "failed", "ok", "ok"], "{run:#?}");
    assert_eq!(outcomes[0].data["steps"][2]["status"], "skipped");
    assert!(outcomes[0].data["console"]["lines"].as_u64().unwrap() > 0, "{}", outcomes[0].data);
    assert!(outcomes[0].data["evidence"].is_null(), "{}", outcomes[0].data);
    let message = &outcomes[1].failure().message;
    assert!(message.starts_with("step 6 (assert): the console reports panic"), "{message}");
    let kept = ["console.log", "screen.png", "command-1.txt"];
    assert_eq!(outcomes[1].data["evidence"]["files"], serde_json::json!(kept), "{}", outcomes[1].data);
    let console = fs::read_to_string(evidence.join("h3/vm2/console.log")).unwrap();
    assert!(console.contains("Kernel panic - not syncing"), "{console}");
    let dmesg = fs::read_to_string(evidence.join("h3/vm2/command-1.txt")).unwrap();
    assert!(dmesg.starts_with("$ dmesg\n") && dmesg.ends_with("[exit code 0]\n"), "{dmesg}");
    let junit = fs::read_to_string(junit).unwrap();
    assert!(junit.contains("<testsuite name=\"tools\" tests=\"26\" failures=\"0\""), "{junit}");
    assert!(junit.contains("<testcase classname=\"h3/vm1\" name=\"step 3: ssh is served\""), "{junit}");
    let html = fs::read_to_string(html).unwrap();
    assert!(html.contains("<h2>reboot-console</h2>") && html.contains("ssh is served"), "{html}");
    assert!(html.contains("Kernel panic - not syncing"), "{html}");
}

#[test]
fn a_screen_is_compared_with_a_picture_of_it() {
    let bed = bed();
    let folder = tempfile::tempdir().unwrap();
    let picture = "${folder}/${host}/${vm}.png";
    let steps = [
        r"exec: printf '\033[2J\033[H\033[?25lATP' > /dev/tty0".to_owned(),
        "screenshot: ${folder}".to_owned(),
        // Something else may write a line to the screen meanwhile.
        format!(
            "assert: {{screen: {{image: '{picture}', regions: ['0,0 720x16', '0,200 720x200'], tolerance: 5%}}}}"
        ),
        r"exec: for row in $(seq 24); do printf '\033[%s;1H%080d' $row 8; done > /dev/tty0".to_owned(),
        format!("{{name: it looks the same, assert: {{screen: {{image: '{picture}', tolerance: 5%}}}}}}"),
    ];
    let steps: String = steps.iter().map(|step| format!("  - {step}\n")).collect();
    let text = format!(
        "name: screen\ntargets: h1/vm1\nvariables: {{folder: '{}'}}\nsteps:\n{steps}",
        folder.path().display()
    );
    let run = run(&bed, &write("screen.yaml", &text), &["--timeout", "80s"]);
    run.exits_with(1);
    let message = &run.outcome("h1/vm1").failure().message.clone();
    assert!(message.starts_with("step 5 (it looks the same): the screen differs from"), "{message}");
}
