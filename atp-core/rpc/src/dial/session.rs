//! Starting the daemon of a user, where none runs yet.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

use super::Stderr;
use crate::connect_error::{ConnectFailure, Progress, Stage};

/// How long the daemon stays without clients, seconds: as long as one that libvirt's own client starts.
const STAY: u32 = 120;

/// Where daemons are, also where they are not in a user's search path.
const FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Whether daemons may be started: not if `LIBVIRT_AUTOSTART` is 0.
pub(super) fn may_start() -> bool {
    env::var_os("LIBVIRT_AUTOSTART").is_none_or(|value| value != "0")
}

/// Starts the first of these daemons that is installed, and returns when it listens.
///
/// A daemon that was started stays when the future is dropped. Two that are started at once are no problem: each holds
/// a lock on its own file, and one of them ends.
pub(super) async fn start(daemons: &[String], progress: &Progress<'_>) -> Result<(), ConnectFailure> {
    progress.set(Stage::Command);
    let Some(program) = daemons.iter().find_map(|daemon| find(daemon)) else {
        return Err(ConnectFailure::NoDaemon { tried: daemons.to_vec() });
    };
    let failed = |source| ConnectFailure::Command { command: program.display().to_string(), source };
    let mut command = Command::new(&program);
    // The first process ends when the daemon listens.
    command.arg("--daemon").arg(format!("--timeout={STAY}"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    let stderr = child.stderr.take().map(Stderr::read);
    let status = child.wait().await.map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    let said = match stderr {
        Some(stderr) => stderr.complete().await,
        None => String::new(),
    };
    Err(failed(io::Error::other(if said.is_empty() { status.to_string() } else { said })))
}

/// The program of a daemon: where `LIBVIRTD_PATH` and the like say, or in one of the usual folders.
fn find(daemon: &str) -> Option<PathBuf> {
    if let Some(named) =
        env::var_os(format!("{}_PATH", daemon.to_uppercase())).filter(|path| !path.is_empty())
    {
        return Some(named.into());
    }
    let searched = env::var_os("PATH").unwrap_or_default();
    let folders = FOLDERS.map(PathBuf::from).into_iter().chain(env::split_paths(&searched));
    folders.map(|folder| folder.join(daemon)).find(|path| path.is_file())
}
