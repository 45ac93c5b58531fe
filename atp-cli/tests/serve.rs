//! `atp serve` as an administrator meets it: the real binary, a socket that plays systemd, signals, and files that change.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test that calls it")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use atp_fleet::{Fleet, FleetOptions};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// No step of a test takes longer, also on a machine that is busy.
const LONG: Duration = Duration::from_secs(60);

/// A fleet, its settings, and what the service keeps.
struct Bed {
    folder: TempDir,
    fleet: Fleet,
    _runtime: Runtime,
}

/// A service that runs.
struct Served {
    child: Child,
    /// Its messages.
    lines: Receiver<String>,
    seen: Vec<String>,
    /// What systemd is told. It reads at once, as systemd does: few messages fit into its socket.
    told: Receiver<String>,
    address: String,
}

impl Bed {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let options = FleetOptions { hosts: 2, vms: 2, ..FleetOptions::default() };
        let fleet = runtime.block_on(Fleet::start(options)).unwrap();
        let bed = Bed { folder: tempfile::tempdir().unwrap(), fleet, _runtime: runtime };
        bed.settings("");
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the settings: the fleet's, and those of the service.
    fn settings(&self, serve: &str) {
        let folder = self.path("state").display().to_string();
        let text = format!(
            "{}\n[serve]\nlisten = \"127.0.0.1:0\"\nfolder = \"{folder}\"\n{serve}\n",
            self.fleet.settings()
        );
        let beside = self.path("new.toml");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, self.path("fleet.toml")).unwrap();
    }

    fn atp(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atp"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ATP_")) {
            command.env_remove(name);
        }
        command.env("HOME", self.folder.path()).env_remove("XDG_CONFIG_HOME").env_remove("STATE_DIRECTORY");
        command.args(["--config", self.path("fleet.toml").to_str().unwrap()]).args(args).stdin(Stdio::null());
        command
    }

    fn token(&self, args: &[&str]) -> String {
        let made = self.atp(&[&["serve", "token", "add"], args].concat()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }

    fn serve(&self) -> Served {
        let socket = self.path("notify");
        let _ = fs::remove_file(&socket);
        let systemd = UnixDatagram::bind(&socket).unwrap();
        let (sender, told) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Ends with the test, which no longer listens.
            while let Ok(read) = systemd.recv(&mut buffer) {
                if sender.send(String::from_utf8_lossy(&buffer[..read]).into_owned()).is_err() {
                    return;
                }
            }
        });
        let mut child = self
            .atp(&["serve"])
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "400000")
            .env_remove("WATCHDOG_PID")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut served = Served { child, lines, seen: Vec::new(), told, address: String::new() };
        let line = served.says("serving 2 hosts on ");
        served.address = line.rsplit("//").next().unwrap().to_owned();
        served
    }
}

impl Served {
    /// Waits for a message with this text.
    fn says(&mut self, text: &str) -> String {
        let end = Instant::now() + LONG;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|error| panic!("{text:?}: {error}; said: {:?}", self.seen));
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Waits for what systemd must be told.
    fn tells(&self, text: &str) -> String {
        let end = Instant::now() + LONG;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let told = self.told.recv_timeout(left).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            if told.lines().any(|line| line == text) {
                return told;
            }
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    fn get(&self, path: &str, token: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n",
            self.address
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Asks until the status is this one: the file of tokens is looked at each second.
    fn get_until(&self, path: &str, token: &str, status: u16) {
        let end = Instant::now() + LONG;
        while self.get(path, token).0 != status {
            assert!(Instant::now() < end, "{path} is never {status}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn end(mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        self.tells("STOPPING=1");
        let end = Instant::now() + LONG;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "it does not end; said: {:?}", self.seen);
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn systemd_is_told_of_the_start_the_life_the_reload_and_the_end() {
    let bed = Bed::new();
    let token = bed.token(&["alice", "--role", "admin"]);
    let mut served = bed.serve();
    served.tells("READY=1");
    served.tells("WATCHDOG=1");
    assert_eq!(served.get("/readyz", "").0, 200);
    served.signal("HUP");
    let reloading = served.tells("RELOADING=1");
    let micros = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    assert!(micros.parse::<u64>().unwrap() > 0);
    served.tells("READY=1");
    served.says("the settings were read again");
    assert_eq!(served.get("/api/v1/session", &token).0, 200);
    assert!(served.end("TERM").success());
}

#[test]
fn tokens_are_added_listed_and_removed_while_the_service_runs() {
    let bed = Bed::new();
    let mut served = bed.serve();
    served.says("there is no token yet");
    let token = bed.token(&["ci", "--role", "operator", "--selector", "h1/", "--verbs", "exec,vm-info"]);
    served.get_until("/api/v1/session", &token, 200);
    let session: Value = serde_json::from_str(&served.get("/api/v1/session", &token).1).unwrap();
    assert_eq!((&session["name"], &session["role"]), (&"ci".into(), &"operator".into()));
    let listed = bed.atp(&["serve", "token", "list"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("ci  operator  h1/  exec,vm-info") && !listed.contains(&token[4..]), "{listed}");
    let wrong =
        bed.atp(&["serve", "token", "add", "x", "--role", "viewer", "--verbs", "dance"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("vm-info"), "{wrong:?}");
    assert!(bed.atp(&["serve", "token", "remove", "ci"]).status().unwrap().success());
    served.get_until("/api/v1/session", &token, 401);
    let text = served.seen.join("\n");
    assert!(!text.contains(&token[4..]), "{text}");
}

#[test]
fn a_bad_file_is_told_and_changes_nothing() {
    let bed = Bed::new();
    let token = bed.token(&["alice", "--role", "admin"]);
    let mut served = bed.serve();
    bed.settings("requests_per_second = \"many\"");
    served.signal("HUP");
    served.says("serve.requests_per_second");
    served.says("the settings stay as they were");
    served.tells("READY=1");
    fs::write(bed.path("state/tokens.toml"), "not tokens").unwrap();
    served.says("the tokens stay as they were");
    assert_eq!(served.get("/api/v1/session", &token).0, 200);
    bed.settings("read_only = true\nlisten = \"127.0.0.1:1\"");
    let settings = fs::read_to_string(bed.path("fleet.toml")).unwrap();
    fs::write(bed.path("fleet.toml"), settings.replacen("listen = \"127.0.0.1:0\"\n", "", 1)).unwrap();
    served.signal("HUP");
    served.says("serve.listen has changed");
    served.says("the settings were read again");
    let session: Value = serde_json::from_str(&served.get("/api/v1/session", &token).1).unwrap();
    assert_eq!(session["read_only"], true);
}

#[test]
fn hosts_come_and_go_with_the_file() {
    let bed = Bed::new();
    let token = bed.token(&["alice", "--role", "viewer"]);
    let served = bed.serve();
    let text = fs::read_to_string(bed.path("fleet.toml")).unwrap();
    let uri = bed.fleet.host(1).unwrap().uri();
    fs::write(bed.path("next.toml"), format!("{text}\n[hosts.added]\nuri = \"{uri}\"\n")).unwrap();
    fs::rename(bed.path("next.toml"), bed.path("fleet.toml")).unwrap();
    served.get_until("/api/v1/hosts/added", &token, 200);
    assert!(served.end("INT").success());
}

#[test]
fn an_address_that_others_reach_needs_tls_or_a_word() {
    let bed = Bed::new();
    let refused = bed.atp(&["serve", "--listen", "0.0.0.0:0"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    for part in ["0.0.0.0", "serve.tls_cert", "serve.insecure_listen"] {
        assert!(text.contains(part), "{text}");
    }
    let refused = bed.atp(&["serve", "--listen", "somewhere"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("127.0.0.1:9440"), "{refused:?}");
    let refused = bed.atp(&["serve", "--dry-run"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--dry-run"), "{refused:?}");
}

/// A connection that is kept: requests one after the other.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn new(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream: BufReader::new(stream) }
    }

    /// The status of the answer, and its `Retry-After`.
    fn send(&mut self, request: &str) -> (u16, Option<String>) {
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut status, mut length, mut retry) = (0, 0, None);
        loop {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "the connection was closed");
            let line = line.trim_end();
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some((name, value)) = line.split_once(": ") {
                match name {
                    "content-length" => length = value.parse().unwrap(),
                    "retry-after" => retry = Some(value.to_owned()),
                    _ => {}
                }
            } else if line.is_empty() {
                break;
            }
        }
        self.stream.read_exact(&mut vec![0; length]).unwrap();
        (status, retry)
    }
}

/// The memory of a process, KiB.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// How long starts come. `ATP_LOAD_SECONDS=60` measures.
fn load() -> Duration {
    let seconds = std::env::var("ATP_LOAD_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

#[test]
fn streams_and_starts_without_number_do_not_fill_the_memory() {
    const STREAMS: usize = 300;
    const STARTERS: u32 = 4;
    const EACH_SECOND: u32 = 250;
    let bed = Bed::new();
    let token = bed.token(&["alice", "--role", "admin"]);
    let served = bed.serve();
    let address = served.address.clone();
    let listen =
        format!("GET /api/v1/events HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n");
    // None of them reads while the starts come. One would do; all show that none is remembered for the others.
    let streams: Vec<TcpStream> = (0..STREAMS)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(listen.as_bytes()).unwrap();
            stream.set_read_timeout(Some(LONG)).unwrap();
            let mut begun = [0; 15];
            stream.read_exact(&mut begun).unwrap();
            assert_eq!(&begun, b"HTTP/1.1 200 OK");
            stream
        })
        .collect();
    let body = r#"{"targets": {"selectors": ["h1/vm1"]}, "operation": {"op": "vm-info"}}"#;
    let start = format!(
        "POST /api/v1/plans HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let before = memory(served.child.id());
    let end = Instant::now() + load();
    let starters: Vec<_> = (0..STARTERS)
        .map(|_| {
            let (address, start) = (address.clone(), start.clone());
            thread::spawn(move || {
                let (mut client, mut answers) = (Client::new(&address), Vec::new());
                let mut next = Instant::now();
                while Instant::now() < end {
                    answers.push(client.send(&start));
                    next += Duration::from_secs(1) / EACH_SECOND;
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                answers
            })
        })
        .collect();
    let (mut healthy, mut times) = (Client::new(&address), Vec::new());
    while Instant::now() < end {
        let began = Instant::now();
        let (status, _) = healthy.send(&format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\n\r\n"));
        assert_eq!(status, 200);
        times.push(began.elapsed());
        thread::sleep(Duration::from_millis(20));
    }
    let answers: Vec<_> = starters.into_iter().flat_map(|starter| starter.join().unwrap()).collect();
    let grown = memory(served.child.id()).saturating_sub(before);
    let done = answers.iter().filter(|(status, _)| *status == 200).count();
    let refused: Vec<_> = answers.iter().filter(|(status, _)| *status != 200).collect();
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    println!("{} starts, {done} done; memory +{} MiB; /healthz p99 {p99:?}", answers.len(), grown / 1024);
    assert!(done > 0 && !refused.is_empty(), "{done} of {}", answers.len());
    assert!(refused.iter().all(|(status, retry)| *status == 429 && retry.is_some()), "{:?}", refused[0]);
    assert!(grown <= 100 * 1024, "memory grew by {grown} KiB");
    assert!(p99 < Duration::from_secs(2), "/healthz takes {p99:?}");
    drop(streams);
    assert!(served.end("TERM").success());
}
