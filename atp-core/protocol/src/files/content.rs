//! The content of a file in the guest, in memory.

use tokio::time::Instant;

use super::TransferPolicy;
use super::handle::{Chunk, Reader};
use super::list::{FileKind, stat};
use crate::carrier::Carrier;
use crate::error::{FileError, Result};

/// Returns the content of a regular file in the guest, of at most `limit` bytes. Symbolic links are followed.
///
/// # Errors
/// As [`stat`], [`FileError::IsDirectory`] and [`FileError::NotRegular`], [`FileError::TooLarge`] for a longer file, and every error
/// of the agent's file commands. The effect of these errors is irrelevant: this only reads.
///
/// Dropping the future leaves the file open in the guest until the agent restarts.
pub async fn read(carrier: &impl Carrier, path: &str, limit: u64, deadline: Instant) -> Result<Vec<u8>> {
    let policy = TransferPolicy::default();
    let work_deadline = policy.before(deadline);
    let info = stat(carrier, path, work_deadline).await?;
    let too_large = || FileError::TooLarge { path: path.to_owned(), limit };
    match info.kind {
        FileKind::File if info.size > limit => return Err(too_large().into()),
        FileKind::File => {}
        FileKind::Directory => return Err(FileError::IsDirectory { path: path.to_owned() }.into()),
        // The agent would wait for the other end of a pipe.
        _ => return Err(FileError::NotRegular { path: path.to_owned() }.into()),
    }
    let mut reader = Reader::new(path.to_owned(), 0);
    let mut content = Vec::new();
    let read = loop {
        // It may have grown; and files of the kernel, as in /proc, have size 0 and yet content.
        let Chunk { bytes, end } = match reader.read(carrier, policy.chunk, work_deadline).await {
            Ok(chunk) => chunk,
            Err(error) => break Err(error),
        };
        content.extend(bytes);
        if content.len() as u64 > limit {
            break Err(too_large().into());
        }
        if end {
            break Ok(());
        }
    };
    let closed = reader.close(carrier, deadline).await;
    read.and(closed).map(|()| content)
}
