//! One service at a time has a store.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use super::StoreError;

/// Locks the store at `path`, for as long as the file is held.
///
/// The lock is on a file beside it: closing the database's own file would end the locks that SQLite has on it.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push("-lock");
    let cannot = |source: io::Error| StoreError::Open { path: path.to_owned(), source: Arc::new(source) };
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(name);
    let file = file.map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(cannot(error)),
    }
}
