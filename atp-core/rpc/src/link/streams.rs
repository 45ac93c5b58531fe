//! Streams: data in both directions under the serial of the call that opened them.
//!
//! There is no window on the wire. Down, the task always reads, up to a limit for each stream; a stream over it is
//! aborted, because it would hold up every reply and ping of the connection. Up, each chunk takes a slot until the
//! daemon has answered a ping that was sent after it: it then still reads the connection. That what is behind the
//! stream has taken the chunk is not said by anything but the end of the stream.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{Command, Link, Slot, Token};
use crate::error::{LinkEnd, StreamError};
use crate::frame::MAX_CHUNK;
use crate::numbers::{Procedure, Status};

/// A stream's procedure and serial.
pub(super) type StreamKey = (Procedure, u32);

type Chunk = Result<Bytes, StreamError>;

/// Receives how a stream has ended.
pub(super) type Done = oneshot::Sender<Result<(), StreamError>>;

/// What a handle gets of a stream that was opened.
pub(super) struct Opened {
    key: StreamKey,
    chunks: mpsc::UnboundedReceiver<Chunk>,
    /// Bytes that wait to be taken.
    waiting: Arc<AtomicUsize>,
}

/// An open stream. Dropping it aborts it, without waiting for that. It keeps the connection open.
pub struct Stream {
    link: Link,
    opened: Opened,
    over: bool,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("procedure", &self.opened.key.0).finish_non_exhaustive()
    }
}

impl Stream {
    pub(super) fn new(link: Link, opened: Opened) -> Self {
        Stream { link, opened, over: false }
    }

    /// The next piece of data; none at the end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The stream was aborted, or the connection has ended. After an error comes the end.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, StreamError> {
        match self.opened.chunks.recv().await.transpose()? {
            Some(chunk) => {
                self.opened.waiting.fetch_sub(chunk.len(), Ordering::Relaxed);
                Ok(Some(chunk))
            }
            None => Ok(None),
        }
    }

    /// Sends data, in as many pieces as it takes. Waits while the daemon does not read; returns when the last piece is
    /// on its way.
    ///
    /// The daemon reads on while up to four pieces wait for a guest that does not take them. At the fifth it stops
    /// reading the connection, and closes it in the end: give such a stream a connection of its own.
    ///
    /// When the future is dropped, some of the pieces may have been sent.
    ///
    /// # Errors
    /// The connection has ended. That the daemon has aborted the stream shows in [`recv`](Self::recv) and
    /// [`finish`](Self::finish).
    pub async fn send(&self, bytes: Bytes) -> Result<(), StreamError> {
        send(&self.link, self.opened.key, bytes).await
    }

    /// A handle that sends while another task receives.
    pub fn sender(&self) -> StreamSender {
        StreamSender { link: self.link.clone(), key: self.opened.key }
    }

    /// Ends the stream: returns when the daemon has everything that was sent. Data that still comes is dropped.
    ///
    /// When the future is dropped the stream is aborted, or was finished.
    ///
    /// # Errors
    /// The daemon aborted the stream, or the connection has ended.
    pub async fn finish(self) -> Result<(), StreamError> {
        self.end(Status::Ok).await
    }

    /// Aborts the stream: returns when the daemon has confirmed it.
    ///
    /// # Errors
    /// The stream was over already, with an error, or the connection has ended.
    pub async fn abort(self) -> Result<(), StreamError> {
        self.end(Status::Error).await
    }

    async fn end(mut self, status: Status) -> Result<(), StreamError> {
        let slot = slot(&self.link).await?;
        let (done, ended) = oneshot::channel();
        self.link.tell(Command::EndStream { key: self.opened.key, status, slot, done: Some(done) });
        let lost = |link: &Link| StreamError::Lost(link.end());
        let result = ended.await.unwrap_or_else(|_| Err(lost(&self.link)));
        self.over = true;
        // An earlier error is more specific than the confirmation.
        while let Ok(chunk) = self.opened.chunks.try_recv() {
            chunk?;
        }
        result
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.over {
            self.link.tell(Command::DropStream { key: self.opened.key });
        }
    }
}

/// Sends on a stream that another task receives from. It keeps the connection open, and not the stream: what is sent
/// after the stream has ended goes nowhere.
#[derive(Clone)]
pub struct StreamSender {
    link: Link,
    key: StreamKey,
}

impl fmt::Debug for StreamSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSender").field("procedure", &self.key.0).finish_non_exhaustive()
    }
}

impl StreamSender {
    /// As [`Stream::send`].
    ///
    /// # Errors
    /// As of [`Stream::send`].
    pub async fn send(&self, bytes: Bytes) -> Result<(), StreamError> {
        send(&self.link, self.key, bytes).await
    }
}

async fn send(link: &Link, key: StreamKey, mut bytes: Bytes) -> Result<(), StreamError> {
    while !bytes.is_empty() {
        let slot = slot(link).await?;
        let chunk = bytes.split_to(bytes.len().min(MAX_CHUNK));
        link.tell(Command::Chunk { key, bytes: chunk, slot });
    }
    Ok(())
}

async fn slot(link: &Link) -> Result<Slot, StreamError> {
    let slot = link.slots.clone().acquire_owned().await;
    slot.map_err(|_| StreamError::Lost(link.end()))
}

/// A stream as the task knows it.
struct Entry {
    /// None at the end of the data.
    chunks: Option<mpsc::UnboundedSender<Chunk>>,
    waiting: Arc<AtomicUsize>,
    limit: usize,
    /// The end was sent, and the confirmation is waited for.
    ending: Option<(Slot, Option<Done>)>,
    _token: Option<Token>,
}

impl Entry {
    /// Reports the error to the reader, and ends its data.
    fn fail(&mut self, error: StreamError) {
        if let Some(chunks) = self.chunks.take() {
            // Fails when the handle was dropped.
            let _unread = chunks.send(Err(error));
        }
    }
}

/// The open streams of a link.
#[derive(Default)]
pub(super) struct Streams {
    open: HashMap<StreamKey, Entry>,
}

/// What the task is to do after a message of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum After {
    Nothing,
    /// The stream has overrun.
    Abort,
}

impl Streams {
    pub(super) fn open(&mut self, key: StreamKey, limit: usize, token: Option<Token>) -> Opened {
        let (sender, chunks) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let entry =
            Entry { chunks: Some(sender), waiting: waiting.clone(), limit, ending: None, _token: token };
        self.open.insert(key, entry);
        Opened { key, chunks, waiting }
    }

    pub(super) fn contains(&self, key: StreamKey) -> bool {
        self.open.contains_key(&key)
    }

    pub(super) fn uses(&self, serial: u32) -> bool {
        self.open.keys().any(|(_, used)| *used == serial)
    }

    /// The key of the stream that a message belongs to.
    pub(super) fn find(
        &self,
        program: crate::numbers::Program,
        procedure: i32,
        serial: u32,
    ) -> Option<StreamKey> {
        let belongs =
            |(of, number): &&StreamKey| (of.program, of.number, *number) == (program, procedure, serial);
        self.open.keys().find(belongs).copied()
    }

    /// Data from the daemon. None of it is its end.
    pub(super) fn data(&mut self, key: StreamKey, payload: Bytes) -> After {
        let Some(entry) = self.open.get_mut(&key) else { return After::Nothing };
        if payload.is_empty() {
            entry.chunks = None;
            return After::Nothing;
        }
        let Some(chunks) = &entry.chunks else { return After::Nothing };
        let waiting = entry.waiting.load(Ordering::Relaxed) + payload.len();
        if waiting > entry.limit {
            entry.fail(StreamError::Overrun { limit: entry.limit });
            return After::Abort;
        }
        entry.waiting.fetch_add(payload.len(), Ordering::Relaxed);
        // Fails when the handle is gone; the command that says so is on its way.
        let _unread = chunks.send(Ok(payload));
        After::Nothing
    }

    /// The daemon ends the stream, by itself or as confirmation.
    pub(super) fn ended(&mut self, key: StreamKey, error: Option<StreamError>) {
        let Some(mut entry) = self.open.remove(&key) else { return };
        let ending = entry.ending.take();
        if let Some(error) = &error {
            entry.fail(error.clone());
        }
        // Nothing of the stream is left when its end is told.
        drop(entry);
        if let Some((slot, Some(done))) = ending {
            drop(slot);
            // Fails when the future was dropped.
            let _unheard = done.send(error.map_or(Ok(()), Err));
        }
    }

    /// The stream is to be ended. Returns whether a message has to say so.
    pub(super) fn end(&mut self, key: StreamKey, slot: Slot, done: Option<Done>) -> bool {
        match self.open.get_mut(&key) {
            Some(entry) if entry.ending.is_none() => {
                entry.chunks = None;
                entry.ending = Some((slot, done));
                true
            }
            // The daemon has ended it. If by an error, the reader has it.
            _ => {
                if let Some(done) = done {
                    let _unheard = done.send(Ok(()));
                }
                false
            }
        }
    }

    /// The handle was dropped. Returns whether the stream is still to be aborted.
    pub(super) fn unwanted(&mut self, key: StreamKey) -> bool {
        self.open.get_mut(&key).is_some_and(|entry| {
            entry.chunks = None;
            entry.ending.is_none()
        })
    }

    /// The link has ended.
    pub(super) fn fail_all(&mut self, end: &Arc<LinkEnd>) {
        for (_, mut entry) in self.open.drain() {
            let error = StreamError::Lost(end.clone());
            if let Some((_slot, Some(done))) = entry.ending.take() {
                let _unheard = done.send(Err(error.clone()));
            }
            entry.fail(error);
        }
    }
}
