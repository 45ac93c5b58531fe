//! Session daemons, as for `qemu:///session`: each in a folder of its own, separate from the machine's daemon.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::cache;
use crate::error::{Error, Result};

/// The user and group `nobody`. They run session daemons that root starts: run by root, a daemon would be the
/// machine's system daemon.
const NOBODY: u32 = 65534;

/// The search path for programs of such daemons and their children.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command that starts a daemon with the configuration at `config` and the folders `run`, `config`, `cache` and
/// `data` of `folder`. These must exist and have the right [owner](give_to_daemon_user).
pub fn daemon(folder: &Path, config: &Path) -> Result<Command> {
    let mut command = Command::new("libvirtd");
    command.arg("--listen").arg("--config").arg(config);
    command.env_clear().env("PATH", PATH).env("HOME", folder);
    for (name, below) in [
        ("XDG_RUNTIME_DIR", "run"),
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_CACHE_HOME", "cache"),
        ("XDG_DATA_HOME", "data"),
    ] {
        command.env(name, folder.join(below));
    }
    if runs_as_nobody() {
        command.uid(NOBODY).gid(NOBODY);
    }
    Ok(command)
}

/// Makes the user who runs the daemon the owner of a folder and all its content.
pub fn give_to_daemon_user(folder: &Path) -> Result<()> {
    if runs_as_nobody() { give_to_nobody(folder) } else { Ok(()) }
}

fn runs_as_nobody() -> bool {
    cache::user_id() == 0
}

fn give_to_nobody(folder: &Path) -> Result<()> {
    let what = || format!("giving {} to the user nobody", folder.display());
    chown(folder, Some(NOBODY), Some(NOBODY)).map_err(Error::io(what()))?;
    for entry in fs::read_dir(folder).map_err(Error::io(what()))? {
        let path = entry.map_err(Error::io(what()))?.path();
        if path.is_dir() {
            give_to_nobody(&path)?;
        } else {
            chown(&path, Some(NOBODY), Some(NOBODY)).map_err(Error::io(what()))?;
        }
    }
    Ok(())
}
