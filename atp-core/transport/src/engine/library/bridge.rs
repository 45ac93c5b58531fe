//! Ways that are not the C library's own: a socket of this machine, at which the library finds what `atp-rpc` dialled.
//!
//! The library runs ssh itself, in our process group and without an end: Ctrl-C at a terminal reaches that ssh, and an ssh that
//! hangs stays when the attempt is given up, or this program ends. And it connects to the addresses of a name one after
//! another, each for as long as the system lets it.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use atp_rpc::Way;
use tokio::io::{copy, split};
use tokio::net::UnixListener;
use tokio::task::AbortHandle;

/// A way that waits for the library at a socket. Dropping it ends the way, unless the library has taken it.
pub(super) struct Bridge {
    place: Place,
    task: Option<AbortHandle>,
}

/// A folder for one socket and an `auth.conf`, which only this user can enter. It is removed with the value.
struct Place {
    folder: PathBuf,
}

impl Bridge {
    /// Starts to wait for the library, which has to be the only one to come.
    ///
    /// # Errors
    /// No socket can be made.
    pub(super) fn open(way: Way) -> io::Result<Self> {
        let place = Place::make()?;
        let listener = UnixListener::bind(place.socket())?;
        fs::write(place.auth_file(), "")?;
        let task = tokio::spawn(async move {
            let accepted = listener.accept().await;
            drop(listener);
            if let Ok((local, _)) = accepted {
                let (mut from_local, mut to_local) = split(local);
                let (mut from_far, mut to_far) = split(way);
                // The first end is the end of both: a way without its client has no use, and its command must not stay.
                let _ended = tokio::select! {
                    sent = copy(&mut from_local, &mut to_far) => sent,
                    received = copy(&mut from_far, &mut to_local) => received,
                };
            }
        });
        Ok(Bridge { place, task: Some(task.abort_handle()) })
    }

    /// The socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.place.socket()
    }

    /// An empty `auth.conf`: it has passwords by host, and the host of a socket would be this machine.
    pub(super) fn auth_file(&self) -> PathBuf {
        self.place.auth_file()
    }

    /// Lets the way live as long as the library's connection: that is open.
    pub(super) fn hand_over(mut self) {
        self.task = None;
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Place {
    fn make() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (temporary, own) = (std::env::temp_dir(), std::process::id());
        let base = if fits(&temporary) { &temporary } else { Path::new("/tmp") };
        loop {
            let folder = base.join(format!("atp-{own}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
            match fs::DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Ok(Place { folder }),
                // Of a program that had our number before.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("way")
    }

    fn auth_file(&self) -> PathBuf {
        self.folder.join("auth.conf")
    }
}

/// Whether a socket of ours in this folder has a path that can be opened, and stands in a URI as it is.
fn fits(folder: &Path) -> bool {
    /// The longest path of a socket, bytes.
    const LONGEST: usize = 107;
    /// What ours adds to it, bytes.
    const OURS: usize = 40;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-._".contains(byte);
    let path = folder.as_os_str().as_bytes();
    path.len() + OURS <= LONGEST && path.starts_with(b"/") && path.iter().all(plain)
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed is an empty folder in the folder for such.
        let _left = fs::remove_file(self.socket());
        let _left = fs::remove_file(self.auth_file());
        let _left = fs::remove_dir(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_whose_name_a_uri_would_not_have_as_it_is_is_not_used() {
        for folder in ["/tmp", "/var/folders/x_1/a-b.c"] {
            assert!(fits(Path::new(folder)), "{folder}");
        }
        for folder in ["tmp", "/a b", "/a&b", "/a%b", "/a#b", "/\u{fc}", &"/x".repeat(40)] {
            assert!(!fits(Path::new(folder)), "{folder}");
        }
    }
}
