//! What is still to be written to the socket.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;
use tokio_util::codec::Encoder;

use crate::frame::{FrameCodec, Header};

/// A buffer that grew beyond this is freed once it is empty, bytes.
const KEEP: usize = 64 * 1024;

/// Messages on their way to the socket.
#[derive(Default)]
pub(super) struct Outbox {
    codec: FrameCodec,
    bytes: BytesMut,
    /// The lengths of the messages in it, where each has to be written by itself.
    lengths: Option<VecDeque<usize>>,
    /// Bytes ever added, and ever taken by the socket.
    added: u64,
    written: u64,
    /// Whether the socket has taken bytes that it may still buffer, as TLS does.
    unflushed: bool,
}

impl Outbox {
    /// An empty one. Each message is written by itself, if they are to be separate.
    pub(super) fn new(separate: bool) -> Self {
        Outbox { lengths: separate.then(VecDeque::new), ..Outbox::default() }
    }

    /// Adds a message. Returns the position of its end in all that was ever added, for [`is_sent`](Self::is_sent).
    pub(super) fn push(&mut self, header: Header, payload: &[u8]) -> u64 {
        let before = self.bytes.len();
        // Payloads are bounded where they are made.
        let result = self.codec.encode((header, payload), &mut self.bytes);
        debug_assert!(result.is_ok(), "{result:?}");
        let length = self.bytes.len() - before;
        if let Some(lengths) = &mut self.lengths {
            lengths.push_back(length);
        }
        self.added += length as u64;
        self.added
    }

    /// Whether the socket has taken everything up to a position.
    pub(super) fn is_sent(&self, position: u64) -> bool {
        self.written >= position
    }

    /// Writes until everything is sent or the socket takes no more. Unless messages are separate, all that wait are written at
    /// once.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut impl AsyncWrite>,
    ) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() {
            let first = self.lengths.as_ref().and_then(|lengths| lengths.front().copied());
            let count = first.unwrap_or(self.bytes.len()).min(self.bytes.len());
            let count = ready!(io.as_mut().poll_write(cx, &self.bytes[..count]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.bytes.advance(count);
            if let Some(lengths) = &mut self.lengths
                && let Some(length) = lengths.front_mut()
            {
                *length = length.saturating_sub(count);
                if *length == 0 {
                    lengths.pop_front();
                }
            }
            self.written += count as u64;
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(io.poll_flush(cx))?;
            self.unflushed = false;
            if self.bytes.capacity() > KEEP {
                self.bytes = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }
}
