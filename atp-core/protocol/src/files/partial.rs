//! The local file in which a pull collects its bytes, beside its destination. Its name can be guessed, and other users
//! may be able to write to the folder, such as `/tmp`: a file with this name is checked before it is written to.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::durable::folder_of;
use crate::error::{FileError, ProtocolError, Result};

/// No other user can read or write it before the copy is verified.
pub(super) const PRIVATE: u32 = 0o600;

/// The number of attempts if each time another file is at the path.
const TRIES: usize = 8;

/// How often, and after which time, a lock is tried again that another transfer may have.
const MOMENTS: u32 = 20;
const MOMENT: Duration = Duration::from_millis(10);

/// The path of the partial file: beside its destination, so that it can be renamed.
pub(super) fn partial_path(destination: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(destination.file_name().unwrap_or_default());
    name.push(".atp-part");
    destination.with_file_name(name)
}

/// Refuses a destination that a file cannot or should not replace, such as `/dev/null`, before the transfer begins.
pub(super) fn check_destination(destination: &Path) -> Result<()> {
    // A link to a device, such as `/dev/stdout`, is refused too. A link to a file, or to nothing, is replaced.
    match fs::metadata(destination).ok().as_ref().and_then(not_a_file) {
        Some(found) => Err(occupied(destination, found)),
        None => Ok(()),
    }
}

/// Opens or creates the partial file, and locks it.
///
/// # Errors
/// [`FileError::Occupied`] if something else is there, which is neither followed nor changed; [`FileError::Busy`] if
/// another transfer has the file.
pub(super) fn open(path: &Path) -> Result<File> {
    open_by(path, lock)
}

/// Locks a file. A process that another thread starts has the files of this one until it runs its program: a lock that such a
/// moment alone keeps from being free is waited for.
fn lock(file: &File) -> Result<(), TryLockError> {
    for _ in 0..MOMENTS {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(MOMENT),
            result => return result,
        }
    }
    file.try_lock()
}

fn open_by(path: &Path, lock: impl Fn(&File) -> Result<(), TryLockError>) -> Result<File> {
    let failed = |error| FileError::local("write", path, error);
    let busy = || FileError::Busy { path: path.to_owned() }.into();
    for _ in 0..TRIES {
        let made = options().create_new(true).mode(PRIVATE).open(path);
        let is_new = made.is_ok();
        let file = match made {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let Some(file) = open_there(path)? else { continue };
                file
            }
            made => made.map_err(failed)?,
        };
        match lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy()),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // The transfer that had the lock may have renamed the file before it released the lock.
        if !is_at(&file, path).map_err(failed)? {
            continue;
        }
        if !is_new {
            check(path, &file.metadata().map_err(failed)?)?;
        }
        file.set_permissions(Permissions::from_mode(PRIVATE)).map_err(failed)?;
        return Ok(file);
    }
    Err(busy())
}

fn options() -> OpenOptions {
    File::options().read(true).append(true).clone()
}

/// Opens the file at the path if it is a valid partial file. None if the file is gone or is a link by now.
fn open_there(path: &Path) -> Result<Option<File>> {
    let failed = |error| FileError::local("write", path, error);
    // Opening a device can already have an effect.
    match fs::symlink_metadata(path) {
        Ok(there) => check(path, &there)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    // It may have been replaced since: a link is not followed, and a FIFO does not block.
    match options().custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Refuses a file that an earlier transfer of this user cannot have left there.
fn check(path: &Path, there: &Metadata) -> Result<()> {
    let failed = |error| FileError::local("write", path, error);
    // Compares with the owner of a new file, not with the process's user: a filesystem may map all files to one user,
    // or root's files to `nobody`.
    let own = tempfile::tempfile_in(folder_of(path)).and_then(|file| file.metadata()).map_err(failed)?;
    match not_a_partial_file(there, own.uid()) {
        Some(found) => Err(occupied(path, found)),
        None => Ok(()),
    }
}

fn occupied(path: &Path, found: impl Into<String>) -> ProtocolError {
    FileError::Occupied { path: path.to_owned(), found: found.into() }.into()
}

/// Describes a file, if it is not a file that only this user can have written and can write.
fn not_a_partial_file(there: &Metadata, own_user: u32) -> Option<String> {
    if let Some(found) = not_a_file(there) {
        return Some(found.to_owned());
    }
    let mode = there.mode() & 0o7777;
    if there.uid() != own_user {
        Some(format!("a file of another user ({})", there.uid()))
    } else if there.nlink() > 1 {
        Some(format!("a file with {} hard links", there.nlink()))
    } else if mode & 0o022 != 0 {
        Some(format!("a file that others may write to (mode {mode:04o})"))
    } else {
        None
    }
}

/// Describes a file, if it is not a regular file.
fn not_a_file(there: &Metadata) -> Option<&'static str> {
    let kind = there.file_type();
    if kind.is_file() {
        None
    } else if kind.is_symlink() {
        Some("a symbolic link")
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_fifo() {
        Some("a FIFO")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

/// Whether an open file is the one at a path.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let file = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (file.dev(), file.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the partial file, but not a file that has replaced it.
pub(super) fn remove(file: &File, path: &Path) {
    if is_at(file, path).unwrap_or_default() {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::{chown, symlink};
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;

    /// A folder, the path of the partial file in it, and the path of another file.
    fn places() -> (TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (partial, other) = (partial_path(&folder.path().join("copy")), folder.path().join("other"));
        fs::write(&other, "precious").unwrap();
        (folder, partial, other)
    }

    fn mode_of(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// Asserts that the file there is refused, with this description.
    fn assert_refused(path: &Path, expected: &str) {
        let error = open(path).unwrap_err();
        let ProtocolError::File(FileError::Occupied { path: named, found }) = &error else {
            panic!("{expected}: {error:?}");
        };
        assert_eq!((named.as_path(), found.as_str()), (path, expected));
        assert_eq!((error.kind().as_str(), error.is_retryable()), ("path-occupied", false));
    }

    #[test]
    fn a_file_that_no_transfer_left_is_refused_and_unchanged() {
        let (_folder, partial, other) = places();
        set_mode(&other, 0o644);

        symlink(&other, &partial).unwrap();
        assert_refused(&partial, "a symbolic link");
        fs::remove_file(&partial).unwrap();
        symlink("nowhere", &partial).unwrap();
        assert_refused(&partial, "a symbolic link");
        assert!(!other.with_file_name("nowhere").exists());
        fs::remove_file(&partial).unwrap();

        fs::hard_link(&other, &partial).unwrap();
        assert_refused(&partial, "a file with 2 hard links");
        fs::remove_file(&partial).unwrap();
        assert_eq!((fs::read(&other).unwrap().as_slice(), mode_of(&other)), (&b"precious"[..], 0o644));

        assert!(Command::new("mkfifo").arg(&partial).status().unwrap().success());
        assert_refused(&partial, "a FIFO");
        fs::remove_file(&partial).unwrap();

        fs::create_dir(&partial).unwrap();
        assert_refused(&partial, "a directory");
        fs::remove_dir(&partial).unwrap();

        let _listener = UnixListener::bind(&partial).unwrap();
        assert_refused(&partial, "a socket");
        fs::remove_file(&partial).unwrap();

        fs::write(&partial, "planted").unwrap();
        set_mode(&partial, 0o620);
        assert_refused(&partial, "a file that others may write to (mode 0620)");
        assert_eq!((fs::read(&partial).unwrap().as_slice(), mode_of(&partial)), (&b"planted"[..], 0o620));
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        let (_folder, partial, other) = places();
        let metadata = other.metadata().unwrap();
        let of_another = not_a_partial_file(&metadata, metadata.uid() + 1);
        assert_eq!(of_another, Some(format!("a file of another user ({})", metadata.uid())));

        fs::write(&partial, "planted").unwrap();
        // Only root can change the owner of a file.
        if chown(&partial, Some(12345), None).is_ok() {
            assert_refused(&partial, "a file of another user (12345)");
            assert_eq!(fs::read(&partial).unwrap(), b"planted");
        }
    }

    #[test]
    fn a_partial_file_of_an_earlier_transfer_is_opened_unchanged() {
        let (_folder, partial, _) = places();
        for there in ["", "begun"] {
            let file = open(&partial).unwrap();
            assert_eq!((fs::read_to_string(&partial).unwrap().as_str(), mode_of(&partial)), (there, PRIVATE));
            let second = open(&partial).unwrap_err();
            assert_eq!(second.kind(), "transfer-busy");
            drop(file);
            fs::write(&partial, "begun").unwrap();
            // Its state if the last step was cut off.
            set_mode(&partial, 0o755);
        }
    }

    #[test]
    fn a_file_that_is_moved_before_the_lock_is_not_written_to() {
        let (folder, partial, _) = places();
        for (is_there, moves) in [(true, 1), (false, 1), (true, TRIES), (false, TRIES)] {
            let (moved, left) = (folder.path().join("moved"), Cell::new(moves));
            if is_there {
                fs::write(&partial, "whole").unwrap();
                set_mode(&partial, 0o644);
            }
            let opened = open_by(&partial, |file| {
                if left.get() > 0 {
                    left.set(left.get() - 1);
                    fs::rename(&partial, &moved).unwrap();
                }
                file.try_lock()
            });
            if moves < TRIES {
                assert!(is_at(&opened.unwrap(), &partial).unwrap());
                fs::remove_file(&partial).unwrap();
                if is_there {
                    let kept = (fs::read_to_string(&moved).unwrap(), mode_of(&moved));
                    assert_eq!(kept, ("whole".to_owned(), 0o644));
                }
            } else {
                let error = opened.unwrap_err();
                assert_eq!((error.kind().as_str(), error.is_retryable()), ("transfer-busy", true));
            }
        }
    }

    #[test]
    fn only_the_partial_file_itself_is_removed() {
        let (_folder, partial, other) = places();
        let file = open(&partial).unwrap();
        fs::rename(&other, &partial).unwrap();
        remove(&file, &partial);
        assert_eq!(fs::read(&partial).unwrap(), b"precious");
        fs::remove_file(&partial).unwrap();
        assert!(!is_at(&file, &partial).unwrap());
        let file = open(&partial).unwrap();
        remove(&file, &partial);
        assert!(!partial.exists());
    }
}
