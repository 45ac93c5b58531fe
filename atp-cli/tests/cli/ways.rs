//! Ways to a host that fail, by both engines: what is blamed, and what is not. A script stands for ssh.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::atp::{Home, Run};

const ENGINES: [&str; 2] = ["library", "native"];

/// How long something that happens soon may take.
const SOON: Duration = Duration::from_secs(60);

/// A host whose ssh is this script.
fn ssh(home: &Home, name: &str, script: &str) -> String {
    let path = home.write(name, &format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    format!("h=qemu+ssh://u@h/system?command={}", path.display())
}

fn list(home: &Home, engine: &str, host: &str, format: &str) -> Run {
    let mut command = home.atp(["--host", host, "vm", "list", "-o", format]);
    Run::of(command.env("ATP_TRANSPORT__ENGINE", engine))
}

/// The kind of the one failure, all words about it, and its hint.
fn failure(home: &Home, engine: &str, host: &str) -> (String, String, String) {
    let run = list(home, engine, host, "json").exits(1);
    let error = run.outcomes()[0]["error"].clone();
    let words = format!("{} {}", error["message"], error["causes"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&error["kind"]), words, text(&error["hint"]))
}

/// Listens at a port, says `greeting` to each client, and `reply` once it has said something. With neither, closes.
fn peer(greeting: &'static [u8], reply: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let talk = move |mut socket: TcpStream| -> std::io::Result<()> {
        socket.write_all(greeting)?;
        socket.read_exact(&mut [0])?;
        socket.write_all(reply)?;
        // Until the client leaves.
        if !greeting.is_empty() || !reply.is_empty() {
            std::io::copy(&mut socket, &mut std::io::sink())?;
        }
        Ok(())
    };
    std::thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            std::thread::spawn(move || drop(talk(socket)));
        }
    });
    port
}

#[test]
fn a_peer_that_is_not_libvirt_is_shown_by_its_first_bytes() {
    let home = Home::new();
    let ssh_port = peer(b"SSH-2.0-OpenSSH_9.2p1\r\n", b"");
    let http = peer(b"", b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let greets = ssh(&home, "greets", "echo 'Welcome to this host'; exec cat >/dev/null");
    for engine in ENGINES {
        for (host, says) in [
            (format!("h=qemu+tcp://127.0.0.1:{ssh_port}/system"), "SSH-2.0-OpenSSH_9.2p1"),
            (format!("h=qemu+tcp://127.0.0.1:{http}/system"), "HTTP/1.1 400 Bad Request"),
            (greets.clone(), "Welcome to this host"),
        ] {
            let (kind, words, hint) = failure(&home, engine, &host);
            assert_eq!(kind, "wrong-protocol", "{engine} {host}: {words}");
            assert!(words.contains("not libvirt: it answered") && words.contains(says), "{engine}: {words}");
            assert_eq!(hint.contains("login shell"), host.contains("ssh://"), "{engine}: {hint}");
        }
    }
}

#[test]
fn what_listens_and_hangs_up_is_not_called_nothing() {
    let home = Home::new();
    let host = format!("h=qemu+tcp://127.0.0.1:{}/system", peer(b"", b""));
    for engine in ENGINES {
        let (kind, words, hint) = failure(&home, engine, &host);
        assert_eq!(kind, "connect-failed", "{engine}: {words}");
        assert!(
            hint.contains("max_clients") && !hint.contains("listens for connections"),
            "{engine}: {hint}"
        );
    }
}

#[test]
fn tls_without_certificates_here_names_the_missing_file() {
    let home = Home::new();
    let port = peer(b"", b"");
    let host = format!("h=qemu+tls://127.0.0.1:{port}/system?pkipath={}", home.path("pki").display());
    for engine in ENGINES {
        let (kind, words, hint) = failure(&home, engine, &host);
        assert_eq!(kind, "auth-failed", "{engine}: {words}");
        assert!(words.contains(&home.path("pki/cacert.pem").display().to_string()), "{engine}: {words}");
        assert!(hint.contains("pkipath="), "{engine}: {hint}");
    }
}

#[test]
fn what_ssh_says_has_a_kind_and_a_hint() {
    let home = Home::new();
    for (n, (said, kind, part)) in [
        ("Host key verification failed.", "auth-failed", "known_hosts"),
        ("REMOTE HOST IDENTIFICATION HAS CHANGED!", "auth-failed", "ssh-keygen -R"),
        ("u@h: Permission denied (publickey).", "auth-failed", "keyfile="),
        ("ssh: connect to host h port 22: Connection refused", "connection-refused", "sshd"),
        ("ssh: connect to host h port 22: No route to host", "host-unreachable", "route"),
        (
            "ssh: Could not resolve hostname h: Name or service not known",
            "name-not-resolved",
            "~/.ssh/config",
        ),
        (
            "virt-ssh-helper: cannot connect to '/r/virtqemud-sock': Failed to connect socket to \
             '/r/virtqemud-sock': Connection refused",
            "connect-failed",
            "on that host",
        ),
        ("sh: 1: virt-ssh-helper: Permission denied", "connect-failed", "executed"),
        ("sh: 1: nc: not found", "connect-failed", "netcat-openbsd"),
    ]
    .into_iter()
    .enumerate()
    {
        let host = ssh(&home, &format!("ssh{n}"), &format!("echo \"{said}\" >&2; exit 255"));
        for engine in ENGINES {
            let (found, words, hint) = failure(&home, engine, &host);
            assert_eq!(found, kind, "{engine} {said}: {words}");
            assert!(hint.contains(part), "{engine} {said}: {hint}");
        }
    }
}

#[test]
fn an_ssh_that_is_never_admitted_names_max_startups() {
    let home = Home::new();
    let host = ssh(&home, "ssh", "echo 'kex_exchange_identification: Connection closed' >&2; exit 255");
    for engine in ENGINES {
        let mut command = home.atp(["--host", &host, "--timeout", "6s", "vm", "list", "-o", "json"]);
        let run = Run::of(command.env("ATP_TRANSPORT__ENGINE", engine)).exits(1);
        let error = &run.outcomes()[0]["error"];
        assert_eq!(
            (&error["kind"], &error["retryable"]),
            (&"connect-failed".into(), &true.into()),
            "{run:?}"
        );
        assert!(error["hint"].as_str().unwrap().contains("MaxStartups"), "{engine}: {error}");
    }
}

#[test]
fn a_key_that_is_not_there_is_refused() {
    for engine in ENGINES {
        let (kind, words, hint) =
            failure(&Home::new(), engine, "h=qemu+ssh://u@127.0.0.1:1/system?keyfile=/no/such");
        assert_eq!(kind, "auth-failed", "{engine}: {words}");
        assert!(words.contains("/no/such") && hint.contains("keyfile="), "{engine}: {words} {hint}");
    }
}

/// Whether a process has this word in its command line.
fn runs(word: &str) -> bool {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|entry| fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|line| line.contains(word)))
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_ssh_that_hangs_is_blamed_and_ends() {
    let home = Home::new();
    let word = home.path("hangs").display().to_string();
    let host = ssh(&home, "ssh", &format!("exec sh -c 'sleep 600; true' {word}"));
    for engine in ENGINES {
        let mut command = home.atp(["--host", &host, "--timeout", "2s", "vm", "list"]);
        let run = Run::of(command.env("ATP_TRANSPORT__ENGINE", engine)).exits(1);
        run.says(&["(connect-timeout)", "ssh did not connect"]);
        eventually("ssh stays", || !runs(&word));
    }
}

#[test]
fn an_ssh_that_hangs_ends_with_a_program_that_is_killed() {
    let home = Home::new();
    let word = home.path("hangs").display().to_string();
    let host = ssh(&home, "ssh", &format!("exec sh -c 'sleep 600; true' {word}"));
    for engine in ENGINES {
        let mut command = home.atp(["--host", &host, "vm", "list"]);
        let mut child: Child = command.env("ATP_TRANSPORT__ENGINE", engine).spawn().unwrap();
        eventually("ssh does not start", || runs(&word));
        child.kill().unwrap();
        child.wait().unwrap();
        eventually("ssh stays", || !runs(&word));
    }
}

/// Only those of the group get a signal that a terminal sends.
#[test]
fn an_ssh_is_in_a_group_of_its_own() {
    let home = Home::new();
    let (groups, host) = (home.path("groups"), home.path("ssh"));
    let script = format!("ps -o pgid= -p $PPID,$$ | sort -u | wc -l > {}; exit 1", groups.display());
    let uri = ssh(&home, "ssh", &script);
    assert!(host.exists());
    for engine in ENGINES {
        list(&home, engine, &uri, "json").exits(1);
        assert_eq!(fs::read_to_string(&groups).unwrap().trim(), "2", "{engine}");
        fs::remove_file(&groups).unwrap();
    }
}

#[test]
fn config_check_refuses_uris_that_virsh_refuses_and_says_what_is_wrong() {
    let home = Home::new();
    for (uri, part) in [
        (" qemu:///system", "%20"),
        ("qemu+ssh://h/system?keyfile=a b", "%20"),
        ("qemu+ssh://h/system?keyfile=~/x", "'~' is not expanded"),
    ] {
        home.write("atp.toml", &format!("[hosts.h]\nuri = \"{uri}\"\n"));
        let run = home.run(["--config", "atp.toml", "config", "check"]).exits(2);
        assert!(run.stderr.contains(part), "{uri}: {run:?}");
    }
}

#[test]
fn uris_that_virsh_takes_are_taken() {
    let home = Home::new();
    let aliases = "uri_aliases = [\n  \"demo=test:///default\",\n]\n";
    home.write(".config/libvirt/libvirt.conf", aliases);
    home.write(
        "atp.toml",
        "[hosts.a]\nuri = \"qemu+tcp:///system\"\n[hosts.b]\nuri = \"qemu+tcp://[fe80::1%25lo]/system\"\n",
    );
    home.run(["--config", "atp.toml", "config", "check"]).exits(0);
    let run = Run::of(home.atp(["vm", "list"]).env("LIBVIRT_DEFAULT_URI", "test:///default")).exits(0);
    assert!(run.stdout.contains("local  test"), "{run:?}");
    // For root, libvirt looks for names in the system's file alone.
    if !Path::new("/root").metadata().is_ok_and(|_| is_root()) {
        home.run(["--host", "h=demo", "vm", "list"]).exits(0);
    }
    let run = home.run(["--host", "h=nosuch", "vm", "list"]).exits(2);
    assert!(run.stderr.contains("uri_aliases"), "{run:?}");
}

fn is_root() -> bool {
    fs::read_dir("/root").is_ok()
}

#[test]
fn doctor_walks_the_stages_of_each_way() {
    let home = Home::new();
    let port = peer(b"SSH-2.0-x\r\n", b"");
    let denied = ssh(&home, "ssh", "echo 'Permission denied (publickey).' >&2; exit 255");
    for engine in ENGINES {
        for (host, checks) in [
            (denied.clone(), vec!["engine ok", "ssh problem"]),
            (
                format!("h=qemu+tcp://127.0.0.1:{port}/system"),
                vec!["engine ok", "name ok", "tcp ok", "daemon problem"],
            ),
            ("h=qemu+tcp://127.0.0.1:1/system".to_owned(), vec!["engine ok", "name ok", "tcp problem"]),
            ("h=qemu+unix:///system?socket=/no/such".to_owned(), vec!["engine ok", "socket problem"]),
        ] {
            let mut command = home.atp(["--host", &host, "doctor", "-o", "json"]);
            let run = Run::of(command.env("ATP_TRANSPORT__ENGINE", engine)).exits(1);
            let outcomes = run.outcomes();
            let of_host = outcomes.iter().find(|outcome| outcome["host"] == "h").unwrap();
            let findings = of_host["data"]["findings"].as_array().unwrap().iter();
            let word = |value: &Value| value.as_str().unwrap().to_owned();
            let found: Vec<_> =
                findings.map(|one| format!("{} {}", word(&one["check"]), word(&one["verdict"]))).collect();
            assert_eq!(found, checks, "{engine} {host}");
        }
    }
}
