//! Serial consoles: captured through restarts and lost links, with the kernel's faults; on a terminal; and channels as pipes.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::thread;
use std::time::Duration;

use atp_e2e::{Bed, bed, eventually};
use rustix::termios::LocalModes;
use serde_json::Value;

use crate::support::Terminal;

/// A time limit far beyond what is measured.
const SOON: Duration = Duration::from_secs(90);

/// Writes a line to a VM's console, from the guest.
fn say(bed: &Bed, vm: &str, line: &str) {
    let command = format!("echo '{line}' > /dev/ttyS0");
    bed.run(&["exec", vm, "--", "sh", "-c", &command]).exits_with(0);
}

/// Writes to a VM's console until a line of it is in the file: before the console is open what is written is lost.
fn said(bed: &Bed, vm: &str, line: &str, file: &Path) {
    eventually(line, SOON, || {
        say(bed, vm, line);
        let text = fs::read_to_string(file).unwrap_or_default();
        if text.contains(line) { Ok(()) } else { Err(text) }
    });
}

fn contains(file: &Path, text: &str) {
    eventually(text, SOON, || {
        let all = fs::read_to_string(file).unwrap_or_default();
        if all.contains(text) { Ok(()) } else { Err(all) }
    });
}

fn faults(data: &Value) -> Vec<&str> {
    data["first_faults"].as_array().unwrap().iter().map(|found| found["fault"].as_str().unwrap()).collect()
}

#[test]
fn a_capture_goes_on_through_a_restart_beside_a_hung_vm_and_reports_a_panic() {
    let bed = bed();
    let [vm1, vm2] = ["vm1", "vm2"].map(|vm| bed.host("h1").unwrap().guest(vm).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("h1/vm1.log");
    vm2.pause_qemu().unwrap();
    let directory = folder.path().to_str().unwrap();
    let capture =
        bed.atp(&["console", "h1/*", "-d", directory, "--timeout", "200s", "-v"]).output("json").start();
    said(&bed, "h1/vm1", "before the restart", &file);
    vm1.destroy().unwrap();
    contains(&file, ": gap: ");
    vm1.start().unwrap();
    vm1.wait_agent(SOON).unwrap();
    said(&bed, "h1/vm1", "after the restart", &file);
    // The guest's kernel stops, and its agent with it.
    let panic = "echo 1 > /proc/sys/kernel/sysrq; (sleep 1; echo c > /proc/sysrq-trigger) > /dev/null 2>&1 &";
    bed.run(&["exec", "h1/vm1", "--", "sh", "-c", panic]).exits_with(0);
    contains(&file, "Kernel panic - not syncing");
    capture.interrupt();
    let run = capture.finish();
    vm2.resume_qemu().unwrap();
    vm1.destroy().unwrap();

    run.exits_with(130);
    assert_eq!(run.brief(), ["h1/vm1 ok none", "h1/vm2 ok none"]);
    let data = &run.outcome("h1/vm1").data;
    assert!(faults(data).contains(&"panic"), "{data}");
    assert!(data["gaps"].as_u64().unwrap() >= 1, "{data}");
    assert!(data["first_gaps"][0]["lasted_ms"].is_u64(), "{data}");
    assert_eq!(data["file"], file.to_str().unwrap());
    assert_eq!(faults(&run.outcome("h1/vm2").data), Vec::<&str>::new());
}

#[test]
fn lines_are_shown_as_they_come_and_through_a_lost_link() {
    let bed = bed();
    let h2 = bed.host("h2").unwrap();
    let capture = bed.atp(&["console", "h2/vm1", "--follow", "--timeout", "200s"]).output("jsonl").start();
    capture.wait_for_stdout("the console is open");
    say(&bed, "h2/vm1", "one line");
    capture.wait_for_stdout("one line");
    h2.kill_daemon().unwrap();
    capture.wait_for_stdout(": gap: ");
    h2.start_daemon().unwrap();
    capture.wait_for_stdout_count("the console is open", 2);
    eventually("a guest that can be asked", SOON, || {
        let run = bed.run(&["exec", "h2/vm1", "--", "sh", "-c", "echo 'another line' > /dev/ttyS0"]);
        if run.brief() == ["h2/vm1 ok done"] { Ok(()) } else { Err(run.stderr) }
    });
    capture.wait_for_stdout("another line");
    capture.interrupt();
    let run = capture.finish();
    run.exits_with(130);
    let stdout = run.stdout();
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let is_line =
        |line: &&Value| line["event"] == "console" && line["vm"] == "vm1" && line["line"] == "one line";
    assert_eq!(lines.iter().filter(is_line).count(), 1, "{stdout}");
    let outcome = lines.last().unwrap();
    assert_eq!((&outcome["status"], &outcome["data"]["gaps"]), (&"ok".into(), &1.into()), "{stdout}");
}

#[test]
fn a_capture_ends_at_its_deadline_and_a_vm_without_a_console_says_so() {
    let bed = bed();
    let run = bed.atp(&["console", "h1/vm1", "--follow", "--timeout", "10s"]).run();
    run.exits_with(0);
    assert!(run.stdout().contains("h1/vm1: --- "), "{}", run.stdout());
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap();
    let run = bed.run(&["console", "h1/vm1", "-d", directory, "--device", "nope", "--timeout", "60s"]);
    run.exits_with(1);
    assert_eq!(run.brief(), ["h1/vm1 failed none libvirt-error"]);
    let off = bed.host("h1").unwrap().guest("vm2").unwrap();
    off.destroy().unwrap();
    let run = bed.run(&["console", "h1/vm2", "-d", directory, "--timeout", "10s"]);
    run.exits_with(1);
    assert_eq!(run.brief(), ["h1/vm2 timeout none vm-not-running"]);
}

#[test]
fn a_terminal_is_attached_and_restored() {
    let bed = bed();
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    // What is typed is read in the guest.
    let reader = "rm -f /tmp/typed; (head -n 1 /dev/ttyS0 > /tmp/typed) > /dev/null 2>&1 &";
    bed.run(&["exec", "h1/vm1", "--", "sh", "-c", reader]).exits_with(0);
    let terminal = Terminal::open();
    let before = terminal.local_modes();
    assert!(before.contains(LocalModes::ICANON | LocalModes::ECHO));
    let mut attached = terminal.start(bed.atp(&["attach", "h1/vm1"]));
    terminal.shows("attached to h1/vm1");
    eventually("a raw terminal", SOON, || {
        let modes = terminal.local_modes();
        if modes.intersects(LocalModes::ICANON | LocalModes::ECHO) { Err(modes) } else { Ok(()) }
    });
    // Until QEMU has noticed that the console is open it drops what is written.
    eventually("a line of the guest", SOON, || {
        say(&bed, "h1/vm1", "seen on the terminal");
        if terminal.text().contains("seen on the terminal") { Ok(()) } else { Err(terminal.text()) }
    });
    eventually("a typed line in the guest", SOON, || {
        terminal.type_in(b"typed here\r");
        let run = bed.run(&["exec", "h1/vm1", "--", "cat", "/tmp/typed"]);
        let stdout = run.outcome("h1/vm1").data["stdout"].to_string();
        if stdout.contains("typed here") { Ok(()) } else { Err(stdout) }
    });
    // A second client is refused, and may take it over.
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap();
    let run = bed.run(&["console", "h1/vm1", "-d", directory, "--timeout", "60s"]);
    assert_eq!(run.brief(), ["h1/vm1 failed none channel-in-use"]);
    terminal.type_in(&[0x1d]);
    assert!(attached.wait().unwrap().success());
    terminal.shows("detached");
    assert_eq!(terminal.local_modes(), before);

    // A signal restores it too.
    let mut attached = terminal.start(bed.atp(&["attach", "h1/vm1", "--force"]));
    eventually("a raw terminal", SOON, || {
        if terminal.local_modes().contains(LocalModes::ECHO) { Err(terminal.text()) } else { Ok(()) }
    });
    let pid = rustix::process::Pid::from_child(&attached);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(attached.wait().unwrap().code(), Some(143));
    assert_eq!(terminal.local_modes(), before);
    guest.destroy().unwrap();
}

#[test]
fn a_channel_is_a_pipe() {
    const CHANNEL: &str = "org.atp.test.channel";
    let bed = bed();
    bed.run(&["exec", "h1/vm1", "--", "channel-peer", "bytes"]).exits_with(0);
    let run = bed.atp(&["channel", "h1/vm1", CHANNEL, "--idle", "15s"]).stdin("to the guest\n").run();
    run.exits_with(0);
    assert_eq!(run.stdout(), "to the guest\n");
    let run = bed.atp(&["channel", "h1/*", CHANNEL]).run();
    run.exits_with(2);
    assert!(run.stderr.contains("matches 2 VMs"), "{}", run.stderr);
    let run = bed.atp(&["attach", "h1/vm1"]).run();
    run.exits_with(2);
    assert!(run.stderr.contains("needs a terminal"), "{}", run.stderr);
}

#[test]
fn consoles_channels_and_events_go_through_a_service() {
    let bed = bed();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let of_service = |args: &[&str]| {
        let atp = bed.atp(args).env("ATP_SERVE__FOLDER", &state);
        atp.env("ATP_SERVE__LISTEN", &format!("127.0.0.1:{port}"))
    };
    let added = of_service(&["serve", "token", "add", "operator", "--role", "operator"]).run();
    let token = folder.path().join("token");
    fs::write(&token, added.exits_with(0).stdout()).unwrap();
    let serving = of_service(&["serve"]).start();
    serving.wait_for_stderr("serving 3 hosts");
    let (url, token) = (format!("http://127.0.0.1:{port}"), token.display().to_string());
    let through = |args: &[&str]| bed.atp(args).env("ATP_SERVER", &url).env("ATP_SERVER_TOKEN_FILE", &token);

    // A lost link of the host is a gap in the console and among the events, and both go on.
    let h2 = bed.host("h2").unwrap();
    let watch = through(&["events", "h2/vm1", "--qemu"]).output("jsonl").start();
    watch.wait_for_stdout(r#""item":"present""#);
    let capture = through(&["console", "h2/vm1", "--follow", "--timeout", "200s"]).output("jsonl").start();
    capture.wait_for_stdout("the console is open");
    say(&bed, "h2/vm1", "one line");
    capture.wait_for_stdout("one line");
    h2.kill_daemon().unwrap();
    capture.wait_for_stdout(": gap: ");
    watch.wait_for_stdout(r#""item":"gap""#);
    h2.start_daemon().unwrap();
    capture.wait_for_stdout_count("the console is open", 2);
    watch.wait_for_stdout_count(r#""item":"present""#, 2);
    bed.run(&["vm", "suspend", "h2/vm1", "--yes"]).exits_with(0);
    watch.wait_for_stdout(r#""change":"suspended""#);
    watch.wait_for_stdout(r#""event":"monitor""#);
    bed.run(&["vm", "resume", "h2/vm1"]).exits_with(0);
    watch.interrupt();
    watch.finish().exits_with(130);
    capture.interrupt();
    let run = capture.finish();
    run.exits_with(130);
    let stdout = run.stdout();
    let outcome: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&outcome["status"], &outcome["data"]["gaps"]), (&"ok".into(), &1.into()), "{stdout}");

    // Consoles in files, one of a VM whose QEMU hangs.
    let vm2 = bed.host("h1").unwrap().guest("vm2").unwrap();
    vm2.pause_qemu().unwrap();
    let directory = folder.path().join("consoles");
    let run = through(&["console", "h1/*", "-d", directory.to_str().unwrap(), "--timeout", "15s"]).run();
    vm2.resume_qemu().unwrap();
    run.exits_with(0);
    for vm in ["vm1", "vm2"] {
        let text = fs::read_to_string(directory.join("h1").join(format!("{vm}.log"))).unwrap();
        assert!(text.contains("the console is open"), "{text}");
    }

    bed.run(&["exec", "h1/vm1", "--", "channel-peer", "bytes"]).exits_with(0);
    let channel = ["channel", "h1/vm1", "org.atp.test.channel", "--idle", "15s"];
    let run = through(&channel).stdin("to the guest\n").run();
    run.exits_with(0);
    assert_eq!(run.stdout(), "to the guest\n");

    let terminal = Terminal::open();
    let mut attached = terminal.start(through(&["attach", "h1/vm1"]));
    terminal.shows("attached to h1/vm1");
    eventually("a line of the guest", SOON, || {
        say(&bed, "h1/vm1", "seen on the terminal");
        if terminal.text().contains("seen on the terminal") { Ok(()) } else { Err(terminal.text()) }
    });
    // The guest ends it, and the service says so.
    bed.host("h1").unwrap().guest("vm1").unwrap().destroy().unwrap();
    assert!(attached.wait().unwrap().success());
    terminal.shows("the VM was stopped");
    serving.interrupt();
    serving.finish().exits_with(0);
}

/// Runs a scenario with these lines after its targets.
fn scenario(bed: &Bed, folder: &Path, targets: &str, rest: &str, junit: Option<&Path>) -> atp_e2e::Run {
    let file = folder.join("scenario.yaml");
    fs::write(&file, format!("name: consoles\ntargets: {targets}\n{rest}")).unwrap();
    let junit = junit.map(|path| path.to_str().unwrap());
    let options = junit.into_iter().flat_map(|path| ["--junit", path]);
    let arguments: Vec<_> =
        ["run", file.to_str().unwrap(), "--yes", "--timeout", "90s"].into_iter().chain(options).collect();
    bed.run(&arguments)
}

#[test]
fn a_scenario_waits_for_lines_and_keeps_evidence_of_a_panic() {
    let bed = bed();
    let folder = tempfile::tempdir().unwrap();
    let (evidence, junit) = (folder.path().join("evidence"), folder.path().join("junit.xml"));
    let rest = format!(
        "evidence: {{console: 200, screenshot: true, commands: [uname], folder: '{}'}}
steps:
  - exec: (sleep 1; nc -l -p 2222) > /dev/null 2>&1 &
  - wait: {{port: 2222}}
  - exec: sh -c 'echo first > /dev/ttyS0; echo second > /dev/ttyS0'
  - wait: {{console: '^first$'}}
  - wait: {{console: '^second$'}}
  - assert: {{file: {{path: /proc/version, matches: Linux}}, console: {{none_of: [panic]}}}}
  - exec: sh -c 'echo 1 > /proc/sys/kernel/sysrq; (sleep 1; echo c > /proc/sysrq-trigger) > /dev/null 2>&1 &'
  - wait: {{console: 'end Kernel panic'}}
  - name: no panic
    assert: {{console: {{none_of: [oops, panic]}}}}
",
        evidence.display()
    );
    let run = scenario(&bed, folder.path(), "h1/vm1", &rest, Some(&junit));
    bed.host("h1").unwrap().guest("vm1").unwrap().destroy().unwrap();
    run.exits_with(1);
    let outcome = run.outcome("h1/vm1");
    let failure = outcome.failure();
    assert!(failure.message.starts_with("step 9 (no panic): the console reports panic"), "{failure:?}");
    assert!(failure.causes.iter().any(|cause| cause.contains("console.log, screen.png")), "{failure:?}");
    // The agent went with its kernel.
    let missed = &outcome.data["evidence"]["missed"];
    assert_eq!(missed[0]["what"], "uname", "{missed}");
    let files = evidence.join("h1/vm1");
    let console = fs::read_to_string(files.join("console.log")).unwrap();
    assert!(console.contains("second\n") && console.contains("Kernel panic - not syncing"), "{console}");
    assert!(fs::read(files.join("screen.png")).unwrap().starts_with(b"\x89PNG"));
    let junit = fs::read_to_string(junit).unwrap();
    assert!(junit.contains(&format!("[[ATTACHMENT|{}/console.log]]", files.display())), "{junit}");
}

#[test]
fn a_console_that_was_not_seen_all_the_time_is_not_said_to_have_no_fault() {
    let bed = bed();
    let h2 = bed.host("h2").unwrap();
    let folder = tempfile::tempdir().unwrap();
    // The guest may have those of an earlier run.
    let [then, now] = ["then", "now"].map(|name| format!("/tmp/{name}-{}", std::process::id()));
    let rest = format!(
        "steps:
  - vm: destroy
  - name: off
    assert: {{console: {{none_of: [panic]}}}}
  - vm: {{action: start, wait: agent}}
  - name: after a restart
    assert: {{console: {{none_of: [panic]}}}}
  - wait: {{exec: touch {then} && rm {now}}}
  - name: after a lost link
    assert: {{console: {{none_of: [panic]}}}}
"
    );
    let run = thread::scope(|scope| {
        let running = scope.spawn(|| scenario(&bed, folder.path(), "h2/vm1", &rest, None));
        let there = |command: &[&str]| {
            let args = [&["--timeout", "20s", "exec", "h2/vm1", "--"], command].concat();
            eventually("a guest that can be asked", SOON, || {
                let run = bed.run(&args);
                if running.is_finished() || run.brief() == ["h2/vm1 ok done"] {
                    Ok(())
                } else {
                    Err(run.stderr)
                }
            });
        };
        there(&["test", "-e", &then]);
        h2.kill_daemon().unwrap();
        h2.start_daemon().unwrap();
        there(&["touch", &now]);
        running.join().unwrap()
    });
    run.exits_with(1);
    let outcome = run.outcome("h2/vm1");
    let failure = outcome.failure();
    assert_eq!(failure.kind, "condition-not-met", "{outcome:?}");
    let words = "step 6 (after a lost link): it is not known what the kernel has reported: the console was not open all the time: ";
    assert!(failure.message.starts_with(words), "{outcome:?}");
}

#[test]
fn a_vm_whose_qemu_hangs_yields_its_console_as_evidence() {
    let bed = bed();
    let [vm1, vm2] = ["vm1", "vm2"].map(|vm| bed.host("h1").unwrap().guest(vm).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let evidence = folder.path().join("evidence");
    let rest = format!(
        "evidence: {{console: 50, screenshot: true, commands: [uname], folder: '{}'}}
steps:
  - exec: sh -c 'echo before > /dev/ttyS0'
  - wait: {{console: before}}
  - wait: {{console: 'never written'}}
    timeout: 15s
",
        evidence.display()
    );
    let run = thread::scope(|scope| {
        let running = scope.spawn(|| scenario(&bed, folder.path(), "[h1/vm1, h1/vm2]", &rest, None));
        let console = || {
            let text = fs::read_to_string(vm1.console()).unwrap_or_default();
            text.split_once("before").is_some_and(|(_, rest)| rest.contains('\n'))
        };
        eventually("the first step", SOON, || if console() { Ok(()) } else { Err(()) });
        vm1.pause_qemu().unwrap();
        running.join().unwrap()
    });
    vm1.resume_qemu().unwrap();
    run.exits_with(1);
    for (vm, files) in [(&vm1, 1), (&vm2, 3)] {
        let outcome = run.outcome(&format!("h1/{}", vm.name()));
        let report = &outcome.data["evidence"];
        assert_eq!(report["files"].as_array().unwrap().len(), files, "{outcome:?}");
        assert_eq!(report["missed"].as_array().unwrap().len(), 3 - files, "{outcome:?}");
        let console = fs::read_to_string(evidence.join("h1").join(vm.name()).join("console.log")).unwrap();
        assert!(console.contains("before\n"), "{console}");
    }
}
