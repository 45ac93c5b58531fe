//! Tests as an ordinary user, with an environment of their own: what a client does depends on both, and both belong to
//! the whole process. So such a test runs itself again, as `nobody` if it is root.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;

/// The user and group `nobody`.
const NOBODY: u32 = 65_534;

/// Set in the run that does the work: a folder.
const FOLDER: &str = "ATP_RPC_TEST_FOLDER";

/// Runs the test with this path again, with a folder of its own, and with the variables that `prepare` gives for that
/// folder. Returns the folder in that run.
pub(crate) fn as_user(
    test: &str,
    prepare: impl FnOnce(&Path) -> Vec<(&'static str, String)>,
) -> Option<PathBuf> {
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
    command.args(["--exact", test, "--nocapture"]);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", folder.path()).env(FOLDER, folder.path());
    command.env("XDG_RUNTIME_DIR", at("run")).env("LIBVIRT_DRIVER_DIR", at("modules"));
    command.envs(prepare(folder.path())).current_dir("/");
    if geteuid().is_root() {
        for path in [folder.path(), &at("run"), &at("modules")] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    // A process that another test has just forked may still have the file of the program open for writing.
    let output = loop {
        match command.output() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            output => break output.unwrap(),
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
    None
}

pub(crate) fn run(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}
