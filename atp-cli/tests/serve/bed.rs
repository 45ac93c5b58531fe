//! A fleet, a service on it that is the real binary, and a socket that plays systemd.

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
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A fleet, its settings, and what the service keeps.
pub(crate) struct Bed {
    pub(crate) folder: TempDir,
    pub(crate) fleet: Fleet,
    _runtime: Runtime,
}

/// A service that runs.
pub(crate) struct Served {
    pub(crate) child: Child,
    /// Its messages.
    lines: Receiver<String>,
    pub(crate) seen: Vec<String>,
    /// What systemd is told. It reads at once, as systemd does: few messages fit into its socket.
    told: Receiver<String>,
    pub(crate) address: String,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Bed::with(FleetOptions { hosts: 2, vms: 2, ..FleetOptions::default() })
    }

    pub(crate) fn with(options: FleetOptions) -> Self {
        let runtime = Runtime::new().unwrap();
        let fleet = runtime.block_on(Fleet::start(options)).unwrap();
        let bed = Bed { folder: tempfile::tempdir().unwrap(), fleet, _runtime: runtime };
        bed.settings("");
        bed
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the settings: the fleet's, and those of the service.
    pub(crate) fn settings(&self, serve: &str) {
        let folder = self.path("state").display().to_string();
        let text = format!(
            "{}\n[serve]\nlisten = \"127.0.0.1:0\"\nfolder = \"{folder}\"\n{serve}\n",
            self.fleet.settings()
        );
        let beside = self.path("new.toml");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, self.path("fleet.toml")).unwrap();
    }

    pub(crate) fn atp(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atp"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ATP_")) {
            command.env_remove(name);
        }
        command.env("HOME", self.folder.path()).env_remove("XDG_CONFIG_HOME").env_remove("STATE_DIRECTORY");
        command.args(["--config", self.path("fleet.toml").to_str().unwrap()]).args(args).stdin(Stdio::null());
        command
    }

    pub(crate) fn token(&self, args: &[&str]) -> String {
        let made = self.atp(&[&["serve", "token", "add"], args].concat()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn serve(&self) -> Served {
        self.serve_by(self.atp(&["serve"]))
    }

    /// Starts the service by this command.
    pub(crate) fn serve_by(&self, mut command: Command) -> Served {
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
        let mut child = command
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
        let line = served.says(" hosts on ");
        served.address = line.rsplit("//").next().unwrap().to_owned();
        served
    }
}

impl Served {
    /// Waits for a message with this text.
    pub(crate) fn says(&mut self, text: &str) -> String {
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
    pub(crate) fn tells(&self, text: &str) -> String {
        let end = Instant::now() + LONG;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let told = self.told.recv_timeout(left).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            if told.lines().any(|line| line == text) {
                return told;
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    pub(crate) fn get(&self, path: &str, token: &str) -> (u16, String) {
        let asked = ask(&self.address, "GET", path, &format!("authorization: Bearer {token}\r\n"), "");
        asked.unwrap_or_else(|| panic!("{path} is not answered; said: {:?}", self.seen))
    }

    /// Starts a run under a key.
    pub(crate) fn start(&self, token: &str, key: &str, run: &Value) -> (u16, Value) {
        let answer = start(&self.address, token, key, run);
        answer.unwrap_or_else(|| panic!("{key} is not answered; said: {:?}", self.seen))
    }

    /// Waits until a run is in a state.
    pub(crate) fn run_until(&self, token: &str, run: &Value, states: &[&str]) -> Value {
        let end = Instant::now() + LONG;
        loop {
            let summary: Value =
                serde_json::from_str(&self.get(&format!("/api/v1/runs/{run}"), token).1).unwrap();
            if states.iter().any(|state| summary["state"] == *state) {
                return summary;
            }
            assert!(Instant::now() < end, "never {states:?}: {summary}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks until the status is this one: the file of tokens is looked at each second.
    pub(crate) fn get_until(&self, path: &str, token: &str, status: u16) {
        let end = Instant::now() + LONG;
        while self.get(path, token).0 != status {
            assert!(Instant::now() < end, "{path} is never {status}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    pub(crate) fn end(mut self, signal: &str) -> ExitStatus {
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

/// The status and the body of an answer; none if there is no whole one.
pub(crate) fn ask(
    address: &str,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(LONG)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// Starts a run under a key; none if there is no whole answer.
pub(crate) fn start(address: &str, token: &str, key: &str, run: &Value) -> Option<(u16, Value)> {
    let headers = format!(
        "authorization: Bearer {token}\r\ncontent-type: application/json\r\nidempotency-key: {key}\r\n"
    );
    let (status, body) = ask(address, "POST", "/api/v1/runs", &headers, &run.to_string())?;
    Some((status, serde_json::from_str(&body).ok()?))
}
