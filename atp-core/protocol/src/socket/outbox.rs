//! What is on its way out.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use tokio::sync::Notify;

/// The sending half of a socket, and what it has not taken yet.
///
/// A message is put in whole or not at all, so that a caller who gives up leaves no half of one. What the socket
/// takes at once is sent from where the message is put in; the rest is sent by whoever [drains](Self::drain)
/// it. No message is put in before the one before it is out, so that a peer that does not read cannot make it grow.
pub(super) struct Outbox {
    half: Mutex<Half>,
    /// Something is left to be drained.
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

    /// Puts a message in, as soon as all before it is out. Cancel safe: nothing of it was put in then.
    pub(super) async fn put(&self, parts: &[&[u8]]) {
        // Whoever empties it while nobody waits leaves word for the next one who does.
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
        // Whoever drains asks the socket again, with a waker of its own, and meets the error if there is one.
        let written = half.poll_write(&mut Context::from_waker(Waker::noop()));
        if matches!(written, Poll::Ready(Ok(()))) {
            self.emptied.notify_one();
        } else {
            self.filled.notify_one();
        }
        true
    }

    /// Sends what was left, for ever; returns the error that ends it.
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

    /// Closes the sending half. What is put in from now on is thrown away.
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
