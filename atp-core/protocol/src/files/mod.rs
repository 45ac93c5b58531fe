//! Files in the guest: metadata, lists, and copies in both directions.
//!
//! Bytes go through the agent's file commands, in chunks. For sizes, modes, digests and renaming, which the agent has
//! no commands for, the guest's shell is used: the guest needs a POSIX `sh` with `stat`, `head` and `mv`.
//!
//! A transfer is atomic: it writes to a partial file beside its destination, which is renamed when its SHA-256 is that
//! of the original. A transfer that stops is resumed, also by another process: [`Push::run`] and [`Pull::run`] examine
//! the partial file first.

mod allowance;
mod checksum;
mod content;
mod durable;
mod for_windows;
mod handle;
mod list;
mod pack;
mod partial;
mod place;
mod pull;
mod pull_folder;
mod push;
mod script;
mod unpack;

use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::{Instant, timeout_at};

pub use crate::digest::{Digest, InvalidDigest};
pub use crate::error::FileError;
pub use allowance::Allowance;
pub use content::read;
pub use durable::{sync_written, write_in_place};
pub(crate) use handle::{Chunk, Reader};
pub use list::{Entry, FileInfo, FileKind, list, stat};
pub use pull::{Pull, Pulled};
pub use pull_folder::{PullFolder, unpack_folder};
pub use push::{Push, Pushed, Source};

use crate::error::Result;
use crate::reserve::keep_back;

/// How files are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferPolicy {
    /// The most bytes per command; 1 MiB by default, and less if the carrier's limit is lower. Much larger reads can
    /// break the agent's channel.
    pub chunk: usize,
    /// The time reserved before the deadline for closing files in the guest; 1 s by default, and at most a quarter of
    /// the time left.
    pub reserve: Duration,
}

impl Default for TransferPolicy {
    fn default() -> Self {
        TransferPolicy { chunk: 1 << 20, reserve: Duration::from_secs(1) }
    }
}

impl TransferPolicy {
    /// The time at which work has to end so that the cleanup after it ends by `deadline`.
    pub fn before(&self, deadline: Instant) -> Instant {
        keep_back(self.reserve, deadline)
    }
}

/// The progress of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes copied, including those of an earlier run.
    pub done: u64,
    /// Bytes in total.
    pub total: u64,
}

/// Runs blocking work on local files on another thread than those of async work.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    ended(tokio::task::spawn_blocking(work).await)
}

/// The result of blocking work. A panic goes on here.
fn ended<T>(work: std::result::Result<Result<T>, JoinError>) -> Result<T> {
    match work {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, so no caller sees this error.
            Err(error) => Err(FileError::local("wait for work on", "", io::Error::other(error))),
        },
    }
}

/// Why a copy ends whose disk did not write it in time. No system call fails so: it has no number.
fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the deadline passed before the copy was on disk")
}

/// As [`blocking`], for work that replaces the destination with its last step. It has to ask before it takes that step: it may not
/// begin it once `deadline` has passed or this future was dropped. A step that has begun goes on to its end, so the deadline is one that
/// leaves it time ([`TransferPolicy::before`]).
async fn blocking_by<T: Send + 'static>(
    deadline: Instant,
    destination: &Path,
    work: impl FnOnce(&dyn Fn() -> Result<()>) -> Result<T> + Send + 'static,
) -> Result<T> {
    /// Keeps the step from being taken when it is dropped. True as soon as one side has decided.
    struct Decided(Arc<AtomicBool>);
    impl Drop for Decided {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let decided = Decided(Arc::default());
    let (to, asked) = (destination.to_owned(), Arc::clone(&decided.0));
    let may_begin = move || match asked.swap(true, Ordering::AcqRel) {
        true => Err(FileError::local("write", &to, late())),
        false => Ok(()),
    };
    let mut work = pin!(blocking(move || work(&may_begin)));
    match timeout_at(deadline, &mut work).await {
        Ok(done) => done,
        Err(_) if !decided.0.swap(true, Ordering::AcqRel) => {
            Err(FileError::local("write", destination, late()))
        }
        // The step was begun, and is short.
        Err(_) => work.await,
    }
}

/// The scripts for Windows by what they do, for the guest that plays one in tests.
#[cfg(test)]
pub(crate) const WINDOWS_SCRIPTS: [(&str, &str); 12] = [
    ("digest", checksum::DIGEST.windows),
    ("stat", list::STAT.windows),
    ("list", list::LIST.windows),
    ("prepare", push::PREPARE.windows),
    ("empty", push::EMPTY.windows),
    ("finish", push::FINISH.windows),
    ("remove", push::REMOVE.windows),
    ("prepare a folder", push::PREPARE_FOLDER.windows),
    ("extract", push::EXTRACT.windows),
    ("place", push::PLACE.windows),
    ("pack", pull_folder::PACK.windows),
    ("remove an archive", pull_folder::REMOVE.windows),
];

#[cfg(test)]
mod tests;
