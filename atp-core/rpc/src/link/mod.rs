//! The link: one task that owns a socket, and the handles to it.
//!
//! A handle turns a call into a command to the task. The task gives it a serial, writes it, and keeps an entry for it
//! until the reply comes or the link ends, whether the caller still waits or not: the daemon works on it as long.
//!
//! The daemon stops reading a connection, keepalive included, while `max_client_requests` (5 by default) of its
//! messages are not answered. So everything that counts there takes one of the link's slots, and gives it back only
//! when the daemon has shown that it is done with it.

mod driver;
mod events;
mod keepalive;
mod outbox;
mod streams;

use std::any::Any;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::dial::Stderr;
use crate::error::{CallError, EndReason, LinkEnd};
use crate::numbers::{Procedure, Status};
use crate::xdr::{self, ToXdr};

pub use events::{EventItem, Events};
pub use keepalive::Keepalive;
pub use streams::{Stream, StreamSender};

pub(crate) use events::EventQueue;
use streams::{Done, Opened, StreamKey};

/// Lives as long as a call is under way at the daemon. It is only dropped.
pub(crate) type Token = Arc<dyn Any + Send + Sync>;

/// A place among the messages that the daemon has not answered yet.
type Slot = OwnedSemaphorePermit;

/// A handle to a link. The link ends when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Link {
    commands: mpsc::UnboundedSender<Command>,
    slots: Arc<Semaphore>,
    state: watch::Receiver<LinkState>,
}

/// What the task tells all handles.
#[derive(Default)]
struct LinkState {
    /// Calls that were at the daemon when it left a ping unanswered; 0 until it has.
    stalled: usize,
    /// Why the link has ended.
    end: Option<Arc<LinkEnd>>,
}

/// A command from a handle to the task.
enum Command {
    Call(Outgoing),
    /// Data up a stream.
    Chunk {
        key: StreamKey,
        bytes: Bytes,
        slot: Slot,
    },
    /// A stream is to be finished (`Ok`) or aborted (`Error`).
    EndStream {
        key: StreamKey,
        status: Status,
        slot: Slot,
        done: Option<Done>,
    },
    /// The handle of a stream is gone.
    DropStream {
        key: StreamKey,
    },
    /// The handle of a queue is gone.
    DropEvents {
        queue: Arc<EventQueue>,
    },
    /// The daemon knows pings.
    Keepalive(Keepalive),
    End,
}

/// A call on its way to the socket.
struct Outgoing {
    procedure: Procedure,
    payload: BytesMut,
    answer: Answer,
    slot: Slot,
    token: Option<Token>,
}

/// Who gets the reply.
enum Answer {
    Reply(oneshot::Sender<Result<Bytes, CallError>>),
    Stream {
        buffer: usize,
        answer: oneshot::Sender<Result<(Bytes, Opened), CallError>>,
    },
    /// A registration for events: its reply is a number that the events carry. It has to be known before the next
    /// message is looked at.
    Register {
        queue: Arc<EventQueue>,
        deregister: Procedure,
        answer: oneshot::Sender<Result<(), CallError>>,
    },
    /// The reply is discarded.
    Discard,
}

impl Answer {
    /// Whether the caller has dropped its future.
    fn is_unwanted(&self) -> bool {
        match self {
            Answer::Reply(answer) => answer.is_closed(),
            Answer::Stream { answer, .. } => answer.is_closed(),
            Answer::Register { answer, .. } => answer.is_closed(),
            Answer::Discard => false,
        }
    }

    fn fail(self, error: CallError) {
        // Sending fails when the caller has dropped its future.
        match self {
            Answer::Reply(answer) => drop(answer.send(Err(error))),
            Answer::Stream { answer, .. } => drop(answer.send(Err(error))),
            Answer::Register { answer, .. } => drop(answer.send(Err(error))),
            Answer::Discard => tracing::debug!(%error, "a call of the link's own failed"),
        }
    }
}

impl Link {
    /// Starts the task that owns the socket, with so many slots.
    pub(crate) fn start<S>(io: S, slots: usize, stderr: Option<Stderr>) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (sender, state) = watch::channel(LinkState::default());
        let slots = Arc::new(Semaphore::new(slots.max(1)));
        let driver = driver::Driver::new(commands.downgrade(), slots.clone());
        tokio::spawn(driver.run(io, inbox, sender, stderr));
        Link { commands, slots, state }
    }

    /// Makes a call and returns the payload of the reply.
    pub(crate) async fn call(
        &self,
        procedure: Procedure,
        arguments: &impl ToXdr,
        token: Option<Token>,
    ) -> Result<Bytes, CallError> {
        self.send(procedure, arguments, token, Answer::Reply).await
    }

    /// Makes a call that opens a stream.
    pub(crate) async fn open_stream(
        &self,
        procedure: Procedure,
        arguments: &impl ToXdr,
        token: Option<Token>,
        buffer: usize,
    ) -> Result<(Bytes, Stream), CallError> {
        let answer = |answer| Answer::Stream { buffer, answer };
        let (reply, opened) = self.send(procedure, arguments, token, answer).await?;
        Ok((reply, Stream::new(self.clone(), opened)))
    }

    /// Makes a call that registers for events.
    async fn register(
        &self,
        procedure: Procedure,
        deregister: Procedure,
        arguments: &impl ToXdr,
        token: Option<Token>,
        queue: Arc<EventQueue>,
    ) -> Result<(), CallError> {
        let answer = |answer| Answer::Register { queue, deregister, answer };
        self.send(procedure, arguments, token, answer).await
    }

    async fn send<T>(
        &self,
        procedure: Procedure,
        arguments: &impl ToXdr,
        token: Option<Token>,
        answer: impl FnOnce(oneshot::Sender<Result<T, CallError>>) -> Answer,
    ) -> Result<T, CallError> {
        let payload = xdr::encode(arguments).map_err(|source| CallError::Argument { procedure, source })?;
        let lost = |sent| CallError::Lost { procedure, sent, source: self.end() };
        let slot = self.slots.clone().acquire_owned().await.map_err(|_| lost(false))?;
        let (sender, answered) = oneshot::channel();
        let call = Outgoing { procedure, payload, answer: answer(sender), slot, token };
        self.commands.send(Command::Call(call)).map_err(|_| lost(false))?;
        // The task answers every call that it has taken; without an answer it took none.
        answered.await.unwrap_or_else(|_| Err(lost(false)))
    }

    /// Starts keepalive: the daemon supports pings.
    pub(crate) fn keep_alive(&self, config: Keepalive) {
        self.tell(Command::Keepalive(config));
    }

    /// Ends the link at once.
    pub(crate) fn finish(&self) {
        self.tell(Command::End);
    }

    /// Returns when the link has ended.
    pub(crate) async fn ended(&self) -> Arc<LinkEnd> {
        self.end_notice().await
    }

    /// As [`ended`](Self::ended), and is no handle: it does not keep the link open.
    pub(crate) fn end_notice(&self) -> impl Future<Output = Arc<LinkEnd>> + Send + use<> {
        let mut state = self.state.clone();
        async move {
            // An error means that the task is gone, and so the link.
            drop(state.wait_for(|state| state.end.is_some()).await);
            told(&state)
        }
    }

    /// Returns when the daemon has left a ping unanswered while calls were at it, with the number of those.
    pub(crate) async fn stalled(&self) -> usize {
        let mut state = self.state.clone();
        let stalled = state.wait_for(|state| state.stalled > 0).await.map(|state| state.stalled);
        match stalled {
            Ok(calls) => calls,
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether the link has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.state.borrow().end.is_some() || self.commands.is_closed()
    }

    /// Why the link has ended.
    fn end(&self) -> Arc<LinkEnd> {
        told(&self.state)
    }

    /// Fails only when the link has ended, and with it what the command is about.
    fn tell(&self, command: Command) {
        let _ended = self.commands.send(command);
    }
}

/// Why a link has ended. While it has not yet said why, it is being closed.
fn told(state: &watch::Receiver<LinkState>) -> Arc<LinkEnd> {
    let end = state.borrow().end.clone();
    end.unwrap_or_else(|| Arc::new(LinkEnd { reason: EndReason::Closed, said: String::new() }))
}
