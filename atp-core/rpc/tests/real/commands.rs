use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use atp_rpc::{ConnectFailure, ConnectOptions, Connection, EndReason, Stage};

use crate::daemon::Daemon;

pub(crate) fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Runs here what ssh would run on the far side, in a shell as sshd has one.
const SSH: &str = "#!/bin/sh\nfor last; do :; done\nexec sh -c \"$last\"\n";

/// A netcat, as far as it is needed.
pub(crate) const NETCAT: &str = r#"#!/usr/bin/perl
use IO::Socket::UNIX; use IO::Select;
exit 0 if $ARGV[0] eq '-h';
my $s = IO::Socket::UNIX->new(Peer => $ARGV[-1]) or die "cannot connect: $!\n";
my %to = (fileno(STDIN) => $s, fileno($s) => \*STDOUT);
my $select = IO::Select->new(\*STDIN, $s);
while (1) {
    for my $from ($select->can_read) {
        sysread($from, my $chunk, 65536) or exit 0;
        syswrite($to{fileno($from)}, $chunk);
    }
}
"#;

/// Processes with this word in their command line.
fn processes(word: &str) -> Vec<String> {
    let lines = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = fs::read_to_string(entry.ok()?.path().join("cmdline")).ok()?;
        line.contains(word).then(|| line.replace('\0', " "))
    });
    lines.collect()
}

pub(crate) async fn eventually_none(word: &str) {
    let start = Instant::now();
    while !processes(word).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", processes(word));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn ssh_leads_to_the_far_sides_socket_and_ends_with_the_connection() {
    let daemon = Daemon::start();
    let ssh = script(daemon.folder(), "ssh", SSH);
    let netcat = script(daemon.folder(), "net'cat", NETCAT);
    let uri = format!(
        "test+ssh://me@host/default?command={}&netcat={}&socket={}",
        ssh.display(),
        netcat.display().to_string().replace('\'', "%27"),
        daemon.socket().display()
    );
    let connection = Connection::open(&uri, &ConnectOptions::default()).await.unwrap();
    assert_eq!(connection.uri().await.unwrap(), "test:///default");
    let word = netcat.display().to_string();
    assert!(!processes(&word).is_empty());
    drop(connection);
    eventually_none(&word).await;
}

#[tokio::test]
async fn what_ssh_says_is_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let ssh =
        script(folder.path(), "ssh", "#!/bin/sh\necho 'Permission denied (publickey).' >&2\nexit 255\n");
    let uri = format!("qemu+ssh://host/system?command={}", ssh.display());
    let error = Connection::open(&uri, &ConnectOptions::default()).await.unwrap_err();
    assert_eq!(error.stage, Stage::Command);
    assert_eq!(error.failure.to_string(), "Permission denied (publickey).");

    let ssh = script(folder.path(), "greets", "#!/bin/sh\necho Welcome\ncat >/dev/null\n");
    let uri = format!("qemu+ssh://host/system?command={}", ssh.display());
    let error = Connection::open(&uri, &ConnectOptions::default()).await.unwrap_err();
    assert!(matches!(&error.failure, ConnectFailure::NotLibvirt { begins } if begins.starts_with("Welcome")));
}

#[tokio::test]
async fn nothing_is_left_of_a_connect_that_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let word = folder.path().join("word").display().to_string();
    let hangs = format!("#!/bin/sh\nsh -c 'sleep 600; true' {word} &\nsleep 600\n");
    let ssh = script(folder.path(), "ssh", &hangs);
    let uri = format!("qemu+ssh://host/system?command={}", ssh.display());
    let options = ConnectOptions { timeout: Duration::from_secs(1), ..ConnectOptions::default() };
    let error = Connection::open(&uri, &options).await.unwrap_err();
    assert_eq!(error.stage, Stage::Command);
    assert!(matches!(error.failure, ConnectFailure::Timeout(_)), "{error:?}");
    eventually_none(&word).await;
}

#[tokio::test]
async fn what_cannot_be_started_is_named() {
    let options = ConnectOptions::default();
    let open = async |uri: &str| Connection::open(uri, &options).await.unwrap_err().failure;
    match open("qemu+ssh://host/system?command=/no/such").await {
        ConnectFailure::Command { command, .. } => assert_eq!(command, "/no/such"),
        other => panic!("{other:?}"),
    }
    match open("qemu+ssh://host/system?command=/no/such&keyfile=/no/key").await {
        ConnectFailure::File { path, .. } => assert_eq!(path, Path::new("/no/key")),
        other => panic!("{other:?}"),
    }
    assert!(matches!(open("qemu+ext:///system").await, ConnectFailure::Unsupported(_)));
}

#[tokio::test]
async fn the_words_of_a_command_that_dies_are_kept() {
    let daemon = Daemon::start();
    let netcat = script(daemon.folder(), "netcat", NETCAT);
    let pipe = script(
        daemon.folder(),
        "pipe",
        &format!(
            "#!/bin/sh\n{} -U {}\necho 'the line is cut' >&2\n",
            netcat.display(),
            daemon.socket().display()
        ),
    );
    let uri = format!("test+ext:///default?command={}", pipe.display());
    let connection = Connection::open(&uri, &ConnectOptions::default()).await.unwrap();
    drop(daemon);
    let end = connection.closed().await;
    assert!(matches!(end.reason, EndReason::Eof), "{end:?}");
    assert_eq!(end.said, "the line is cut");
}

#[tokio::test]
async fn a_peer_that_says_little_and_leaves_is_shown_too() {
    let folder = tempfile::tempdir().unwrap();
    for (text, begins) in [("Hi", "Hi"), ("Welcome to this host", "Welcome to this host")] {
        let ssh = script(folder.path(), "ssh", &format!("#!/bin/sh\nprintf '{text}'\n"));
        let uri = format!("qemu+ssh://host/system?command={}", ssh.display());
        match Connection::open(&uri, &ConnectOptions::default()).await.unwrap_err().failure {
            ConnectFailure::NotLibvirt { begins: shown } => assert_eq!(shown, begins),
            other => panic!("{other:?}"),
        }
    }
}

/// As an sshd does that has as many before their login as `MaxStartups` allows.
#[tokio::test]
async fn an_ssh_that_is_not_admitted_is_started_again() {
    let daemon = Daemon::start();
    let netcat = script(daemon.folder(), "netcat", NETCAT);
    let (count, said) = (daemon.folder().join("count"), "kex_exchange_identification: Connection closed");
    let dropped = |times: usize| {
        format!(
            "#!/bin/sh\necho x >> {0}\nif [ $(wc -l < {0}) -le {times} ]; then echo '{said}' >&2; exit 255; fi\nexec {1} -U {2}\n",
            count.display(),
            netcat.display(),
            daemon.socket().display()
        )
    };
    let ssh = script(daemon.folder(), "ssh", &dropped(2));
    let uri = format!("test+ssh://host/default?command={}", ssh.display());
    drop(Connection::open(&uri, &ConnectOptions::default()).await.unwrap());
    assert_eq!(fs::read_to_string(&count).unwrap().lines().count(), 3);
    // One that is never admitted says so, and not that the time is over.
    script(daemon.folder(), "ssh", &dropped(1_000));
    let options = ConnectOptions { timeout: Duration::from_secs(2), ..ConnectOptions::default() };
    let error = Connection::open(&uri, &options).await.unwrap_err();
    assert_eq!(error.stage, Stage::Admission);
    assert!(error.failure.was_not_admitted(), "{error:?}");
}

/// Kills this program in the middle: what it started ends with it.
#[test]
fn a_command_ends_with_a_program_that_is_killed() {
    const URI: &str = "ATP_RPC_TEST_KILLED";
    if let Ok(uri) = std::env::var(URI) {
        crate::user::run(async {
            let _never = Connection::open(&uri, &ConnectOptions::default()).await;
        });
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let word = folder.path().join("word").display().to_string();
    let ssh = script(folder.path(), "ssh", &format!("#!/bin/sh\nexec sh -c 'sleep 600; true' {word}\n"));
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "commands::a_command_ends_with_a_program_that_is_killed"])
        .env(URI, format!("qemu+ssh://host/system?command={}", ssh.display()))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while processes(&word).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(30), "the command does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    crate::user::run(eventually_none(&word));
}
