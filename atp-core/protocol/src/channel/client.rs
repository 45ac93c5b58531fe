//! Sends requests to a program in the guest and matches its answers by id.
//!
//! A request is a JSON object with an `id`, which the answer has too. All other content is defined by the caller and
//! the program. A message without a known `id` is the program's own. The channel is opened for the first request, and
//! again for the first request after it was lost. A request is never sent twice.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use atp_api::OutcomeError;
use atp_transport::Effect;
use bytes::BytesMut;
use futures_util::StreamExt;
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{self, Instant};
use tokio_util::codec::{Encoder, FramedRead};
use tokio_util::task::AbortOnDropHandle;

use super::codec::{FrameCodec, FrameError};

/// The settings of a client of a channel.
#[derive(Debug, Clone)]
pub struct ChannelClientOptions {
    /// How bytes are split into messages; by default lines of at most 1 MiB.
    pub codec: FrameCodec,
    /// The most requests that may wait to be sent or answered; at most 65,536. Default 256.
    pub max_pending: usize,
    /// The longest time for the guest to read one message; after that the channel counts as lost. Default 10 s.
    pub write_timeout: Duration,
    /// The number of the program's own messages that are kept for a listener; older ones are dropped. At most 65,536,
    /// default 256.
    pub message_buffer: usize,
}

impl ChannelClientOptions {
    /// The buffer for messages is allocated in advance, so its size is limited.
    const MOST_KEPT: usize = 1 << 16;
}

impl Default for ChannelClientOptions {
    fn default() -> Self {
        ChannelClientOptions {
            codec: FrameCodec::lines(1 << 20),
            max_pending: 256,
            write_timeout: Duration::from_secs(10),
            message_buffer: 256,
        }
    }
}

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelRequestError {
    /// The channel could not be opened. Nothing was sent.
    #[error("the channel cannot be opened: {reason}")]
    Open {
        /// Why.
        reason: String,
    },
    /// The request is not a valid frame. Nothing was sent.
    #[error("the request cannot be sent: {reason}")]
    Invalid {
        /// Why.
        reason: String,
    },
    /// Too many requests wait. Nothing was sent.
    #[error("{limit} requests already wait for the guest")]
    Busy {
        /// The limit.
        limit: usize,
    },
    /// The channel was lost before the answer arrived.
    #[error("the channel was lost before the answer arrived: {reason}")]
    Lost {
        /// Why.
        reason: String,
    },
    /// No answer by the deadline. A later answer is dropped.
    #[error("no answer from the guest by the deadline")]
    Timeout,
}

impl ChannelRequestError {
    /// Whether the program may have received the request.
    pub fn effect(&self) -> Effect {
        match self {
            ChannelRequestError::Open { .. }
            | ChannelRequestError::Invalid { .. }
            | ChannelRequestError::Busy { .. } => Effect::None,
            ChannelRequestError::Lost { .. } | ChannelRequestError::Timeout => Effect::Unknown,
        }
    }
}

type Answer = Result<Map<String, Value>, ChannelRequestError>;

struct Request {
    id: u64,
    frame: Vec<u8>,
    deadline: Instant,
    answer: oneshot::Sender<Answer>,
}

/// Sends requests to a program in the guest. Dropping it closes the channel.
pub struct ChannelClient {
    requests: mpsc::Sender<Request>,
    messages: broadcast::Sender<Map<String, Value>>,
    max_pending: usize,
    next_id: AtomicU64,
    _actor: AbortOnDropHandle<()>,
}

impl ChannelClient {
    /// Creates a client of the channel that `open` opens. It is not opened before the first request.
    ///
    /// Must be called within a tokio runtime.
    pub fn new<S, F, Fut>(open: F, mut options: ChannelClientOptions) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<S>> + Send + 'static,
    {
        let within = |number: usize| number.clamp(1, ChannelClientOptions::MOST_KEPT);
        let max_pending = within(options.max_pending);
        options.max_pending = max_pending;
        let (requests, received) = mpsc::channel(max_pending);
        let (messages, _) = broadcast::channel(within(options.message_buffer));
        let actor = Actor { open, options, received, messages: messages.clone() };
        let _actor = AbortOnDropHandle::new(tokio::spawn(actor.run()));
        ChannelClient { requests, messages, max_pending, next_id: AtomicU64::new(1), _actor }
    }

    /// Sends a request with a new `id`, and waits for the answer with that `id`.
    ///
    /// # Errors
    /// Why there is no answer; [`effect`](ChannelRequestError::effect) says whether the request may have arrived.
    ///
    /// Dropping the future stops the wait. The request may have been sent.
    pub async fn request(&self, mut body: Map<String, Value>, deadline: Instant) -> Answer {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        body.insert("id".to_owned(), id.into());
        let frame = serde_json::to_vec(&body)
            .map_err(|error| ChannelRequestError::Invalid { reason: error.to_string() })?;
        let (answer, answered) = oneshot::channel();
        let request = Request { id, frame, deadline, answer };
        self.requests.try_send(request).map_err(|_| ChannelRequestError::Busy { limit: self.max_pending })?;
        match time::timeout_at(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ChannelRequestError::Lost { reason: "its client has ended".to_owned() }),
            Err(_) => Err(ChannelRequestError::Timeout),
        }
    }

    /// The messages that the program sends on its own, from now on. A listener that is too slow gets the number of lost
    /// messages.
    pub fn messages(&self) -> broadcast::Receiver<Map<String, Value>> {
        self.messages.subscribe()
    }
}

/// Owns the channel and the requests that wait.
struct Actor<F> {
    open: F,
    options: ChannelClientOptions,
    received: mpsc::Receiver<Request>,
    messages: broadcast::Sender<Map<String, Value>>,
}

/// The requests that were sent, or are being sent, by id.
type Pending = HashMap<u64, oneshot::Sender<Answer>>;

impl<S, F, Fut> Actor<F>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = io::Result<S>> + Send,
{
    async fn run(mut self) {
        while let Some(first) = self.received.recv().await {
            if first.answer.is_closed() {
                continue;
            }
            let opened = match time::timeout_at(first.deadline, (self.open)()).await {
                Ok(Ok(stream)) => stream,
                failed => {
                    let reason = match failed {
                        Ok(Err(error)) => OutcomeError::in_full(&error),
                        _ => "not open by the deadline".to_owned(),
                    };
                    // An error means that the caller has left.
                    let _left = first.answer.send(Err(ChannelRequestError::Open { reason }));
                    continue;
                }
            };
            let mut pending = Pending::new();
            let lost = self.serve(opened, first, &mut pending).await;
            for (_, answer) in pending.drain() {
                let _left = answer.send(Err(ChannelRequestError::Lost { reason: lost.to_string() }));
            }
        }
    }

    /// Serves requests over one open channel until it is lost.
    async fn serve(&mut self, stream: S, first: Request, pending: &mut Pending) -> FrameError {
        let (read, write) = tokio::io::split(stream);
        let mut frames = FramedRead::new(read, self.options.codec.clone());
        let (to_write, queue) = mpsc::channel(self.options.max_pending);
        let writer = write_all(write, queue, self.options.write_timeout);
        tokio::pin!(writer);
        self.send(first, pending, &to_write);
        loop {
            tokio::select! {
                frame = frames.next() => match frame {
                    Some(Ok(frame)) => self.dispatch(&frame, pending),
                    Some(Err(error)) => return error,
                    None => return closed(),
                },
                error = &mut writer => return error,
                request = self.received.recv() => match request {
                    Some(request) => self.send(request, pending, &to_write),
                    // The client was dropped, and this task with it.
                    None => return closed(),
                },
            }
        }
    }

    fn send(&self, request: Request, pending: &mut Pending, to_write: &mpsc::Sender<BytesMut>) {
        // Callers that have left do not count.
        pending.retain(|_, answer| !answer.is_closed());
        let limit = self.options.max_pending;
        let mut frame = BytesMut::new();
        let refused = if pending.len() >= limit {
            Some(ChannelRequestError::Busy { limit })
        } else if let Err(error) = self.options.codec.clone().encode(&request.frame, &mut frame) {
            Some(ChannelRequestError::Invalid { reason: error.to_string() })
        } else if to_write.try_send(frame).is_err() {
            Some(ChannelRequestError::Busy { limit })
        } else {
            None
        };
        match refused {
            Some(error) => {
                let _left = request.answer.send(Err(error));
            }
            None => {
                pending.insert(request.id, request.answer);
            }
        }
    }

    fn dispatch(&self, frame: &[u8], pending: &mut Pending) {
        let Ok(Value::Object(message)) = serde_json::from_slice(frame) else {
            tracing::debug!(bytes = frame.len(), "a guest sent a message that is not a JSON object");
            return;
        };
        match message.get("id").map(Value::as_u64) {
            // An answer. Its caller may have left.
            Some(Some(id)) => {
                if let Some(answer) = pending.remove(&id) {
                    let _left = answer.send(Ok(message));
                }
            }
            Some(None) | None => {
                // An error means that there is no listener.
                let _unheard = self.messages.send(message);
            }
        }
    }
}

/// Writes frames until a write fails or takes too long: a frame that the guest does not read blocks all later ones.
async fn write_all<S: AsyncWrite>(
    mut stream: WriteHalf<S>,
    mut queue: mpsc::Receiver<BytesMut>,
    longest: Duration,
) -> FrameError {
    while let Some(frame) = queue.recv().await {
        let written = async {
            stream.write_all(&frame).await?;
            stream.flush().await
        };
        match time::timeout(longest, written).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => {
                return io::Error::new(io::ErrorKind::TimedOut, "the guest does not read").into();
            }
        }
    }
    closed()
}

fn closed() -> FrameError {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it was closed").into()
}

#[cfg(test)]
mod tests;
