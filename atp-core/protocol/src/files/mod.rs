//! Files in the guest: looked at, listed, and carried both ways.
//!
//! Bytes go through the agent's file commands, in chunks. What these cannot do, sizes, modes, digests and renaming,
//! is asked of the guest's shell: a POSIX `sh` with `stat`, `head` and `mv` has to be there.
//!
//! A transfer is atomic: it goes to a partial file beside its destination, and takes that one's name when its SHA-256
//! is that of the original. One that stops goes on where it stopped, also in another process: [`Push::run`] and
//! [`Pull::run`] look at the partial file first.

mod checksum;
mod durable;
mod handle;
mod list;
mod partial;
mod pull;
mod push;
mod script;

use std::time::Duration;

use tokio::time::Instant;

pub use crate::digest::{Digest, InvalidDigest};
pub use crate::error::FileError;
pub use durable::write_in_place;
pub(crate) use handle::{Chunk, Reader};
pub use list::{Entry, FileInfo, FileKind, list, stat};
pub use pull::{Pull, Pulled};
pub use push::{Push, Pushed, Source};

use crate::error::Result;
use crate::reserve::keep_back;

/// How files are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferPolicy {
    /// Most bytes carried at once; 1 MiB by default, and less where the carrier does not take as much. Much larger
    /// reads can break the agent's channel.
    pub chunk: usize,
    /// Time kept back before the deadline for closing files in the guest; 1 s by default, and never more than a
    /// quarter of what is left.
    pub reserve: Duration,
}

impl Default for TransferPolicy {
    fn default() -> Self {
        TransferPolicy { chunk: 1 << 20, reserve: Duration::from_secs(1) }
    }
}

impl TransferPolicy {
    /// When work has to end, for what comes after it to end by `deadline`.
    pub fn before(&self, deadline: Instant) -> Instant {
        keep_back(self.reserve, deadline)
    }
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are over, those of an earlier run included.
    pub done: u64,
    /// Bytes there are in all.
    pub total: u64,
}

/// Work on files here, off the threads that carry async work.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down, and nobody will look at this.
            Err(error) => Err(FileError::local("wait for work on", "", std::io::Error::other(error))),
        },
    }
}

#[cfg(test)]
mod tests;
