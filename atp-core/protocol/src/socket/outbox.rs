//! The outgoing bytes of a link.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use tokio::sync::Notify;

/// The sending half of a socket, and the bytes it has not accepted yet.
///
/// A message is put in as a whole or not at all, so that a caller that leaves does not leave half of one. Bytes that
/// the socket accepts at once are sent by `put`; the rest is sent by the task that [drains](Self::drain) it. No message
/// is put in before the previous one is sent, so that a peer that does not read cannot make the buffer grow.
pub(super) struct Outbox {
    half: Mutex<Half>,
    /// Bytes are left to drain.
    filled: Notify,
    /// Nothing is left.
    emptied: Notify,
}

struct Half {
    /// None when the link has ended.
    writer: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    buffer: BytesMut,
}

impl Outbox {
    pub(super) fn new(writer: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        let half = Half { writer: Some(Box::new(writer)), buffer: BytesMut::new() };
        Outbox { half: Mutex::new(half), filled: Notify::new(), emptied: Notify::new() }
    }

    /// Puts a message in as soon as all earlier ones are sent. Cancel safe: a cancelled call has put in nothing.
    pub(super) async fn put(&self, parts: &[&[u8]]) {
        // If no caller waits when the buffer is emptied, the notification is stored for the next one.
        while !self.try_put(parts) {
            self.emptied.notified().await;
        }
    }

    fn try_put(&self, parts: &[&[u8]]) -> bool {
        let mut half = self.half.lock();
        if !half.buffer.is_empty() {
            return false;
        }
        for part in parts {
            half.buffer.extend_from_slice(part);
        }
        // The draining task polls the socket again, with its own waker, and gets the error if there is one.
        let written = half.poll_write(&mut Context::from_waker(Waker::noop()));
        if matches!(written, Poll::Ready(Ok(()))) {
            self.emptied.notify_one();
        } else {
            self.filled.notify_one();
        }
        true
    }

    /// Sends the remaining bytes, without end. Returns the error that ends it.
    pub(super) async fn drain(&self) -> io::Error {
        loop {
            let written = poll_fn(|context| self.half.lock().poll_write(context)).await;
            if let Err(error) = written {
                return error;
            }
            self.emptied.notify_one();
            self.filled.notified().await;
        }
    }

    /// Closes the sending half. Messages that are put in later are dropped.
    pub(super) fn close(&self) {
        let mut half = self.half.lock();
        half.buffer = BytesMut::new();
        let writer = half.writer.take();
        drop(half);
        drop(writer);
        self.emptied.notify_one();
    }
}

impl Half {
    /// Ready when nothing is left.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(writer) = &mut self.writer else {
            self.buffer.clear();
            return Poll::Ready(Ok(()));
        };
        while !self.buffer.is_empty() {
            let written = ready!(Pin::new(&mut *writer).poll_write(context, &self.buffer))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.buffer.advance(written);
        }
        Pin::new(writer).poll_flush(context)
    }
}
