//! The program `fleet`: what it writes, and what it is asked.

use std::process::Stdio;
use std::time::Duration;

use atp_fleet::Report;
use atp_rpc::{ConnectOptions, Connection};
use tokio::process::Command;

use crate::bed::{exec, vm1};

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_of_its_own_process_is_used_asked_and_ended() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name| folder.path().join(name).display().to_string();
    let (settings, report) = (place("fleet.toml"), place("report.json"));
    let arguments = ["up", "--hosts", "20", "--faults", "hung=1", "--write", &settings, "--report", &report];
    let mut up = program(&arguments).stderr(Stdio::null()).spawn().unwrap();
    let read = async |path: &str| loop {
        match std::fs::read_to_string(path) {
            Ok(text) if text.ends_with(['\n', '}']) => return text,
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let text = tokio::time::timeout(Duration::from_secs(60), read(&settings)).await.unwrap();
    let uris: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("uri = \"")?.strip_suffix('"')).collect();
    assert_eq!(uris.len(), 20, "{text}");
    let port = uris[4].rsplit_once(':').unwrap().1.strip_suffix("/system").unwrap();
    assert_eq!(uris[4], format!("qemu+tcp://127.0.1.5:{port}/system"));

    let ask = async |arguments: &[&str]| program(arguments).output().await.unwrap();
    let c = Connection::open(uris[4], &ConnectOptions::default()).await.unwrap();
    let vm = vm1(&c).await;
    assert!(ask(&["fault", "--port", port, "h5/vm1", "agent-absent"]).await.status.success());
    exec(&c, &vm, "true").await.unwrap_err();
    assert!(ask(&["heal", "--port", port, "h5/vm1"]).await.status.success());
    exec(&c, &vm, "true").await.unwrap();
    let wrong = ask(&["fault", "--port", port, "h99", "dead"]).await;
    assert_eq!(String::from_utf8_lossy(&wrong.stderr), "error: there is no h99\n");
    let asked: Report = serde_json::from_slice(&ask(&["report", "--port", port]).await.stdout).unwrap();
    assert_eq!(asked.hosts["h5"].vms["vm1"].programs.of("true"), 1);
    assert_eq!((asked.hosts.len(), asked.faults.len()), (1, 1));

    let pid = up.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert!(up.wait().await.unwrap().success());
    let last: Report = serde_json::from_str(&read(&report).await).unwrap();
    assert_eq!(last.hosts["h5"].vms, asked.hosts["h5"].vms);
}
