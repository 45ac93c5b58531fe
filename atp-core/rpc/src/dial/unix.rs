//! Sockets of this machine: those of the system's daemons, and of the user's own.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::geteuid;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use super::session;
use crate::connect_error::{ConnectFailure, Progress, Stage};
use crate::uri::Uri;

/// Where the system's daemons have their sockets.
pub(super) const SYSTEM: &str = "/var/run/libvirt";

/// How long a daemon that another client has started is waited for.
const RIVAL: Duration = Duration::from_secs(2);

/// The pause between two attempts to connect to it.
const PAUSE: Duration = Duration::from_millis(20);

/// Connects to the socket that a URI means. The daemon of a user is started if none runs.
pub(super) async fn connect(
    uri: &Uri,
    read_only: bool,
    progress: &Progress<'_>,
) -> Result<UnixStream, ConnectFailure> {
    let of_user = is_of_user(uri);
    let folder = if of_user { user_folder()? } else { SYSTEM.into() };
    // The user's own daemons have no socket for reading only: its OPEN says so all the same.
    let tried = candidates(uri, read_only && !of_user, &folder)?;
    let connected = first(&tried).await;
    let may_start = of_user && uri.parameter("socket").is_none() && session::may_start();
    if !may_start || !connected.as_ref().is_err_and(has_no_daemon) {
        return connected;
    }
    // As the daemon would do, which says less of what is wrong.
    std::fs::create_dir_all(&folder)
        .map_err(|error| ConnectFailure::NoFolder { folder: Some((folder.clone(), error)) })?;
    let started = session::start(&daemons(uri)?, progress).await;
    progress.set(Stage::Dial);
    let Err(failure) = started else { return first(&tried).await };
    // Starting fails if another client has started one, which may not listen yet.
    let patience = Instant::now() + RIVAL;
    loop {
        match first(&tried).await {
            Err(error) if !has_no_daemon(&error) => return Err(error),
            Err(_) if Instant::now() >= patience => return Err(failure),
            Err(_) => sleep(PAUSE).await,
            connected => return connected,
        }
    }
}

/// Connects to the first socket with a daemon.
async fn first(paths: &[PathBuf]) -> Result<UnixStream, ConnectFailure> {
    let mut failure = ConnectFailure::NoSocket { tried: paths.to_vec() };
    for path in paths {
        let failed = |source| ConnectFailure::Dial { to: path.display().to_string(), source };
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok(stream),
            // The next may be there.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // A daemon that was killed leaves its socket behind.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => failure = failed(error),
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failure)
}

fn has_no_daemon(failure: &ConnectFailure) -> bool {
    match failure {
        ConnectFailure::NoSocket { .. } => true,
        ConnectFailure::Dial { source, .. } => source.kind() == ErrorKind::ConnectionRefused,
        _ => false,
    }
}

/// Whether a URI means the daemon of the user, and not that of the machine. For root, all are those of the machine.
fn is_of_user(uri: &Uri) -> bool {
    let by_uri = uri.is_session() || uri.driver == "test" || uri.driver.is_empty();
    by_uri && !geteuid().is_root()
}

/// The sockets to try, in order: with `mode=auto`, the default, that of the driver's own daemon comes first.
pub(super) fn candidates(uri: &Uri, read_only: bool, folder: &Path) -> Result<Vec<PathBuf>, ConnectFailure> {
    if let Some(socket) = uri.parameter("socket") {
        return Ok(vec![socket.into()]);
    }
    let suffix = if read_only { "-ro" } else { "" };
    let sockets = daemons(uri)?.into_iter().map(|daemon| {
        // The socket of libvirtd alone is not named after it.
        let name = if daemon == "libvirtd" { "libvirt" } else { daemon.as_str() };
        folder.join(format!("{name}-sock{suffix}"))
    });
    Ok(sockets.collect())
}

/// The daemons that may serve a URI, in order.
fn daemons(uri: &Uri) -> Result<Vec<String>, ConnectFailure> {
    let (direct, legacy) = (format!("virt{}d", uri.driver), "libvirtd".to_owned());
    match uri.parameter("mode") {
        None | Some("auto") if uri.driver.is_empty() => Ok(vec![legacy]),
        None | Some("auto") => Ok(vec![direct, legacy]),
        Some("direct") => Ok(vec![direct]),
        Some("legacy") => Ok(vec![legacy]),
        Some(other) => {
            let what = format!("the mode {other:?} is not known; there are auto, direct and legacy");
            Err(ConnectFailure::Unsupported(what))
        }
    }
}

/// Where the user's own daemons have their sockets.
fn user_folder() -> Result<PathBuf, ConnectFailure> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(runtime) = variable("XDG_RUNTIME_DIR") {
        return Ok(runtime.join("libvirt"));
    }
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    cache.map(|cache| cache.join("libvirt")).ok_or(ConnectFailure::NoFolder { folder: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(uri: &str, read_only: bool) -> Vec<String> {
        let found = candidates(&uri.parse().unwrap(), read_only, Path::new("/r")).unwrap();
        found.iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn the_sockets_of_each_mode() {
        assert_eq!(names("qemu:///system", false), ["/r/virtqemud-sock", "/r/libvirt-sock"]);
        assert_eq!(names("qemu:///system?mode=legacy", true), ["/r/libvirt-sock-ro"]);
        assert_eq!(names("qemu:///session?mode=direct", false), ["/r/virtqemud-sock"]);
        assert_eq!(names("qemu:///system?socket=/x", true), ["/x"]);
        assert!(candidates(&"qemu:///system?mode=x".parse().unwrap(), false, Path::new("/r")).is_err());
    }
}
