//! What is still to be written to the socket.

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
    /// Bytes ever added, and ever taken by the socket.
    added: u64,
    written: u64,
    /// Whether the socket has taken bytes that it may still buffer, as TLS does.
    unflushed: bool,
}

impl Outbox {
    /// Adds a message. Returns the position of its end in all that was ever added, for [`is_sent`](Self::is_sent).
    pub(super) fn push(&mut self, header: Header, payload: &[u8]) -> u64 {
        let before = self.bytes.len();
        // Payloads are bounded where they are made.
        let result = self.codec.encode((header, payload), &mut self.bytes);
        debug_assert!(result.is_ok(), "{result:?}");
        self.added += (self.bytes.len() - before) as u64;
        self.added
    }

    /// Whether the socket has taken everything up to a position.
    pub(super) fn is_sent(&self, position: u64) -> bool {
        self.written >= position
    }

    /// Writes until everything is sent or the socket takes no more. All messages that wait are written at once.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut impl AsyncWrite>,
    ) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() {
            let count = ready!(io.as_mut().poll_write(cx, &self.bytes))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.bytes.advance(count);
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
