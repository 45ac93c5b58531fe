//! `atp --server`: the same verbs through a service, on a simulated fleet.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::thread;

use atp_fleet::{Fleet, FleetOptions, VmFault};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::atp::{Home, Run};
use crate::interrupts::signal;

/// A fleet of 3 hosts with 2 VMs each, and a service that has it.
struct Bed {
    fleet: Fleet,
    home: Home,
    settings: String,
    url: String,
    service: Child,
    _runtime: Runtime,
}

impl Bed {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let options = FleetOptions { hosts: 3, vms: 2, seed: 1, ..FleetOptions::default() };
        let fleet = runtime.block_on(Fleet::start(options)).unwrap();
        let home = Home::new();
        let token_file = home.write("token", "").display().to_string();
        let settings = format!("server_token_file = {token_file:?}\n{}", fleet.settings());
        let settings = home.write("fleet.toml", &settings).display().to_string();
        let token = ["--config", &settings, "serve", "token", "add", "test", "--role", "operator"];
        home.write("token", &home.run(token).exits(0).stdout);
        let mut command = home.atp(["--config", &settings, "serve", "--listen", "127.0.0.1:0"]);
        let mut service = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(service.stderr.take().unwrap()).lines().map_while(Result::ok);
        let url = lines.find_map(|line| Some(line[line.find("http://")?..].to_owned()));
        let url = url.unwrap_or_else(|| panic!("the service does not listen"));
        // What it says later must not fill the pipe.
        thread::spawn(move || lines.for_each(drop));
        Bed { fleet, home, settings, url, service, _runtime: runtime }
    }

    fn here(&self, args: &[&str]) -> Run {
        self.home.run(["--config", &self.settings, "-o", "json"].iter().chain(args))
    }

    fn there(&self, args: &[&str]) -> Run {
        self.home.run(["--config", &self.settings, "-o", "json", "--server", &self.url].iter().chain(args))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}

/// The exit code and the outcomes of a run, without the times that they took.
fn told(run: &Run) -> (Option<i32>, Vec<Value>) {
    let mut outcomes: Vec<Value> = serde_json::from_str(&run.stdout).unwrap_or_default();
    for outcome in &mut outcomes {
        let fields = outcome.as_object_mut().unwrap();
        fields.remove("duration_ms");
        if let Some(data) = fields.get_mut("data").and_then(Value::as_object_mut) {
            ["connect_ms", "latency_ms"].iter().for_each(|field| drop(data.remove(*field)));
        }
    }
    (run.status.code(), outcomes)
}

#[test]
fn verbs_have_the_same_outcomes_through_a_service() {
    let bed = Bed::new();
    for args in [
        &["exec", "*", "--", "echo", "hi"][..],
        &["exec", "h1/vm1", "h9/x", "--", "true"],
        &["exec", "nosuch", "--", "true"],
        &["vm", "list", "h1/"],
        &["vm", "info", "h2/vm1"],
        &["vm", "list", "h1/no*"],
        &["vm", "destroy", "h1/", "--dry-run"],
        &["vm", "destroy", "h1/"],
        &["vm", "suspend", "h3/", "--yes"],
        &["exec", "h3/vm1", "--", "true"],
        &["qmp", "h2/*", "query-status"],
        &["host", "check"],
        &["wait", "h1/vm1", "--for", "agent"],
    ] {
        // What a verb changes is changed back for the other.
        let here = bed.here(args);
        if args.contains(&"suspend") {
            bed.here(&["vm", "resume", "h3/", "--yes"]).exits(0);
        }
        let there = bed.there(args);
        let (mut theirs, mut ours) = (told(&there), told(&here));
        if args.contains(&"--dry-run") {
            // A plan says of a VM its name, its UUID and its state.
            let outcomes = theirs.1.iter_mut().chain(&mut ours.1);
            outcomes.for_each(|outcome| drop(outcome.as_object_mut().unwrap().remove("data")));
        }
        assert_eq!(theirs, ours, "{args:?}: {}", there.stderr);
    }
}

#[test]
fn a_hung_vm_ends_at_its_deadline_through_a_service_and_ctrl_c_stops_the_run() {
    let bed = Bed::new();
    let vm = bed.fleet.hosts().next().unwrap().vm(1).unwrap();
    vm.set_fault(Some(VmFault::Hung));
    let run = bed.there(&["exec", "h1/*", "--timeout", "2s", "--", "true"]).exits(1);
    let outcomes: Vec<Value> = serde_json::from_str(&run.stdout).unwrap();
    let statuses: Vec<_> = outcomes.iter().map(|outcome| outcome["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["timeout", "ok"]);

    let args = ["--config", &bed.settings, "-o", "jsonl", "-v", "--server", &bed.url];
    let run = ["exec", "*", "--parallel", "1", "--timeout", "60s", "--", "true"];
    let mut command = bed.home.atp(args.iter().chain(&run));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("started") && line.contains("vm1")), "the run does not begin");
    signal(&child, "INT");
    assert!(lines.any(|line| line.contains("interrupted")), "the first signal is not told");
    signal(&child, "INT");
    thread::spawn(move || lines.for_each(drop));
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 6, "each target has its outcome");
}

#[test]
fn what_a_service_cannot_do_is_refused_by_name() {
    let bed = Bed::new();
    for (args, expected) in [
        (&["exec", "*", "--journal", "j", "--", "true"][..], "--journal"),
        (&["cp", "/etc/hostname", "h1/vm1:/tmp/x"], "cp"),
        (&["doctor"], "--server none"),
    ] {
        let run = bed.there(args).exits(2);
        assert!(run.stderr.contains(expected), "{args:?}: {}", run.stderr);
    }
    bed.home.write("token", "of nobody");
    let run = bed.there(&["vm", "list", "*"]).exits(2);
    assert!(run.stderr.contains("token") && !run.stderr.contains("nobody"), "{}", run.stderr);
    let gone = ["--config", &bed.settings, "--server", "http://127.0.0.1:1", "vm", "list", "*"];
    let run = bed.home.run(gone).exits(2);
    assert!(run.stderr.contains("cannot be reached"), "{}", run.stderr);
}
