//! Daemons of a user's own, as `qemu:///session` has them: in a folder of theirs, apart from the machine's daemon.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::cache;
use crate::error::{Error, Result};

/// User and group `nobody`, who run such a daemon that root starts: run by root, it would be that of the machine.
const NOBODY: u32 = 65534;

/// Where such daemons and what they start look for programs.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command that starts a daemon with the configuration at `config`, which keeps what it has in the folders `run`,
/// `config`, `cache` and `data` of `folder`. They have to be there, and to [belong](hand_over) to whoever runs it.
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
    if is_run_by_nobody()? {
        command.uid(NOBODY).gid(NOBODY);
    }
    Ok(command)
}

/// Gives a folder and everything in it to whoever runs the daemon.
pub fn hand_over(folder: &Path) -> Result<()> {
    if is_run_by_nobody()? { give_to_nobody(folder) } else { Ok(()) }
}

fn is_run_by_nobody() -> Result<bool> {
    Ok(cache::user_id()? == 0)
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
