//! `atp --server`: the same verbs through a service, on a simulated fleet.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use atp_fleet::{Fleet, FleetOptions, VmFault};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::atp::{Home, Run};
use crate::interrupts::signal;

/// A fleet of 3 hosts with 2 VMs each, and a service that has it.
pub(crate) struct Bed {
    pub(crate) fleet: Fleet,
    pub(crate) home: Home,
    pub(crate) settings: String,
    pub(crate) url: String,
    service: Child,
    _runtime: Runtime,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let options = FleetOptions { hosts: 3, vms: 2, seed: 1, ..FleetOptions::default() };
        let fleet = runtime.block_on(Fleet::start(options)).unwrap();
        let home = Home::new();
        let token_file = home.write("token", "").display().to_string();
        let settings = format!("server_token_file = {token_file:?}\n{}", fleet.settings());
        let settings = home.write("fleet.toml", &settings).display().to_string();
        let token = ["--config", &settings, "serve", "token", "add", "test", "--role", "operator"];
        home.write("token", &home.run(token).exits(0).stdout);
        fs::set_permissions(home.path("token"), Permissions::from_mode(0o600)).unwrap();
        let mut command = home.atp(["--config", &settings, "serve", "--listen", "127.0.0.1:0"]);
        let mut service = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(service.stderr.take().unwrap()).lines().map_while(Result::ok);
        let url = lines.find_map(|line| Some(line[line.find("http://")?..].to_owned()));
        let url = url.unwrap_or_else(|| panic!("the service does not listen"));
        // What it says later must not fill the pipe.
        thread::spawn(move || lines.for_each(drop));
        Bed { fleet, home, settings, url, service, _runtime: runtime }
    }

    /// Sends a signal to the service.
    pub(crate) fn signal(&self, name: &str) {
        signal(&self.service, name);
    }

    pub(crate) fn here(&self, args: &[&str]) -> Run {
        self.home.run(["--config", &self.settings, "-o", "json"].iter().chain(args))
    }

    pub(crate) fn there(&self, args: &[&str]) -> Run {
        self.home.run(["--config", &self.settings, "-o", "json", "--server", &self.url].iter().chain(args))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}

/// Takes away what a check measured: a time is another one each time.
fn without_times(findings: &mut Value) {
    for finding in findings.as_array_mut().into_iter().flatten() {
        let message = finding["message"].as_str().unwrap().to_owned();
        let words = message
            .split(' ')
            .map(|word| if word.starts_with(|c: char| c.is_ascii_digit()) { "N" } else { word });
        finding["message"] = words.collect::<Vec<_>>().join(" ").into();
    }
}

/// The exit code and the outcomes of a run, without the times that they took.
fn told(run: &Run) -> (Option<i32>, Vec<Value>) {
    let mut outcomes: Vec<Value> = serde_json::from_str(&run.stdout).unwrap_or_default();
    // The file of the token is looked at only where a service is used.
    outcomes.retain(|outcome| !outcome.to_string().contains("/token is valid"));
    for outcome in &mut outcomes {
        let fields = outcome.as_object_mut().unwrap();
        fields.remove("duration_ms");
        if let Some(data) = fields.get_mut("data").and_then(Value::as_object_mut) {
            ["connect_ms", "latency_ms"].iter().for_each(|field| drop(data.remove(*field)));
            if let Some(host) = data.get_mut("host").and_then(Value::as_object_mut) {
                ["connect_ms", "latency_ms"].iter().for_each(|field| drop(host.remove(*field)));
            }
            data.get_mut("findings").map(without_times);
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
        &["host", "list"],
        &["doctor", "h1", "h2"],
        &["doctor", "--dry-run"],
        &["exec", "h2/", "--dry-run", "--", "true"],
        &["wait", "h1/vm1", "--for", "agent"],
    ] {
        // What a verb changes is changed back for the other.
        let here = bed.here(args);
        if args.contains(&"suspend") {
            bed.here(&["vm", "resume", "h3/", "--yes"]).exits(0);
        }
        let there = bed.there(args);
        let (theirs, ours) = (told(&there), told(&here));
        assert_eq!(theirs, ours, "{args:?}: {}", there.stderr);
    }
}

#[test]
fn a_hung_vm_ends_at_its_deadline_through_a_service_and_ctrl_c_stops_the_run() {
    let bed = Bed::new();
    let vm = bed.fleet.hosts().next().unwrap().vm(1).unwrap();
    vm.set_fault(Some(VmFault::Hung));
    let run = bed.there(&["exec", "h1/*", "--timeout", "10s", "--", "true"]).exits(1);
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
fn each_target_has_an_outcome_although_its_service_is_lost() {
    let bed = Bed::new();
    bed.fleet.hosts().next().unwrap().vm(1).unwrap().set_fault(Some(VmFault::Hung));
    let args = ["--config", &bed.settings, "-o", "jsonl", "--server", &bed.url];
    let run = ["exec", "*", "--timeout", "10m", "--", "true"];
    let mut command = bed.home.atp(args.iter().chain(&run));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut told: Vec<_> = lines.by_ref().take(5).collect();
    bed.signal("KILL");
    told.extend(lines);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("could not be read") && said.contains("6 targets: 5 ok, 1 failed"), "{said}");
    assert!(said.contains("5 of 6 done, 1 running") && said.contains("has not answered for"), "{said}");
    let outcomes: Vec<Value> = told.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(outcomes.len(), 6, "{told:?}");
    let last = &outcomes[5];
    assert_eq!(
        (&last["host"], &last["vm"], &last["effect"]),
        (&"h1".into(), &"vm1".into(), &"unknown".into())
    );
    assert_eq!(last["error"]["kind"], "outcome-unknown");
}

#[test]
fn a_run_that_was_stopped_is_continued_by_its_number() {
    let bed = Bed::new();
    let vm = bed.fleet.hosts().next().unwrap().vm(1).unwrap();
    let file = bed.home.write("a", "x").display().to_string();
    bed.here(&["cp", &file, "*:/a"]).exits(0);
    vm.set_fault(Some(VmFault::Hung));
    let to = bed.home.path("pulled").display().to_string();
    let copy = ["cp", "*:/a", &to, "--parallel", "1"];
    let run = bed.there(&[&copy[..], &["--max-failures", "1", "--timeout", "2s"]].concat());
    assert_ne!(run.status.code(), Some(0), "{}", run.stderr);
    let (_, number) = run.stderr.split_once("--resume ").unwrap_or_else(|| panic!("{}", run.stderr));
    let number = number.split_whitespace().next().unwrap();
    vm.set_fault(None);
    let other = bed.there(&["exec", "*", "--resume", number, "--", "true"]).exits(2);
    assert!(other.stderr.contains("another operation"), "{}", other.stderr);
    let resumed = bed.there(&[&copy[..], &["--timeout", "60s", "--resume", number]].concat()).exits(0);
    let outcomes: Vec<Value> = serde_json::from_str(&resumed.stdout).unwrap();
    let left = |outcome: &&Value| outcome["status"] == "ok" && outcome["from_earlier_run"].is_null();
    assert_eq!(outcomes.iter().filter(left).count(), outcomes.len(), "{}", resumed.stdout);
    for (host, vm) in [1, 2, 3].into_iter().flat_map(|host| [1, 2].map(|vm| (host, vm))) {
        let file = bed.home.path(&format!("pulled/h{host}/vm{vm}/a"));
        assert!(file.is_file(), "{}", file.display());
    }
    let again = bed.there(&[&copy[..], &["--resume", number]].concat()).exits(0);
    assert_eq!(again.stdout.trim(), "[]", "nothing is left");
}

#[test]
fn what_a_service_cannot_do_is_refused_by_name() {
    let bed = Bed::new();
    let run = bed.there(&["exec", "*", "--resume", "j", "--", "true"]).exits(2);
    assert!(run.stderr.contains("--resume NUMBER"), "{}", run.stderr);
    let run = bed.there(&["exec", "*", "--resume", "1", "--dry-run", "--", "true"]).exits(2);
    assert!(run.stderr.contains("--dry-run"), "{}", run.stderr);
    let run = bed.there(&["exec", "*", "--resume", "99", "--", "true"]).exits(2);
    assert!(run.stderr.contains("there is no run"), "{}", run.stderr);
    let run = bed.there(&["exec", "*", "--journal", "j", "--", "true"]).exits(2);
    assert!(run.stderr.contains("--journal"), "{}", run.stderr);
    bed.home.write("token", "of nobody");
    let run = bed.there(&["vm", "list", "*"]).exits(2);
    assert!(run.stderr.contains("token") && !run.stderr.contains("nobody"), "{}", run.stderr);
    let gone = ["--config", &bed.settings, "--server", "http://127.0.0.1:1", "vm", "list", "*"];
    let run = bed.home.run(gone).exits(2);
    assert!(run.stderr.contains("cannot be reached"), "{}", run.stderr);
}

/// The text of a file, and the bits of its permissions.
fn file(path: &std::path::Path) -> (String, u32) {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (text, fs::metadata(path).unwrap().permissions().mode() & 0o777)
}

#[test]
fn files_are_copied_through_a_service_to_where_they_belong() {
    let bed = Bed::new();
    let source = bed.home.write("app.conf", "port = 1\n");
    fs::set_permissions(&source, Permissions::from_mode(0o640)).unwrap();
    let (source, out) = (source.display().to_string(), bed.home.path("out"));
    let to = out.display().to_string();
    let pushed = bed.there(&["cp", &source, "h1/*:/etc/app.conf"]).exits(0);
    assert_eq!(pushed.outcomes().len(), 2);
    for outcome in pushed.outcomes() {
        assert_eq!((&outcome["data"]["local_path"], &outcome["data"]["bytes"]), (&json!(source), &json!(9)));
    }
    // From several VMs each has a place of its own, from one VM it is the file that is named.
    let pulled = bed.there(&["cp", "h1/*:/etc/app.conf", &to]).exits(0);
    for (outcome, vm) in pulled.outcomes().iter().zip(["vm1", "vm2"]) {
        let path = out.join("h1").join(vm).join("app.conf");
        assert_eq!(outcome["data"]["local_path"], json!(path));
        assert_eq!(file(&path).0, "port = 1\n");
    }
    let one = bed.home.path("one.conf");
    bed.there(&["cp", "h1/vm1:/etc/app.conf", one.to_str().unwrap()]).exits(0);
    let here = bed.home.path("here.conf");
    bed.here(&["cp", "h1/vm1:/etc/app.conf", here.to_str().unwrap()]).exits(0);
    assert_eq!(file(&one), file(&here));

    let shots = bed.home.path("shots");
    let run = bed.there(&["screenshot", "h2/*", "-d", shots.to_str().unwrap()]).exits(0);
    for outcome in run.outcomes() {
        let picture = fs::read(outcome["data"]["file"].as_str().unwrap()).unwrap();
        assert!(picture.starts_with(b"\x89PNG"), "{outcome}");
    }
    assert!(shots.join("h2/vm1.png").exists() && shots.join("h2/vm2.png").exists());

    assert_eq!(
        bed.there(&["cp", "h1/vm1:/none", &to]).exits(1).outcomes()[0]["error"]["kind"],
        "file-not-found"
    );
    bed.there(&["cp", "/none", "h1/vm1:/x"]).exits(2);
    let left = fs::read_dir(bed.home.path(".local/state/atp/files")).unwrap();
    let left = left.filter(|folder| fs::read_dir(folder.as_ref().unwrap().path()).unwrap().count() > 1);
    assert_eq!(left.count(), 0, "the service keeps files that are fetched");
    // What cannot be put in its place is a failure of its target.
    let run = bed.there(&["cp", "h1/vm1:/etc/app.conf", &format!("{source}/below")]).exits(1);
    assert_eq!(run.outcomes()[0]["error"]["kind"], "local-file-error");
}

#[test]
fn a_scenario_copies_files_and_takes_pictures_through_a_service() {
    let bed = Bed::new();
    let folder = bed.home.path("");
    bed.home.write("all.conf", "all");
    bed.home.write("vm1.conf", "one");
    bed.home.write(
        "files.yaml",
        "name: files\ntargets: h1/*\nvariables: {out: got/it}\nsteps:\n  - cp: {push: all.conf, to: /tmp/all}\n  \
         - cp: {pull: /tmp/all, to: '${out}'}\n  - screenshot: shots\n  - cp: {push: '${vm}.conf', to: /tmp/own}\n",
    );
    let args = |server: &[&str]| {
        let args = ["--config", &bed.settings, "-o", "json"].map(str::to_owned);
        let server = server.iter().map(|&text| text.to_owned());
        args.into_iter().chain(server).chain(["run", "files.yaml"].map(str::to_owned)).collect::<Vec<_>>()
    };
    let run = |args: &[String]| {
        let output = bed.home.atp(args).current_dir(&folder).output().unwrap();
        let outcomes: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), outcomes, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, there, said) = run(&args(&["--server", &bed.url]));
    assert_eq!((code, there.len()), (Some(1), 2), "{said}");
    for (outcome, vm) in there.iter().zip(["vm1", "vm2"]) {
        let steps = outcome["data"]["steps"].as_array().unwrap();
        assert_eq!(steps[0]["data"]["local_path"], "all.conf", "{outcome}");
        assert_eq!(steps[1]["data"]["local_path"], format!("got/it/h1/{vm}/all"));
        assert_eq!(file(&folder.join(format!("got/it/h1/{vm}/all"))).0, "all");
        assert!(fs::read(folder.join(format!("shots/h1/{vm}.png"))).unwrap().starts_with(b"\x89PNG"));
        // There is a file for the first VM only.
        assert_eq!(steps[3]["status"], if vm == "vm1" { "ok" } else { "failed" }, "{outcome}");
    }
    let (code, here, _) = run(&args(&[]));
    let statuses = |outcomes: &[Value]| {
        let steps = outcomes.iter().flat_map(|outcome| outcome["data"]["steps"].as_array().unwrap().clone());
        steps
            .map(|step| (step["op"].clone(), step["status"].clone(), step["effect"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!((code, statuses(&here)), (Some(1), statuses(&there)));

    bed.home.write("later.yaml", "name: a\ntargets: h1/*\nsteps:\n  - exec: hostname\n    capture: x\n  - cp: {push: '${x}', to: /a}\n");
    let path = bed.home.path("later.yaml");
    let run = bed.there(&["run", path.to_str().unwrap()]).exits(2);
    assert!(run.stderr.contains("${x}") && run.stderr.contains("--server none"), "{}", run.stderr);
}

/// A way to a service that can hold back answers.
struct Way {
    url: String,
    /// Whether the answer to a start is held back.
    is_held: Arc<AtomicBool>,
    /// Tells of each start that was passed on.
    starts: Receiver<()>,
}

impl Way {
    fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = format!("http://{}", listener.local_addr().unwrap());
        let service = url.strip_prefix("http://").unwrap().to_owned();
        let is_held = Arc::new(AtomicBool::new(true));
        let (started, starts) = channel();
        let held = is_held.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(&service).unwrap();
                let holds = Arc::new(AtomicBool::new(false));
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (started, begun) = (started.clone(), holds.clone());
                thread::spawn(move || {
                    pass(from, to, |bytes| {
                        if bytes.starts_with(b"POST /api/v1/runs?plan=") {
                            begun.store(true, Ordering::SeqCst);
                            let _unheard = started.send(());
                        }
                    });
                });
                let held = held.clone();
                thread::spawn(move || {
                    pass(server, client, |_| {
                        while holds.load(Ordering::SeqCst) && held.load(Ordering::SeqCst) {
                            thread::sleep(Duration::from_millis(10));
                        }
                    });
                });
            }
        });
        Way { url: own, is_held, starts }
    }
}

/// Passes bytes on until either side closes.
fn pass(mut from: TcpStream, mut to: TcpStream, before: impl Fn(&[u8])) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        before(&bytes[..read]);
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ended = to.shutdown(Shutdown::Both);
}

/// The runs of the service, the newest first.
fn runs(bed: &Bed) -> Vec<Value> {
    let address = bed.url.strip_prefix("http://").unwrap();
    let token = fs::read_to_string(bed.home.path("token")).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "GET /api/v1/runs HTTP/1.0\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\r\n",
        token.trim()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn ctrl_c_while_a_start_is_not_answered_starts_no_second_run() {
    let bed = Bed::new();
    for (answered, programs) in [(true, 1), (false, 2)] {
        let way = Way::to(&bed.url);
        let args = ["--config", &bed.settings, "-o", "jsonl", "--server", &way.url];
        let run = ["exec", "*", "--parallel", "1", "--timeout", "60s", "--", "true"];
        let mut command = bed.home.atp(args.iter().chain(&run));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        way.starts.recv().unwrap();
        signal(&child, "INT");
        if answered {
            // The signal is there before the answer: then it is the answer to that start which is waited for.
            thread::sleep(Duration::from_millis(300));
            way.is_held.store(false, Ordering::SeqCst);
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert_eq!(said.contains("may have started the run"), !answered, "{said}");
        if answered {
            let outcomes = String::from_utf8_lossy(&output.stdout).lines().count();
            assert_eq!(outcomes, 6, "each target has its outcome: {said}");
        }
        assert_eq!(way.starts.try_iter().count(), 0, "it was sent again");
        assert_eq!(runs(&bed).len(), programs, "{:?}", runs(&bed));
        way.is_held.store(false, Ordering::SeqCst);
    }
}

#[test]
fn evidence_and_included_files_go_through_a_service() {
    let bed = Bed::new();
    let folder = bed.home.path("");
    bed.here(&["screenshot", "h1/vm1", "-d", folder.join("seen").to_str().unwrap()]).exits(0);
    bed.home.write("steps/fail.yaml", "- {name: end, exec: exit 3}\n");
    bed.home.write(
        "kept.yaml",
        "name: kept\ntargets: h1/vm1\nevidence: {screenshot: true, commands: [hostname], folder: kept/all}\nsteps:\n  \
         - assert: {screen: {image: seen/h1/vm1.png}}\n  - include: steps/fail.yaml\n",
    );
    let args = ["--config", &bed.settings, "-o", "json", "--server", &bed.url, "run", "kept.yaml"];
    let output = bed.home.atp(args).current_dir(&folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let outcomes: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let evidence = &outcomes[0]["data"]["evidence"];
    assert_eq!(evidence["folder"], "kept/all/h1/vm1", "{outcomes:?}");
    assert_eq!(evidence["files"], serde_json::json!(["screen.png", "command-1.txt"]));
    assert!(fs::read(folder.join("kept/all/h1/vm1/screen.png")).unwrap().starts_with(b"\x89PNG"));
    assert!(file(&folder.join("kept/all/h1/vm1/command-1.txt")).0.starts_with("$ hostname\n"));
    let causes = outcomes[0]["error"]["causes"].to_string();
    assert!(causes.contains("evidence is in kept/all/h1/vm1: screen.png"), "{causes}");
    assert_eq!(outcomes[0]["error"]["message"].as_str().unwrap().split(':').next(), Some("step 2 (end)"));
}

#[test]
fn vms_are_reserved_in_the_service_and_the_list_shows_who_has_them() {
    let bed = Bed::new();
    let owned = |args: &[&str]| bed.there(&[args, &["--owner", "job-1"]].concat());
    let reserve = ["reserve", "h1/", "--for", "1h"];
    let first = owned(&reserve).exits(0).outcomes();
    assert_eq!((first.len(), &first[0]["vm"]), (1, &json!("vm1")));
    let other = ["--count", "2", "--owner", "job-2"];
    bed.there(&[&reserve[..], &other].concat())
        .exits(1)
        .says(&["too few VMs are free: 1 of the 2 selected, and --count is 2"]);
    bed.there(&[&reserve[..], &["--count", "3", "--owner", "job-2"]].concat())
        .exits(1)
        .says(&["too few VMs are selected: 2, and --count is 3"]);
    let listed = bed.there(&["vm", "list", "h1/"]).exits(0).outcomes();
    assert_eq!(listed[0]["data"]["reserved_by"], "job-1");
    assert_eq!(listed[0]["data"]["reserved_until_ms"], first[0]["until_ms"]);
    assert_eq!(listed[1]["data"].get("reserved_by"), None);
    // The first has to be released while the second waits.
    let second = thread::scope(|scope| {
        let waiting =
            scope.spawn(|| bed.there(&[&reserve[..], &other, &["--wait=2m"]].concat()).exits(0).outcomes());
        assert_eq!(owned(&["release", "vm1"]).exits(0).outcomes(), first);
        waiting.join().unwrap()
    });
    assert_eq!(second.len(), 2);
    owned(&[&reserve[..], &["--file", "x"]].concat())
        .exits(2)
        .says(&["--file is for reservations without a service"]);
}

#[test]
fn statistics_come_through_a_service() {
    let bed = Bed::new();
    let vm = bed.fleet.hosts().next().unwrap().vm(1).unwrap();
    let args = ["stats", "*", "--interval", "500ms"];
    // On a busy machine one VM may be late for a round.
    let is_fresh = |run: &Run| {
        let rounds: Value = serde_json::from_str(&run.stdout).unwrap_or_default();
        let vms = rounds[0]["vms"].as_array().cloned().unwrap_or_default();
        run.status.success() && vms.len() == 6 && vms.iter().all(|vm| !vm["cpu"]["percent"].is_null())
    };
    assert!((0..30).any(|_| is_fresh(&bed.there(&args))), "there is no round without a stale VM");
    bed.there(&["stats", "h1/nosuch", "--interval", "500ms"]).exits(1).says(&["no VM is named 'h1/nosuch'"]);
    let other =
        ["serve", "token", "add", "other", "--role", "viewer", "--selector", "h2/", "--verbs", "vm-list"];
    let other = bed.home.run(["--config", &bed.settings].iter().chain(&other)).exits(0).stdout;
    let whole = fs::read_to_string(bed.home.path("token")).unwrap();
    bed.home.write("token", &other);
    // As of other verbs; the service reads its tokens again a moment later.
    let refused = || {
        // An address that sends unknown tokens too often is refused for a while.
        thread::sleep(Duration::from_millis(300));
        bed.there(&["stats", "h1/", "--interval", "500ms"])
    };
    let is_unknown = |run: &Run| run.stderr.contains("not known");
    let refused = (0..200).map(|_| refused()).find(|run| !is_unknown(run));
    refused.unwrap().exits(2).says(&["may not use stats"]);
    let listed = bed.there(&["vm", "list"]).exits(0).outcomes();
    assert_eq!(listed.iter().map(|vm| vm["host"].clone()).collect::<Vec<_>>(), ["h2", "h2"]);
    bed.home.write("token", &whole);
    vm.set_fault(Some(VmFault::Hung));
    bed.there(&args).exits(1).says(&["h1/vm1: stale:"]);
    let mut gone = bed;
    let _ = gone.service.kill();
    let _ = gone.service.wait();
    gone.there(&args).exits(2).says(&["cannot be reached"]);
}
