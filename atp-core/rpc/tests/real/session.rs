//! The daemon of an ordinary user, which a client starts if none runs. Root has none: its session is the machine's
//! daemon.

use std::fs;
use std::future::pending;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use atp_rpc::{ConnectFailure, ConnectOptions, Connection};
use tokio::net::UnixListener;

use crate::user::{as_user, run};

/// With the test driver, `test+` is the user's daemon, like `qemu:///session`; it needs no QEMU.
const URI: &str = "test+unix:///default";

/// The daemon that was started. Dropping it ends it.
struct Started(String);

impl Started {
    fn find(folder: &Path) -> Self {
        Started(pid(folder))
    }
}

/// The process of the daemon that runs now.
fn pid(folder: &Path) -> String {
    fs::read_to_string(folder.join("run/libvirt/libvirtd.pid")).unwrap().trim().to_owned()
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ended = Command::new("kill").arg(&self.0).status();
    }
}

#[test]
fn the_daemon_of_the_user_is_started_where_none_runs() {
    let Some(folder) = as_user("session::the_daemon_of_the_user_is_started_where_none_runs", |_| vec![])
    else {
        return;
    };
    run(async {
        // Also when two need it at once.
        let options = ConnectOptions::default();
        let opened = tokio::join!(Connection::open(URI, &options), Connection::open(URI, &options));
        let started = Started::find(&folder);
        let connections = [opened.0.unwrap(), opened.1.unwrap()];
        for connection in &connections {
            assert_eq!(connection.list_domains(0).await.unwrap().len(), 1);
        }
        let line = fs::read_to_string(format!("/proc/{}/cmdline", started.0)).unwrap();
        assert!(line.contains("--timeout=120"), "{line}");

        // It is the one that virsh finds, and a later connection takes it too.
        let printed = Command::new("virsh").args(["-q", "-c", URI, "list", "--name"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&printed.stdout).trim(), "test");
        let session = Connection::open("qemu:///session", &options).await;
        // Without its modules it has no QEMU driver, and says so itself.
        assert!(matches!(session.unwrap_err().failure, ConnectFailure::Call(_)));
        assert_eq!(pid(&folder), started.0);
        let read_only = ConnectOptions { read_only: true, ..options };
        Connection::open(URI, &read_only).await.unwrap();
    });
}

#[test]
fn a_socket_that_a_killed_daemon_left_is_no_daemon() {
    let Some(folder) = as_user("session::a_socket_that_a_killed_daemon_left_is_no_daemon", |_| vec![]) else {
        return;
    };
    let socket = folder.join("run/libvirt/libvirt-sock");
    fs::create_dir(folder.join("run/libvirt")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    run(async {
        let connection = Connection::open(URI, &ConnectOptions::default()).await.unwrap();
        let _started = Started::find(&folder);
        assert!(connection.hostname().await.is_ok());
    });
}

#[test]
fn no_daemon_is_started_where_that_is_switched_off() {
    let name = "session::no_daemon_is_started_where_that_is_switched_off";
    let Some(folder) = as_user(name, |_| vec![("LIBVIRT_AUTOSTART", "0".to_owned())]) else { return };
    run(async {
        let failure = Connection::open(URI, &ConnectOptions::default()).await.unwrap_err().failure;
        let ConnectFailure::NoSocket { tried } = failure else { panic!("{failure:?}") };
        assert!(tried.contains(&folder.join("run/libvirt/libvirt-sock")), "{tried:?}");
    });
}

#[test]
fn a_daemon_that_does_not_start_says_why() {
    let name = "session::a_daemon_that_does_not_start_says_why";
    let Some(folder) = as_user(name, |_| vec![("LIBVIRTD_PATH", "/bin/ls".to_owned())]) else { return };
    run(async {
        let open =
            async |uri: &str| Connection::open(uri, &ConnectOptions::default()).await.unwrap_err().failure;
        match open(URI).await {
            // It is not even a daemon here, but what it says is what counts.
            ConnectFailure::Command { command, source } => {
                assert_eq!(command, "/bin/ls");
                assert!(source.to_string().contains("--daemon"), "{source}");
            }
            other => panic!("{other:?}"),
        }
        match open("test+unix:///default?mode=direct").await {
            ConnectFailure::NoDaemon { tried } => assert_eq!(tried, ["virttestd"]),
            other => panic!("{other:?}"),
        }
        // A socket that is named is taken as it is.
        let named = format!("{URI}?socket={}/none", folder.display());
        assert!(matches!(open(&named).await, ConnectFailure::NoSocket { .. }));
        fs::set_permissions(folder.join("run"), fs::Permissions::from_mode(0o000)).unwrap();
        match open(URI).await {
            ConnectFailure::Dial { source, .. } => {
                assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied);
            }
            other => panic!("{other:?}"),
        }
        fs::set_permissions(folder.join("run"), fs::Permissions::from_mode(0o700)).unwrap();
    });
}

/// The sockets of a daemon for QEMU alone, and of one for all drivers. Neither answers.
struct Sockets {
    direct: Option<UnixListener>,
    legacy: UnixListener,
}

impl Sockets {
    /// The socket that is connected to next.
    async fn next(&self) -> &'static str {
        let direct = async {
            match &self.direct {
                Some(listener) => listener.accept().await.unwrap(),
                None => pending().await,
            }
        };
        tokio::select! {
            _ = direct => "direct",
            _ = self.legacy.accept() => "legacy",
        }
    }

    /// The socket that a URI leads to, here and with `virsh`.
    async fn of(&self, uri: &str) -> &'static str {
        let options = ConnectOptions::default();
        let ours = tokio::select! {
            opened = Connection::open(uri, &options) => panic!("{opened:?}"),
            socket = self.next() => socket,
        };
        let mut virsh = tokio::process::Command::new("virsh");
        let _virsh = virsh.args(["-c", uri, "uri"]).kill_on_drop(true).spawn().unwrap();
        assert_eq!(self.next().await, ours, "{uri}");
        ours
    }
}

#[test]
fn a_mode_leads_to_the_socket_that_virsh_takes() {
    let name = "session::a_mode_leads_to_the_socket_that_virsh_takes";
    let Some(folder) = as_user(name, |_| vec![]) else { return };
    let folder = folder.join("run/libvirt");
    fs::create_dir(&folder).unwrap();
    run(async {
        let at = |name: &str| folder.join(name);
        let direct = UnixListener::bind(at("virtqemud-sock")).unwrap();
        let mut sockets =
            Sockets { direct: Some(direct), legacy: UnixListener::bind(at("libvirt-sock")).unwrap() };
        for (mode, socket) in
            [("", "direct"), ("?mode=auto", "direct"), ("?mode=direct", "direct"), ("?mode=legacy", "legacy")]
        {
            assert_eq!(sockets.of(&format!("qemu:///session{mode}")).await, socket, "{mode}");
        }
        sockets.direct = None;
        fs::remove_file(at("virtqemud-sock")).unwrap();
        assert_eq!(sockets.of("qemu:///session").await, "legacy");
    });
}
