//! Sockets of this machine: those of the system's daemons, and of the user's own.

use std::path::{Path, PathBuf};

use tokio::net::UnixStream;

use crate::connect_error::ConnectFailure;
use crate::uri::Uri;

/// Where the system's daemons have their sockets.
pub(super) const SYSTEM: &str = "/var/run/libvirt";

/// Connects to the socket that a URI means.
pub(super) async fn connect(uri: &Uri, read_only: bool) -> Result<UnixStream, ConnectFailure> {
    let folder = if uri.is_session() { session_folder()? } else { SYSTEM.into() };
    let tried = candidates(uri, read_only, &folder)?;
    for path in &tried {
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok(stream),
            // The next may be there.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(ConnectFailure::Dial { to: path.display().to_string(), source }),
        }
    }
    Err(ConnectFailure::NoSocket { tried })
}

/// The sockets to try, in order: with `mode=auto`, the default, that of the driver's own daemon comes first.
pub(super) fn candidates(uri: &Uri, read_only: bool, folder: &Path) -> Result<Vec<PathBuf>, ConnectFailure> {
    if let Some(socket) = uri.parameter("socket") {
        return Ok(vec![socket.into()]);
    }
    // The user's own daemons have no socket for reading only: only OPEN says it.
    let suffix = if read_only && !uri.is_session() { "-ro" } else { "" };
    let direct = folder.join(format!("virt{}d-sock{suffix}", uri.driver));
    let legacy = folder.join(format!("libvirt-sock{suffix}"));
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
fn session_folder() -> Result<PathBuf, ConnectFailure> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(runtime) = variable("XDG_RUNTIME_DIR") {
        return Ok(runtime.join("libvirt"));
    }
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    cache.map(|cache| cache.join("libvirt")).ok_or_else(|| {
        ConnectFailure::Unsupported("a session needs XDG_RUNTIME_DIR or HOME to be set".to_owned())
    })
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
        assert_eq!(names("qemu:///session?mode=direct", true), ["/r/virtqemud-sock"]);
        assert_eq!(names("qemu:///system?socket=/x", true), ["/x"]);
        assert!(candidates(&"qemu:///system?mode=x".parse().unwrap(), false, Path::new("/r")).is_err());
    }
}
