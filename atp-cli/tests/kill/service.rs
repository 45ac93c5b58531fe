//! SIGKILL at moments that a seed chooses.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use atp_fleet::{Fleet, FleetOptions};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::atp::Home;

/// The number of kills; more with `ATP_KILLS`.
const KILLS: u64 = 8;

/// The targets of a run, and how many are under way at the same time.
const HOSTS: u32 = 4;
const VMS: u32 = 6;
const PARALLEL: u32 = 5;

/// How long a client waits for bytes. It is never reached.
const PATIENCE: Duration = Duration::from_secs(120);

/// A service of its own process.
pub(crate) struct Service {
    pub(crate) child: Child,
    pub(crate) address: String,
    /// What it said since it listens.
    pub(crate) said: Arc<Mutex<Vec<String>>>,
}

impl Service {
    /// Starts it, and waits until it says where it listens.
    pub(crate) fn start(home: &Home, settings: &str) -> Self {
        let mut command = home.atp(["--config", settings, "serve", "--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let address = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it does not listen: {said:?}"));
            if let Some((_, address)) = line.split_once("http://") {
                break address.trim_end_matches('/').to_owned();
            }
            said.push(line);
        };
        let said = Arc::new(Mutex::new(Vec::new()));
        let log = said.clone();
        thread::spawn(move || lines.for_each(|line| log.lock().unwrap().push(line)));
        Service { child, address, said }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of a service at an address.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: String,
    pub(crate) token: String,
}

impl Client {
    /// Sends a request. None if the service was killed.
    fn send(&self, method: &str, path: &str, headers: &str, body: Option<&Value>) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = body.map(Value::to_string).unwrap_or_default();
        let json = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let Client { address, token } = self;
        let length = body.len();
        let request = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n{json}{headers}\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).ok()?;
        Some(stream)
    }

    /// The status and the body of an answer. None if the service was killed before it was whole.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: Option<&Value>,
    ) -> Option<(u16, Value)> {
        let mut text = String::new();
        self.send(method, path, headers, body)?.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).ok()?))
    }

    /// Begins the run of this key, or finds it.
    fn begin(&self, key: &str, request: &Value) -> Option<Value> {
        let (status, run) =
            self.ask("POST", "/runs", &format!("Idempotency-Key: {key}\r\n"), Some(request))?;
        assert!(matches!(status, 200 | 201), "{status}: {run}");
        Some(run)
    }

    /// Passes the events of a run on, as number and data, until the stream ends.
    fn follow(&self, run: &Value, shown: &Sender<(u64, String)>) -> Option<()> {
        let stream = self.send("GET", &format!("/runs/{run}/events"), "", None)?;
        let mut number = 0;
        for line in BufReader::new(stream).lines() {
            let line = line.ok()?;
            if let Some(id) = line.strip_prefix("id: ") {
                number = id.parse().ok()?;
            } else if let Some(data) = line.strip_prefix("data: ") {
                // A line that was cut off by the kill was not shown.
                serde_json::from_str::<Value>(data).ok()?;
                shown.send((number, data.to_owned())).ok()?;
            }
        }
        Some(())
    }

    fn events(&self, run: &Value) -> BTreeMap<u64, String> {
        let (shown, events) = mpsc::channel();
        self.follow(run, &shown).expect("the service runs");
        drop(shown);
        events.iter().collect()
    }
}

/// A random number that a seed determines.
pub(crate) fn random(seed: u64) -> u64 {
    let mixed = (seed ^ (seed >> 30)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33
}

/// Waits for the moment of a seed: a number of outcomes that are shown, or a time from before the run is asked for. Returns
/// what was shown until then.
fn moment(seed: u64, events: &Receiver<(u64, String)>) -> Vec<(u64, String)> {
    let mut seen = Vec::new();
    if seed.is_multiple_of(3) {
        thread::sleep(Duration::from_millis(random(seed) % 400));
        return seen;
    }
    let outcomes = random(seed) % u64::from(HOSTS * VMS);
    let mut count = 0;
    while count < outcomes
        && let Ok(event) = events.recv()
    {
        count += u64::from(event.1.contains(r#""event":"finished""#));
        seen.push(event);
    }
    seen
}

#[test]
fn a_service_that_is_killed_forgets_nothing_shown_and_repeats_nothing_started() {
    let kills = std::env::var("ATP_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let runtime = Runtime::new().unwrap();
    // Each program takes several round trips, so that a kill meets every part of it.
    let options =
        FleetOptions { hosts: HOSTS, vms: VMS, rtt: Duration::from_millis(5), ..FleetOptions::default() };
    let fleet = runtime.block_on(Fleet::start(options)).unwrap();
    let home = Home::new();
    let settings = home.write("fleet.toml", &fleet.settings()).display().to_string();
    let added = home.run(["--config", &settings, "serve", "token", "add", "t", "--role", "admin"]).exits(0);
    let token = added.stdout.trim().to_owned();
    let mut service = Service::start(&home, &settings);
    let mut cut = 0;
    for seed in 1..=kills {
        let program = format!("s{seed}");
        let request = json!({
            "targets": {"selectors": ["*"]},
            "operation": {"op": "exec", "program": "echo", "args": [program]},
            "policy": {"parallel": PARALLEL},
        });
        let client = Client { address: service.address.clone(), token: token.clone() };
        let (shown, events) = mpsc::channel();
        let (asked, sent) = (client.clone(), request.clone());
        let reader = thread::spawn(move || {
            let run = asked.begin(&format!("k{seed}"), &sent)?;
            asked.follow(&run["id"], &shown)
        });
        let mut seen = moment(seed, &events);
        service.kill();
        reader.join().unwrap();
        // What was sent before the kill and read after it was shown too.
        seen.extend(events.iter());

        service = Service::start(&home, &settings);
        let client = Client { address: service.address.clone(), token: token.clone() };
        let run = client.begin(&format!("k{seed}"), &request).expect("the service runs");
        let id = &run["id"];
        if run["state"] == "interrupted" {
            cut += 1;
            let before = client.events(id);
            assert_kept(seed, &seen, &before);
            let (status, resumed) = client
                .ask("POST", &format!("/runs/{id}/resume"), "", Some(&request))
                .expect("the service runs");
            assert_eq!(status, 200, "seed {seed}: {resumed}");
        }
        assert_kept(seed, &seen, &client.events(id));
        let (_, summary) = client.ask("GET", &format!("/runs/{id}"), "", None).expect("the service runs");
        assert_eq!(summary["state"], "ended", "seed {seed}: {summary}");
        let (_, page) =
            client.ask("GET", &format!("/runs/{id}/outcomes"), "", None).expect("the service runs");
        assert_once(seed, page["outcomes"].as_array().unwrap(), &ran(&fleet, &format!("echo {program}")));
    }
    assert!(cut > 0, "no kill met a run");
}

/// Each event that was shown is there under its number, as it was.
fn assert_kept(seed: u64, seen: &[(u64, String)], there: &BTreeMap<u64, String>) {
    for (number, data) in seen {
        assert_eq!(there.get(number), Some(data), "seed {seed}: event {number} was shown");
    }
}

/// Each target has one outcome, and ran once or not at all, as that says.
fn assert_once(seed: u64, outcomes: &[Value], ran: &BTreeMap<String, u64>) {
    let name = |outcome: &Value| {
        format!("{}/{}", outcome["host"].as_str().unwrap(), outcome["vm"].as_str().unwrap())
    };
    let names: BTreeSet<_> = outcomes.iter().map(name).collect();
    assert_eq!((names.len(), outcomes.len()), (ran.len(), ran.len()), "seed {seed}");
    for outcome in outcomes {
        let (name, status) = (name(outcome), outcome["status"].as_str().unwrap());
        let count = ran[&name];
        assert!(count <= 1, "seed {seed}: {name} was started {count} times");
        let is_unknown = outcome["effect"] == "unknown";
        assert!(is_unknown || (status == "ok" && count == 1), "seed {seed}: {count} {outcome}");
    }
}

/// How often each VM ran a program, by `h1/vm1`.
pub(crate) fn ran(fleet: &Fleet, program: &str) -> BTreeMap<String, u64> {
    let mut ran = BTreeMap::new();
    for host in fleet.hosts() {
        let vms = (1..).map_while(|number| host.vm(number).map(|vm| (number, vm)));
        ran.extend(
            vms.map(|(number, vm)| (format!("{}/vm{number}", host.name()), vm.counts().programs.of(program))),
        );
    }
    ran
}
