//! The daemon of an ordinary user, which a client starts if none runs. Root has none: its session is the machine's
//! daemon. So each test runs itself again as another user if it is root, and always with folders of its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use atp_rpc::{ConnectFailure, ConnectOptions, Connection};
use rustix::process::geteuid;

/// The user and group `nobody`.
const NOBODY: u32 = 65_534;

/// Set in the run that does the work: a folder.
const FOLDER: &str = "ATP_RPC_TEST_FOLDER";

/// With the test driver, `test+` is the user's daemon, like `qemu:///session`; it needs no QEMU.
const URI: &str = "test+unix:///default";

/// Runs the test of this name again, with a folder of its own and these variables. Returns the folder in that run.
fn folder(test: &str, variables: &[(&str, &str)]) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return Some(folder.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["run", "modules"] {
        fs::create_dir(at(name)).unwrap();
    }
    // The folder of the tests may be closed to others.
    fs::copy(std::env::current_exe().unwrap(), at("test")).unwrap();
    let mut command = Command::new(at("test"));
    command.args(["--exact", &format!("session::{test}"), "--nocapture"]);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", folder.path()).env(FOLDER, folder.path());
    command.env("XDG_RUNTIME_DIR", at("run")).env("LIBVIRT_DRIVER_DIR", at("modules"));
    command.envs(variables.iter().copied()).current_dir("/");
    if geteuid().is_root() {
        for path in [folder.path(), &at("run"), &at("modules")] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
    None
}

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
    let Some(folder) = folder("the_daemon_of_the_user_is_started_where_none_runs", &[]) else { return };
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
    let Some(folder) = folder("a_socket_that_a_killed_daemon_left_is_no_daemon", &[]) else { return };
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
    let name = "no_daemon_is_started_where_that_is_switched_off";
    let Some(folder) = folder(name, &[("LIBVIRT_AUTOSTART", "0")]) else { return };
    run(async {
        let failure = Connection::open(URI, &ConnectOptions::default()).await.unwrap_err().failure;
        let ConnectFailure::NoSocket { tried } = failure else { panic!("{failure:?}") };
        assert!(tried.contains(&folder.join("run/libvirt/libvirt-sock")), "{tried:?}");
    });
}

#[test]
fn a_daemon_that_does_not_start_says_why() {
    let Some(folder) = folder("a_daemon_that_does_not_start_says_why", &[("LIBVIRTD_PATH", "/bin/ls")])
    else {
        return;
    };
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

fn run(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}
