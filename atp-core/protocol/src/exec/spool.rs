//! Output that is too large for one reply: written to files in the guest, and read from there in chunks.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::ExecOutput;
use crate::carrier::Carrier;
use crate::error::Result;
use crate::files::{Chunk, Reader};
use crate::reserve::{after, keep_back};
use crate::shell;
use crate::windows;

/// How output that went through files is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolPolicy {
    /// The most bytes per read; 1 MiB by default. Much larger reads can break the agent's channel.
    pub chunk: usize,
    /// The most bytes fetched per stream; 256 MiB by default. The rest is cut off, and the output is marked as
    /// truncated.
    pub most: u64,
    /// The time reserved before the deadline for removing the files; 2 s by default, and at most a quarter of the time
    /// left.
    pub reserve: Duration,
}

impl Default for SpoolPolicy {
    fn default() -> Self {
        SpoolPolicy { chunk: 1 << 20, most: 256 << 20, reserve: Duration::from_secs(2) }
    }
}

impl SpoolPolicy {
    /// The time at which work has to end so that the cleanup after it ends by `deadline`.
    pub(super) fn before(&self, deadline: Instant) -> Instant {
        keep_back(self.reserve, deadline)
    }
}

/// Removes a folder and its contents.
const REMOVE: &str = r#"rm -rf "$1""#;

/// The same on Windows.
pub(super) const WINDOWS_REMOVE: &str =
    "if([IO.Directory]::Exists($a[0])){[IO.Directory]::Delete($a[0],$true)}";

/// The files of one process's output.
#[derive(Debug)]
pub(super) struct Spool {
    folder: String,
    stdout: Stream,
    stderr: Stream,
    removed: bool,
}

#[derive(Debug)]
struct Stream {
    reader: Reader,
    bytes: Vec<u8>,
    complete: bool,
    truncated: bool,
}

impl Spool {
    /// Creates a folder name of its own below this one.
    pub(super) fn new(below: &str) -> Self {
        let separator = if windows::is_path(below) { '\\' } else { '/' };
        let below = below.trim_end_matches(['/', separator]);
        let folder = format!("{below}{separator}.atp-exec-{}", Uuid::new_v4().simple());
        let stream = |name: &str| Stream {
            reader: Reader::new(format!("{folder}{separator}{name}"), 0),
            bytes: Vec::new(),
            complete: false,
            truncated: false,
        };
        Spool { stdout: stream("out"), stderr: stream("err"), folder, removed: false }
    }

    pub(super) fn folder(&self) -> &str {
        &self.folder
    }

    /// Fetches the bytes that are still missing.
    pub(super) async fn fetch(
        &mut self,
        carrier: &impl Carrier,
        policy: &SpoolPolicy,
        deadline: Instant,
    ) -> Result<()> {
        for stream in [&mut self.stdout, &mut self.stderr] {
            while !stream.complete {
                let left = policy.most.saturating_sub(stream.reader.offset());
                // One byte more shows whether the file is longer.
                let count = usize::try_from(left.saturating_add(1)).unwrap_or(usize::MAX).min(policy.chunk);
                let Chunk { mut bytes, end } = stream.reader.read(carrier, count, deadline).await?;
                stream.truncated = bytes.len() as u64 > left;
                stream.complete = end || stream.truncated;
                if stream.truncated {
                    bytes.pop();
                }
                stream.bytes.append(&mut bytes);
            }
        }
        Ok(())
    }

    /// Moves the fetched bytes to the output.
    pub(super) fn take(&mut self, output: &mut ExecOutput) {
        output.stdout = std::mem::take(&mut self.stdout.bytes);
        output.stderr = std::mem::take(&mut self.stderr.bytes);
        (output.stdout_truncated, output.stderr_truncated) = (self.stdout.truncated, self.stderr.truncated);
    }

    /// Closes and removes the files, once. A failure only leaves files in the guest: the outcome is decided by then.
    pub(super) async fn remove(&mut self, carrier: &impl Carrier, policy: &SpoolPolicy, deadline: Instant) {
        if self.removed {
            return;
        }
        // Bounds the wait for a guest that cannot be reached.
        let deadline = deadline.min(after(policy.reserve));
        for stream in [&mut self.stdout, &mut self.stderr] {
            let _ = stream.reader.close(carrier, deadline).await;
        }
        let removed = if windows::is_path(&self.folder) {
            shell::run_on_windows(carrier, WINDOWS_REMOVE, &[&self.folder], deadline).await
        } else {
            shell::run(carrier, REMOVE, &[&self.folder], deadline).await
        };
        self.removed = removed.is_ok_and(|output| output.success());
        if !self.removed {
            tracing::warn!(folder = self.folder, "the files with a program's output stay in the guest");
        }
    }
}
