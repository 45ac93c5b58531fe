//! ssh, and commands of the user's own: the protocol is spoken over their stdin and stdout.
//!
//! A command runs in a process group of its own, so that Ctrl-C at a terminal does not reach it, and the whole group
//! ends with the connection, with a connect that is given up, and with this process.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{Dialled, Stderr, is_verified};
use crate::connect_error::{ConnectFailure, Progress, Stage};
use crate::options::ConnectOptions;
use crate::settings::reading;
use crate::uri::Uri;

/// Starts ssh to the host of a URI, and there what connects to the daemon.
pub(super) async fn ssh(
    uri: &Uri,
    options: &ConnectOptions,
    progress: &Progress<'_>,
) -> Result<Dialled, ConnectFailure> {
    let program = uri.parameter("command").unwrap_or("ssh");
    let mut command = Command::new(program);
    // What ssh says is sorted by its words, and Debian's ssh passes the language on to the far side's shell.
    command.env("LC_ALL", "C");
    if let Some(port) = uri.port {
        command.args(["-p", &port.to_string()]);
    }
    if let Some(user) = &uri.user {
        command.args(["-l", user]);
    }
    if let Some(keyfile) = uri.parameter("keyfile") {
        // ssh itself would go on with another key.
        let path = PathBuf::from(keyfile);
        reading(move || readable(&path)).await?;
        command.args(["-i", keyfile]);
    }
    // There is no terminal to ask at, and the time limit is ours. A link that is dark is noticed by our own pings;
    // ssh's are for what is still to be connected.
    let patience = options.timeout.max(Duration::from_secs(1)).as_secs();
    command.args(["-T", "-e", "none", "-o", "BatchMode=yes"]);
    command.args(["-o", &format!("ConnectTimeout={patience}"), "-o", "ServerAliveInterval=15"]);
    if !is_verified(uri) {
        command.args(["-o", "StrictHostKeyChecking=no"]);
    }
    let host = uri.host.as_deref().unwrap_or("localhost");
    command.args(["--", host, &format!("sh -c {}", quote(&far_script(uri, options.read_only)?))]);
    let dialled = start(program, command, progress)?;
    Ok(Dialled { private: is_verified(uri), ..dialled })
}

/// Starts the command that a URI names.
pub(super) fn ext(uri: &Uri, progress: &Progress<'_>) -> Result<Dialled, ConnectFailure> {
    let Some(program) = uri.parameter("command") else {
        return Err(ConnectFailure::Unsupported("the transport ext needs command= in the URI".to_owned()));
    };
    start(program, Command::new(program), progress)
}

fn readable(path: &Path) -> Result<(), ConnectFailure> {
    std::fs::File::open(path)
        .map(drop)
        .map_err(|error| ConnectFailure::File { path: path.to_owned(), reason: error.to_string() })
}

/// What the far side's shell runs: libvirt's helper, which knows the daemon's sockets, or netcat on one of them.
fn far_script(uri: &Uri, read_only: bool) -> Result<String, ConnectFailure> {
    let helper = format!(
        "virt-ssh-helper {}{}",
        if read_only { "-r " } else { "" },
        quote(&uri.name().unwrap_or_default())
    );
    let nc = quote(uri.parameter("netcat").unwrap_or("nc"));
    let sockets = super::unix::candidates(uri, read_only, Path::new(super::unix::SYSTEM))?;
    let sockets: Vec<_> = sockets.iter().map(|path| quote(&path.to_string_lossy())).collect();
    // Some netcats need to be told to end with their input.
    let netcat = format!(
        "for s in {}; do if test -S \"$s\"; then \
         if {nc} -h 2>&1 | grep -q -e -q; then exec {nc} -q 0 -U \"$s\"; else exec {nc} -U \"$s\"; fi; fi; done; \
         echo \"no libvirt socket\" {} >&2; exit 1",
        sockets.join(" "),
        sockets.join(" "),
    );
    let native = || format!("exec {helper}");
    match uri.parameter("proxy") {
        Some("native") => Ok(native()),
        _ if uri.is_session() => Ok(native()),
        Some("netcat") => Ok(netcat),
        None | Some("auto") if uri.parameter("socket").is_some() => Ok(netcat),
        None | Some("auto") => {
            Ok(format!("if command -v virt-ssh-helper >/dev/null 2>&1; then exec {helper}; fi; {netcat}"))
        }
        Some(other) => Err(ConnectFailure::Unsupported(format!(
            "the proxy {other:?} is not known; there are auto, native and netcat"
        ))),
    }
}

/// A word for a shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn start(program: &str, mut command: Command, progress: &Progress<'_>) -> Result<Dialled, ConnectFailure> {
    progress.set(Stage::Command);
    let failed = |source| ConnectFailure::Command { command: program.to_owned(), source };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // The guard is there first, so that no moment is left in which this process could end and leave the command behind.
    let guard = guard();
    let group = guard.as_ref().and_then(pid).map_or(0, Pid::as_raw_pid);
    let mut child = command.process_group(group).kill_on_drop(true).spawn().map_err(failed)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let group = Group { guard, command: child };
    let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
        return Err(failed(io::Error::other("a pipe is missing")));
    };
    let io = CommandIo { stdin, stdout, _group: group };
    Ok(Dialled { stderr: Some(Stderr::read(stderr)), ..Dialled::new(io, true) })
}

/// What ends the group of a command when this process is gone and could not do it. Only this process has the other end
/// of its input, so it reads an end of file when this process ends, also by SIGKILL.
const GUARD: &str = "read -r never; kill -KILL 0";

/// Starts a guard, in a group of its own. Without one the command itself has to notice that its output is not read.
fn guard() -> Option<Child> {
    let mut guard = Command::new("sh");
    guard.args(["-c", GUARD]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = guard.process_group(0).kill_on_drop(true).spawn();
    if let Err(error) = &started {
        tracing::debug!(%error, "no guard of a command");
    }
    started.ok()
}

/// While it has an id it was not waited for, so that the number cannot be another's.
fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()?).ok()?)
}

/// A process group, which is killed when this is dropped, and when this process ends.
struct Group {
    /// Its leader, if it could be started.
    guard: Option<Child>,
    command: Child,
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = pid(self.guard.as_ref().unwrap_or(&self.command)) {
            let _over = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// The pipes of a command.
struct CommandIo {
    stdin: ChildStdin,
    stdout: ChildStdout,
    _group: Group,
}

impl AsyncRead for CommandIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(cx, buffer)
    }
}

impl AsyncWrite for CommandIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stdin).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(uri: &str) -> String {
        far_script(&uri.parse().unwrap(), true).unwrap()
    }

    #[test]
    fn words_survive_a_shell() {
        for word in ["a b", "it's", "$x `y` \"z\" \\", ""] {
            let printed = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quote(word))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(printed.stdout).unwrap(), word);
        }
    }

    #[test]
    fn the_far_side_runs_what_the_uri_asks_for() {
        let both = script("qemu+ssh://h/system?x=y z".replace(' ', "%20").as_str());
        assert!(both.contains("exec virt-ssh-helper -r 'qemu:///system?x=y%20z'"), "{both}");
        assert!(both.contains("'/var/run/libvirt/virtqemud-sock-ro' '/var/run/libvirt/libvirt-sock-ro'"));
        assert!(!script("qemu+ssh://h/session").contains("nc"));
        let socket = script("qemu+ssh://h/system?socket=/s&netcat=ncat");
        assert!(socket.contains("exec 'ncat' -U") && !socket.contains("virt-ssh-helper"), "{socket}");
        assert!(far_script(&"qemu+ssh://h/system?proxy=x".parse().unwrap(), false).is_err());
    }
}
