//! A file that the agent has open, read or written in chunks (`guest-file-open`, `-read`, `-write`, `-seek`, `-close`).
//!
//! A handle belongs to the agent, not to a connection. When a command fails, or its future is dropped, the agent's
//! position in the file is unknown: the handle is then closed before anything else, and the file is opened again at the
//! known offset.

use qapi::qga::{
    GuestFileWhence, QGASeek, guest_file_close, guest_file_open, guest_file_read, guest_file_seek,
    guest_file_write,
};
use tokio::time::Instant;

use crate::agent;
use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};
use crate::peer::Peer;
use crate::refusal::RefusalKind;

/// The bytes that a command needs besides its data.
const WRITE_OVERHEAD: usize = 128;

/// Bytes read from a file.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) bytes: Vec<u8>,
    /// Whether the file ended with these bytes.
    pub(crate) end: bool,
}

/// A file in the guest that is read from an offset.
#[derive(Debug)]
pub(crate) struct Reader {
    path: String,
    offset: u64,
    handle: Handle,
}

/// A file in the guest to which bytes are appended.
#[derive(Debug)]
pub(crate) struct Writer {
    path: String,
    handle: Handle,
}

#[derive(Debug, Default)]
struct Handle {
    number: Option<i64>,
    /// Whether a command on it is under way, or failed.
    unsure: bool,
}

impl Handle {
    /// Returns the handle for one command. The caller calls [`settled`](Self::settled) after success.
    async fn take(
        &mut self,
        carrier: &impl Carrier,
        open: impl FnOnce() -> guest_file_open,
        offset: u64,
        deadline: Instant,
    ) -> Result<i64> {
        if self.unsure {
            self.close(carrier, deadline).await?;
        }
        if let Some(number) = self.number {
            self.unsure = true;
            return Ok(number);
        }
        let number = agent::execute(carrier, &open(), deadline).await?;
        (self.number, self.unsure) = (Some(number), true);
        if offset > 0 {
            let offset = i64::try_from(offset).unwrap_or(i64::MAX);
            let seek =
                guest_file_seek { handle: number, offset, whence: GuestFileWhence::name(QGASeek::set) };
            agent::execute(carrier, &seek, deadline).await?;
        }
        Ok(number)
    }

    fn settled(&mut self) {
        self.unsure = false;
    }

    /// Closes it, if it is open. If the agent does not know the handle, the agent was restarted, which closed the file.
    async fn close(&mut self, carrier: &impl Carrier, deadline: Instant) -> Result<()> {
        let Some(handle) = self.number else { return Ok(()) };
        let was_unsure = std::mem::replace(&mut self.unsure, true);
        let closed = agent::execute(carrier, &guest_file_close { handle }, deadline).await;
        // A frozen guest refuses nearly all commands, so its refusal does not mean that the file is closed.
        let is_closed = match &closed {
            Ok(_) => true,
            Err(ProtocolError::Refused(refusal)) => refusal.kind == RefusalKind::Guest,
            Err(_) => false,
        };
        if !is_closed {
            return closed.map(drop);
        }
        *self = Handle::default();
        // A failure of an earlier write may only be reported here.
        if was_unsure { Ok(()) } else { closed.map(drop) }
    }
}

impl Reader {
    pub(crate) fn new(path: String, offset: u64) -> Self {
        Reader { path, offset, handle: Handle::default() }
    }

    /// The position, bytes from the start of the file.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads at most `count` bytes, and at least one: an empty read would look like the end of the file. After an
    /// error, and after the future was dropped, it can be called again.
    pub(crate) async fn read(
        &mut self,
        carrier: &impl Carrier,
        count: usize,
        deadline: Instant,
    ) -> Result<Chunk> {
        let open = || guest_file_open { path: self.path.clone(), mode: Some("r".to_owned()) };
        let handle = self.handle.take(carrier, open, self.offset, deadline).await?;
        let count = i64::try_from(count).unwrap_or(i64::MAX).max(1);
        let read = agent::execute(carrier, &guest_file_read { handle, count: Some(count) }, deadline).await?;
        if read.buf_b64.len() as u64 > count.unsigned_abs() {
            let detail = format!("it has {} bytes, and at most {count} were asked for", read.buf_b64.len());
            return Err(ProtocolError::invalid_answer("guest-file-read", detail));
        }
        self.handle.settled();
        self.offset += read.buf_b64.len() as u64;
        let end = read.eof || read.buf_b64.is_empty();
        Ok(Chunk { bytes: read.buf_b64, end })
    }

    /// Closes the file in the guest, if it is open there.
    pub(crate) async fn close(&mut self, carrier: &impl Carrier, deadline: Instant) -> Result<()> {
        self.handle.close(carrier, deadline).await
    }
}

impl Writer {
    pub(crate) fn new(path: String) -> Self {
        Writer { path, handle: Handle::default() }
    }

    /// Appends bytes to the file. After an error it is not known how many of them were written: the caller has to check
    /// before it continues.
    pub(crate) async fn append(
        &mut self,
        carrier: &impl Carrier,
        mut bytes: Vec<u8>,
        deadline: Instant,
    ) -> Result<()> {
        let open = || guest_file_open { path: self.path.clone(), mode: Some("a".to_owned()) };
        let handle = self.handle.take(carrier, open, 0, deadline).await?;
        while !bytes.is_empty() {
            let command = guest_file_write { handle, buf_b64: bytes, count: None };
            let written = agent::execute(carrier, &command, deadline).await?.count;
            bytes = command.buf_b64;
            let written = usize::try_from(written).ok().filter(|written| (1..=bytes.len()).contains(written));
            let Some(written) = written else {
                let detail = format!("it does not say how many of {} bytes were written", bytes.len());
                return Err(ProtocolError::invalid_answer("guest-file-write", detail));
            };
            bytes.drain(..written);
        }
        self.handle.settled();
        Ok(())
    }

    /// Closes the file in the guest, if it is open there. Only a successful close confirms that all bytes were written.
    pub(crate) async fn close(&mut self, carrier: &impl Carrier, deadline: Instant) -> Result<()> {
        self.handle.close(carrier, deadline).await
    }
}

/// The number of data bytes in one write: `chunk`, or less if the carrier's limit is lower. They are sent as base64, a
/// third longer.
pub(crate) fn write_size(carrier: &impl Carrier, chunk: usize) -> usize {
    let room = carrier.command_max(Peer::Agent).saturating_sub(WRITE_OVERHEAD) / 4 * 3;
    chunk.min(room).max(1)
}
