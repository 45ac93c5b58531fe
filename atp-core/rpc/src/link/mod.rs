//! The link: one task that owns a socket, and the handles to it.
//!
//! A handle turns a call into a command to the task. The task gives it a serial, writes it, and keeps an entry for it
//! until the reply comes or the link ends, whether the caller still waits or not: the daemon works on it as long.
//!
//! The daemon stops reading a connection, keepalive included, while `max_client_requests` (5 by default) of its
//! messages are not answered. So everything that counts there takes one of the link's slots, and gives it back only
//! when the daemon has shown that it is done with it. How many slots a link has is measured when it is opened, or
//! when more are wanted ([`measure`](crate::ConnectOptions::measure)).

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
use tokio::time::{self, Duration, Instant};

use crate::dial::Stderr;
use crate::error::{CallError, EndReason, LinkEnd};
use crate::numbers::{Procedure, Status};
use crate::xdr::{self, ToXdr};

pub use events::{EventItem, Events};
pub use keepalive::Keepalive;
pub use streams::{Stream, StreamSender};

pub(crate) use events::EventQueue;
pub(crate) use keepalive::Inquiry;
use keepalive::Watch;
use streams::{Done, Opened, StreamKey};

/// How long the answer to a ping may take when no call is in front of it. A peer without it does not answer pings.
const PONG_WITHIN: Duration = Duration::from_secs(2);

/// Lives as long as a call is under way at the daemon. It is only dropped.
pub(crate) type Token = Arc<dyn Any + Send + Sync>;

/// A place among the messages that the daemon has not answered yet.
type Slot = OwnedSemaphorePermit;

/// A handle to a link. The link ends when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Link {
    // Boxed: a channel has room for 32 of its items from the start, which would be 4 KiB for each link.
    commands: mpsc::UnboundedSender<Box<Command>>,
    slots: Arc<Semaphore>,
    end: watch::Receiver<Option<Arc<LinkEnd>>>,
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
    /// Calls with a ping behind each, to learn how many messages the daemon holds at once.
    Count {
        /// The calls, and what gets the number of messages that the daemon held when it answered the ping.
        calls: Vec<(Outgoing, oneshot::Sender<usize>)>,
    },
    /// The daemon holds so many messages at once.
    Holds(usize),
    /// The daemon knows pings.
    Keepalive(Watch),
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
    /// Starts the task that owns the socket, with so many slots. Each message is written by itself, if that is to be.
    pub(crate) fn start<S>(io: S, slots: usize, separate: bool, stderr: Option<Stderr>) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (sender, end) = watch::channel(None);
        let slots = Arc::new(Semaphore::new(slots.max(1)));
        let driver = driver::Driver::new(commands.downgrade(), slots.clone(), separate);
        tokio::spawn(driver.run(io, inbox, sender, stderr));
        Link { commands, slots, end }
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

    /// Makes calls of one kind in the place of one, up to `ahead` of them before the first is answered. The results are in order.
    ///
    /// The daemon may hold fewer messages at once: the others then wait in its socket, and pings behind them. So this is for calls
    /// that the daemon answers from its memory.
    pub(crate) async fn call_each<A: ToXdr>(
        &self,
        procedure: Procedure,
        arguments: impl IntoIterator<Item = A>,
        ahead: usize,
        token: Option<Token>,
    ) -> Result<Vec<Result<Bytes, CallError>>, CallError> {
        let lost = |sent| CallError::Lost { procedure, sent, source: self.end() };
        let slot = self.slots.clone().acquire_owned().await.map_err(|_| lost(false))?;
        // All of them hold the place, also when this future is dropped.
        let place: Token = Arc::new((slot, token));
        let own = Arc::new(Semaphore::new(ahead.max(1)));
        let mut answers = Vec::new();
        for arguments in arguments {
            let payload =
                xdr::encode(&arguments).map_err(|source| CallError::Argument { procedure, source })?;
            let slot = own.clone().acquire_owned().await.map_err(|_| lost(false))?;
            let (sender, answered) = oneshot::channel();
            let (answer, token) = (Answer::Reply(sender), Some(place.clone()));
            let call = Outgoing { procedure, payload, answer, slot, token };
            self.commands.send(Box::new(Command::Call(call))).map_err(|_| lost(false))?;
            answers.push(answered);
        }
        let mut results = Vec::with_capacity(answers.len());
        for answered in answers {
            results.push(answered.await.unwrap_or_else(|_| Err(lost(false))));
        }
        Ok(results)
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
        self.commands.send(Box::new(Command::Call(call))).map_err(|_| lost(false))?;
        // The task answers every call that it has taken; without an answer it took none.
        answered.await.unwrap_or_else(|_| Err(lost(false)))
    }

    /// Sends so many calls of one kind without arguments, all at once and with a ping behind each, and takes no slots for them:
    /// how many there may be is yet to be known. Returns the most messages
    /// that the daemon held when it answered one of the pings: the ping, and the calls before it that it had not answered. None if
    /// it answers no pings.
    ///
    /// # Errors
    /// The link has ended. That the daemon refuses the calls, or answers what cannot be read, is no error.
    pub(crate) async fn count_held(&self, procedure: Procedure, calls: usize) -> Result<usize, CallError> {
        let lost = |sent| CallError::Lost { procedure, sent, source: self.end() };
        let (mut sent, mut answers) = (Vec::with_capacity(calls), Vec::with_capacity(calls));
        let own = Arc::new(Semaphore::new(calls));
        for _ in 0..calls {
            let slot = own.clone().acquire_owned().await.map_err(|_| lost(false))?;
            let ((answer, answered), (held, counted)) = (oneshot::channel(), oneshot::channel());
            let (payload, answer) = (BytesMut::new(), Answer::Reply(answer));
            sent.push((Outgoing { procedure, payload, answer, slot, token: None }, held));
            answers.push((answered, counted));
        }
        self.tell(Command::Count { calls: sent });
        let mut counts = Vec::with_capacity(calls);
        for (answered, counted) in answers {
            match answered.await.map_err(|_| lost(true))? {
                Ok(_) | Err(CallError::Remote { .. } | CallError::Reply { .. }) => counts.push(counted),
                Err(error) => return Err(error),
            }
        }
        let most = async {
            let mut most = 0;
            for counted in counts {
                most = counted.await.map_err(|_| lost(true))?.max(most);
            }
            Ok(most)
        };
        // With no call before them the pings are read at once, by a daemon that answers pings.
        time::timeout(PONG_WITHIN, most).await.unwrap_or(Ok(0))
    }

    /// Starts keepalive: the daemon answers pings. It holds up to `requests` messages at once, and `daemon` asks on another
    /// connection whether it is alive.
    pub(crate) fn keep_alive(&self, config: Keepalive, requests: usize, daemon: Option<Inquiry>) {
        self.tell(Command::Keepalive(Watch::new(config, requests, daemon, Instant::now())));
    }

    /// The daemon was seen to hold so many messages at once.
    pub(crate) fn holds(&self, requests: usize) {
        self.tell(Command::Holds(requests));
    }

    pub(crate) fn add_slots(&self, count: usize) {
        self.slots.add_permits(count);
    }

    /// Takes slots away. They have to be free.
    pub(crate) fn remove_slots(&self, count: usize) {
        self.slots.forget_permits(count);
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
        let mut end = self.end.clone();
        async move {
            // An error means that the task is gone, and so the link.
            drop(end.wait_for(Option::is_some).await);
            told(&end)
        }
    }

    /// Whether the link has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.end.borrow().is_some() || self.commands.is_closed()
    }

    /// Why the link has ended.
    fn end(&self) -> Arc<LinkEnd> {
        told(&self.end)
    }

    /// Fails only when the link has ended, and with it what the command is about.
    fn tell(&self, command: Command) {
        let _ended = self.commands.send(Box::new(command));
    }
}

/// Why a link has ended. While it has not yet said why, it is being closed.
fn told(end: &watch::Receiver<Option<Arc<LinkEnd>>>) -> Arc<LinkEnd> {
    let end = end.borrow().clone();
    end.unwrap_or_else(|| Arc::new(LinkEnd { reason: EndReason::Closed, said: String::new() }))
}
