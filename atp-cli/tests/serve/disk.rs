//! A disk that is full: a small file system of the service's own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::Command;

use serde_json::{Value, json};

use crate::bed::{Bed, LONG, ask};

/// Runs a command in the file systems of the service, which no other process has.
fn inside(pid: u32, script: &str) -> String {
    let output = Command::new("nsenter")
        .args([
            "--target",
            &pid.to_string(),
            "--user",
            "--mount",
            "--preserve-credentials",
            "sh",
            "-c",
            script,
        ])
        .output()
        .unwrap_or_else(|error| panic!("nsenter: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Reads the events of a run until one of its targets is started: what is told is in the store.
fn hears_of_a_start(address: &str, token: &str, run: &Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let head = format!(
        "GET /api/v1/runs/{run}/events HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines();
    assert!(lines.any(|line| line.unwrap().contains(r#""event":"started""#)));
}

#[test]
fn outcomes_on_a_full_disk_wait_for_room_and_the_service_goes_on() {
    let bed = Bed::new();
    let state = bed.path("state");
    std::fs::create_dir(&state).unwrap();
    let program = bed.atp(&["serve"]);
    let mut command = Command::new("unshare");
    // Root of a namespace of users may mount without being root of the machine.
    let mount = "mount -t tmpfs -o size=3m,mode=0700 none \"$0\" && exec \"$@\"";
    command.args(["--map-root-user", "--mount", "sh", "-c", mount]).arg(&state).arg(program.get_program());
    command.args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    bed.settings("starts_per_second = 1000\nrequests_per_second = 1000");
    let mut served = bed.serve_by(command);
    // `unshare` and the shell have become the service.
    let pid = served.child.id();
    let folder = state.display();
    // Its token is made by another process, and moved to where the service reads it.
    let elsewhere = bed.path("tokens.toml").display().to_string();
    let made = bed
        .atp(&["serve", "token", "add", "alice", "--role", "admin"])
        .env("ATP_SERVE__TOKENS", &elsewhere)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let copied = inside(pid, &format!("cp {elsewhere} {folder}/new && mv {folder}/new {folder}/tokens.toml"));
    assert_eq!(copied, "");
    served.get_until("/api/v1/session", &token, 200);

    // Programs that take a while, one after the other, so that the disk fills during the run.
    let run = |selector: &str, parallel: u32| {
        json!({
            "targets": {"selectors": [selector]},
            "operation": {"op": "exec", "program": "sleep", "args": ["3"]},
            "policy": {"parallel": parallel},
        })
    };
    let (status, begun) = served.start(&token, "k1", &run("*", 1));
    assert_eq!(status, 201, "{begun}");
    // A write of the service while the disk fills would leave room behind: it stands still, while a program of 3 s is under way and all
    // that is known of it is written.
    hears_of_a_start(&served.address, &token, &begun["id"]);
    served.signal("STOP");
    inside(pid, &format!("dd if=/dev/zero of={folder}/fill bs=4k; sync"));
    served.signal("CONT");
    served.says("the store failed");
    assert_eq!(served.get("/healthz", "").0, 200);
    let (status, refused) = served.start(&token, "k2", &run("h1/vm1", 1));
    assert_eq!((status, &refused["kind"]), (503, &json!("storage-failed")), "{refused}");
    let summary: Value =
        serde_json::from_str(&served.get(&format!("/api/v1/runs/{}", begun["id"]), &token).1).unwrap();
    assert_eq!(summary["state"], "running", "{summary}");

    inside(pid, &format!("rm {folder}/fill"));
    served.says("works again");
    // What had begun has its outcome; nothing more was begun, since that could not be recorded.
    let ended = served.run_until(&token, &begun["id"], &["ended"]);
    let outcomes = || -> Vec<Value> {
        let page = served.get(&format!("/api/v1/runs/{}/outcomes", begun["id"]), &token).1;
        serde_json::from_str::<Value>(&page).unwrap()["outcomes"].as_array().unwrap().clone()
    };
    let count = |outcomes: &[Value], status: &str| {
        outcomes.iter().filter(|outcome| outcome["status"] == status).count()
    };
    let first = outcomes();
    assert!(first.len() == 4 && ended["stop_reason"].is_object(), "{ended}: {first:?}");
    assert!(count(&first, "ok") > 0 && count(&first, "ok") + count(&first, "skipped") == 4, "{first:?}");
    let headers = format!("authorization: Bearer {token}\r\ncontent-type: application/json\r\n");
    let path = format!("/api/v1/runs/{}/resume", begun["id"]);
    let resumed = ask(&served.address, "POST", &path, &headers, &run("*", 4).to_string()).unwrap();
    assert_eq!(resumed.0, 200, "{}", resumed.1);
    served.run_until(&token, &begun["id"], &["ended"]);
    assert_eq!(count(&outcomes(), "ok"), 4, "{:?}", outcomes());
    for host in bed.fleet.hosts() {
        for vm in host.counts().vms.values() {
            assert_eq!(vm.programs.total(), 1, "a program ran again");
        }
    }
    let (status, begun) = served.start(&token, "k2", &run("h1/vm1", 1));
    assert_eq!(status, 201, "{begun}");
    served.run_until(&token, &begun["id"], &["ended"]);
    assert!(served.end("TERM").success());
}
