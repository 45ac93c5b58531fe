//! `atp` of an ordinary user, who may not open the daemon's socket, or has no folder for a daemon of their own.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::atp::{Home, Run};

const ENGINES: [&str; 2] = ["library", "native"];

/// The user and group `nobody`.
const NOBODY: u32 = 65_534;
/// A group that every Linux has.
const ADM: u32 = 4;

fn is_root() -> bool {
    fs::read_dir("/root").is_ok()
}

/// An ordinary user, with a program and a socket that are in a folder open to all.
struct User {
    home: Home,
    folder: TempDir,
    _listener: UnixListener,
}

impl User {
    /// A daemon's socket with these rights, which are not this user's: that of root, or, where the test is run by an ordinary
    /// user, with no right for its owner.
    fn new(mode: u32, group: Option<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = folder.path().join("atp");
        let built = env!("CARGO_BIN_EXE_atp");
        // A copy is large.
        if fs::hard_link(built, &program).is_err() {
            fs::copy(built, &program).unwrap();
        }
        let socket = folder.path().join("sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let mode = if is_root() { mode } else { mode & 0o077 };
        fs::set_permissions(&socket, fs::Permissions::from_mode(mode)).unwrap();
        if let Some(group) = group.filter(|_| is_root()) {
            chown(&socket, None, Some(group)).unwrap();
        }
        User { home: Home::new(), folder, _listener: listener }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    /// The name of the socket's group, or its number.
    fn group(&self) -> String {
        let output = Command::new("stat").args(["-c", "%G"]).arg(self.socket()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn atp(&self, engine: &str, args: &[&str]) -> Command {
        let mut command = self.home.command(self.folder.path().join("atp").to_str().unwrap());
        command.args(args).env("ATP_TRANSPORT__ENGINE", engine).current_dir("/");
        if is_root() {
            command.uid(NOBODY).gid(NOBODY).env("HOME", "/nonexistent");
        }
        command
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_socket_of_its_owner_alone_needs_a_group() {
    let user = User::new(0o700, None);
    let host = format!("h=qemu+unix:///system?socket={}", user.socket().display());
    for engine in ENGINES {
        let run = Run::of(&mut user.atp(engine, &["--host", &host, "vm", "list", "-o", "json"])).exits(1);
        let error = run.outcomes()[0]["error"].clone();
        assert_eq!(error["kind"], "access-denied", "{engine}: {error}");
        assert_eq!(error["retryable"], false, "{engine}: {error}");
        let hint = text(&error["hint"]);
        assert!(hint.contains("usermod -aG") && hint.contains("SocketMode"), "{engine}: {hint}");
        assert!(!hint.contains("polkit"), "{engine}: {hint}");
    }
}

#[test]
fn an_ordinary_users_first_contact_names_the_group_of_the_socket() {
    let user = User::new(0o770, Some(ADM));
    let uri = format!("qemu+unix:///system?socket={}", user.socket().display());
    let expected = format!("usermod -aG {} USER", user.group());
    for engine in ENGINES {
        // No host is configured: it is this machine's daemon that is meant.
        for command in [&["vm", "list"][..], &["doctor"]] {
            let run = Run::of(user.atp(engine, command).env("LIBVIRT_DEFAULT_URI", &uri)).exits(2);
            run.says(&["Permission denied", "the daemon runs", &expected]);
        }
        let doctor = ["--host", &format!("local={uri}"), "doctor", "-o", "json"];
        let outcomes = Run::of(&mut user.atp(engine, &doctor)).exits(1).outcomes();
        let of_host = outcomes.iter().find(|outcome| outcome["host"] == "local").unwrap();
        let last = of_host["data"]["findings"].as_array().unwrap().last().unwrap();
        assert_eq!(
            (&last["check"], &last["verdict"]),
            (&"socket".into(), &"problem".into()),
            "{engine}: {last}"
        );
        assert!(text(&last["hint"]).contains(&expected), "{engine}: {last}");
    }
}

#[test]
fn a_session_without_a_folder_that_can_be_written_names_the_folder_and_the_variable() {
    let user = User::new(0o700, None);
    // For root, a session is the machine's daemon. So it is nobody's, if the test is run by root.
    for engine in ENGINES {
        let mut command = user.atp(engine, &["--host", "h=qemu:///session", "vm", "list", "-o", "json"]);
        command.env_remove("XDG_RUNTIME_DIR").env("HOME", "/proc/nonexistent");
        let run = Run::of(&mut command).exits(1);
        let error = run.outcomes()[0]["error"].clone();
        let words = format!("{} {}", error["message"], error["causes"]);
        assert_eq!(error["kind"], "connect-failed", "{engine}: {error}");
        assert!(words.contains("/proc/nonexistent/.cache/libvirt"), "{engine}: {words}");
        assert!(text(&error["hint"]).contains("XDG_RUNTIME_DIR"), "{engine}: {error}");
    }
}
