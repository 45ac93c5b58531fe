//! Streams through a service: events, consoles, channels, on a simulated fleet.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use atp_fleet::HostFault;
use serde_json::Value;

use crate::atp::Run;
use crate::interrupts::signal;
use crate::server::Bed;
use crate::top::Terminal;

#[test]
fn events_are_the_same_through_a_service() {
    let bed = Bed::new();
    // Without times, and without what differs from one change to the next.
    let items = |run: Run| {
        let mut items: Vec<Value> =
            run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for item in &mut items {
            item.as_object_mut().unwrap().remove("at");
        }
        items.sort_by_key(ToString::to_string);
        items
    };
    let listen = |server: Option<&str>| {
        let mut args = vec!["--config", &bed.settings, "-o", "jsonl"];
        args.extend(server.iter().flat_map(|url| ["--server", url]));
        args.extend(["events", "h1/vm1", "h[2-3]/", "--exclude", "h3/", "--count", "2", "--for", "60s"]);
        let mut child = bed.home.atp(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let present = |line: &String| line.contains("\"present\"");
        let mut text: Vec<String> = lines.by_ref().take(2).collect();
        assert!(text.iter().all(present), "{text:?}");
        bed.here(&["vm", "suspend", "h1/*", "--yes"]).exits(0);
        bed.here(&["vm", "resume", "h1/*", "--yes"]).exits(0);
        text.extend(lines);
        let status = child.wait_with_output().unwrap().status;
        items(Run { stdout: text.join("\n"), stderr: String::new(), status })
    };
    // Each finds the same reasons of states.
    bed.here(&["vm", "suspend", "h1/*", "--yes"]).exits(0);
    bed.here(&["vm", "resume", "h1/*", "--yes"]).exits(0);
    let here = listen(None);
    assert_eq!(here.iter().filter(|item| item["item"] == "event").count(), 2, "{here:?}");
    assert_eq!(listen(Some(&bed.url)), here);
    // What is shown to people has the same words: that the host is watched, and its two VMs.
    let words = |args: &[&str]| -> BTreeSet<String> {
        let mut child = bed.home.atp(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let words = lines.filter_map(|line| Some(line.split_once("Z  ")?.1.to_owned())).take(3).collect();
        signal(&child, "INT");
        child.wait().unwrap();
        words
    };
    let here = words(&["--config", &bed.settings, "events", "h2/", "--for", "60s"]);
    assert!(here.contains("h2/vm1  is running"), "{here:?}");
    let there = ["--config", &bed.settings, "--server", &bed.url, "events", "h2/", "--for", "60s"];
    assert_eq!(words(&there), here);
}

#[test]
fn events_of_a_vm_or_host_that_is_not_there_and_of_one_that_is_away_end_as_without_a_service() {
    let bed = Bed::new();
    for args in [
        &["events", "h1/nosuch", "--for", "60s"][..],
        &["events", "h9/x", "--for", "60s"],
        &["events", "h1/", "--exclude", "h1/", "--for", "60s"],
        &["events", "-o", "csv"],
    ] {
        let (here, there) = (bed.here(args), bed.there(args));
        assert_eq!(there.status.code(), here.status.code(), "{args:?}: {}", there.stderr);
        let first = |run: &Run| run.stderr.lines().next().unwrap_or_default().to_owned();
        assert_eq!(first(&there), first(&here), "{args:?}");
    }
    bed.fleet.host(2).unwrap().set_fault(HostFault::Refused);
    let away = ["events", "h[1-2]/", "--for", "20s"];
    let run = bed.there(&away).exits(1);
    assert!(run.stderr.contains("never watched: h2"), "{}", run.stderr);
    let items = run.outcomes();
    assert!(items.iter().any(|item| item["item"] == "unreachable" && item["host"] == "h2"), "{items:?}");
    assert!(items.iter().any(|item| item["item"] == "present" && item["host"] == "h1"), "{items:?}");
}

#[test]
fn consoles_are_captured_through_a_service_as_without_one() {
    let bed = Bed::new();
    let (here, there) = (bed.home.path("here"), bed.home.path("there"));
    let captured = |run: Run, folder: &Path| {
        let reports = run.outcomes().into_iter().map(|outcome| {
            let file = PathBuf::from(outcome["data"]["file"].as_str().unwrap());
            let text = fs::read_to_string(&file).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with("---")).map(str::to_owned);
            let place = file.strip_prefix(folder).unwrap().to_owned();
            (place, outcome["data"]["lines"].clone(), lines.collect::<Vec<_>>())
        });
        reports.collect::<Vec<_>>()
    };
    let args = |folder: &Path| {
        ["console", "h1/*", "-d", folder.to_str().unwrap(), "--timeout", "10s"].map(str::to_owned)
    };
    let run = |run: &dyn Fn(&[&str]) -> Run, folder: &Path| {
        captured(run(&args(folder).each_ref().map(String::as_str)).exits(0), folder)
    };
    let ours = run(&|args| bed.here(args), &here);
    assert_eq!(ours[0].0, Path::new("h1/vm1.log"));
    assert!(ours[0].2.iter().any(|line| line.contains("vm1 login:")), "{ours:?}");
    assert_eq!(run(&|args| bed.there(args), &there), ours);
}

#[test]
fn lines_of_consoles_come_through_a_service_until_ctrl_c() {
    let bed = Bed::new();
    let args = ["--config", &bed.settings, "-o", "jsonl", "--server", &bed.url];
    let follow = ["console", "h[1-2]/", "--follow", "--timeout", "60s"];
    let mut command = bed.home.atp(args.iter().chain(&follow));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut greeted = BTreeSet::new();
    while greeted.len() < 4 {
        let line: Value = serde_json::from_str(&lines.next().expect("the lines end early")).unwrap();
        if line["line"].as_str().is_some_and(|text| text.contains("login:")) {
            greeted.insert(format!("{}/{}", line["host"], line["vm"]));
        }
    }
    signal(&child, "INT");
    let rest: Vec<Value> = lines.map(|line| serde_json::from_str(&line).unwrap()).collect();
    assert_eq!(rest.iter().filter(|line| line["status"] == "ok").count(), 4, "{rest:?}");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// Runs `channel` with this input.
fn channel(bed: &Bed, server: &[&str], vm: &str, input: &str) -> Run {
    let args = [&["--config", &bed.settings][..], server, &["channel", vm, "org.example.x", "--idle", "8s"]];
    let mut command = bed.home.atp(args.concat());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { stdout: text(output.stdout), stderr: text(output.stderr), status: output.status }
}

#[test]
fn a_channel_is_a_pipe_through_a_service() {
    let bed = Bed::new();
    let through = ["--server", bed.url.as_str()];
    // More than a message holds.
    let long = "0123456789abcde\n".repeat(40_000);
    for input in ["hello\n", &long] {
        let run = channel(&bed, &through, "h1/vm1", input);
        assert_eq!((run.status.code(), run.stdout.len()), (Some(0), input.len()), "{}", run.stderr);
        assert!(run.stdout == input, "the bytes are not those that were sent");
    }
    for vm in ["h1/vm9", "h1/*", "h9/x"] {
        let (here, there) = (channel(&bed, &[], vm, ""), channel(&bed, &through, vm, ""));
        assert_eq!(
            (there.status.code(), there.stderr.lines().next()),
            (here.status.code(), here.stderr.lines().next())
        );
    }
    bed.here(&["vm", "destroy", "h1/vm2", "--yes"]).exits(0);
    let (here, there) = (channel(&bed, &[], "h1/vm2", ""), channel(&bed, &through, "h1/vm2", ""));
    // A service has the reasons in one line.
    let ends = |run: &Run| {
        (run.stderr.lines().next().map(str::to_owned), run.stderr.lines().last().map(str::to_owned))
    };
    assert_eq!((there.status.code(), ends(&there)), (Some(1), ends(&here)));
    assert!(there.stderr.contains("domain is not running"), "{}", there.stderr);
    let audit = fs::read_to_string(bed.home.path(".local/state/atp/audit.jsonl")).unwrap();
    assert!(
        audit.lines().any(|line| line.contains("\"channel\"") && line.contains("org.example.x")),
        "{audit}"
    );
}

#[test]
fn a_channel_says_that_the_service_was_lost_or_has_ended() {
    for (name, reason) in [("KILL", "connection to the service was lost"), ("TERM", "the service ends")] {
        let bed = Bed::new();
        let args = ["--config", &bed.settings, "--server", &bed.url, "channel", "h1/vm1", "x"];
        let mut command = bed.home.atp(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"one\n").unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "one");
        bed.signal(name);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("the channel was lost") && said.contains(reason), "{said}");
        drop(stdin);
    }
}

#[test]
fn a_console_is_attached_through_a_service() {
    let bed = Bed::new();
    let args = ["--config", &bed.settings, "--server", &bed.url, "attach", "h1/vm1"];
    let mut terminal = Terminal::start(&bed.home, 160, &args);
    terminal.shows("the console", |text| text.contains("attached to h1/vm1") && text.contains("vm1 login:"));
    terminal.types("root-of-all");
    terminal.shows("what the guest sends back", |text| text.contains("root-of-all"));
    terminal.types("\u{1d}");
    terminal.shows("the end", |text| text.contains("detached"));
    assert_eq!(terminal.ends().code(), Some(0));
}
