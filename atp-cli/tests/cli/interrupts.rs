//! SIGINT and SIGTERM, with a call that hangs in the C library.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::atp::Home;

/// Between two looks at what will be soon.
const POLL: Duration = Duration::from_millis(10);

/// A host that takes connections and never says a word.
struct Silent {
    listener: TcpListener,
}

impl Silent {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Silent { listener }
    }

    fn host(&self, id: &str) -> String {
        format!("{id}=qemu+tcp://{}/system", self.listener.local_addr().unwrap())
    }

    /// Waits until the client speaks: it is then waiting for the answer.
    fn hear(&self, client: &mut Child) -> TcpStream {
        loop {
            match self.listener.accept() {
                Ok((mut connection, _)) => {
                    connection.set_nonblocking(false).unwrap();
                    // Another connection may come first that only looks whether the port is open.
                    if connection.read(&mut [0]).unwrap() == 1 {
                        return connection;
                    }
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
            assert_eq!(client.try_wait().unwrap(), None, "it ended before it was heard");
            thread::sleep(POLL);
        }
    }
}

pub(crate) fn signal(child: &Child, name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_signal_while_hosts_are_listed_ends_at_once() {
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let (home, silent) = (Home::new(), Silent::new());
        let mut child = home
            .atp(["--host", &silent.host("h1"), "exec", "*", "--timeout", "10m", "--", "true"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _client = silent.hear(&mut child);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert!(output.stdout.is_empty());
        assert!(String::from_utf8(output.stderr).unwrap().contains("nothing was done"));
    }
}

#[test]
fn a_signal_weighs_more_than_an_early_end_and_failures() {
    let (home, leaving, silent) = (Home::new(), Silent::new(), Silent::new());
    let hosts = ["--host", &leaving.host("gone"), "--host", &silent.host("h1")];
    let args = ["host", "check", "--timeout", "10m", "--max-failures", "1", "--host", "last=test:///default"];
    let mut child = home
        .atp(hosts.into_iter().chain(args).chain(["--parallel", "2", "-o", "json"]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _client = silent.hear(&mut child);
    // Both are in flight before the first of them fails.
    let client = leaving.hear(&mut child);
    drop((leaving, client));
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut wait_for = |text: &str| assert!(stderr.any(|line| line.unwrap().contains(text)), "no {text}");
    wait_for("stopped early");
    signal(&child, "INT");
    wait_for("interrupted");
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let outcomes: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let statuses: Vec<_> = outcomes.iter().map(|outcome| outcome["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["unreachable", "cancelled", "skipped"]);
}

#[test]
fn the_first_signal_stops_and_the_second_aborts() {
    let (home, silent) = (Home::new(), Silent::new());
    let args = ["host", "check", "--timeout", "10m", "--parallel", "1", "-o", "json"];
    let mut child = home
        .atp(["--host", &silent.host("h1"), "--host", &silent.host("h2")].into_iter().chain(args))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _client = silent.hear(&mut child);
    signal(&child, "TERM");
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(stderr.any(|line| line.unwrap().contains("interrupted")), "it ended without a word");
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();

    // The first signal gives the exit code.
    assert_eq!(output.status.code(), Some(143));
    let outcomes: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let statuses: Vec<_> = outcomes.iter().map(|outcome| outcome["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["cancelled", "skipped"]);
}
