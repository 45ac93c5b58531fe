//! The task that owns a socket.

use std::collections::hash_map::{Entry, OccupiedEntry};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::codec::Decoder;
use tokio_util::io::poll_read_buf;

use super::events::Registrations;
use super::keepalive::{Due, Watch};
use super::outbox::Outbox;
use super::streams::{After, Opened, StreamKey, Streams};
use super::{Answer, Command, Outgoing, Slot, Token};
use crate::dial::Stderr;
use crate::error::{CallError, EndReason, LinkEnd, RemoteError, StreamError};
use crate::frame::{Frame, FrameCodec, FrameError, Header};
use crate::numbers::{Kind, Procedure, Program, Status, procedure};
use crate::xdr;

/// Room that is made for reads, bytes, once there is less than [`READ_LEAST`] left: the less, unless the last read filled all of it.
/// Of ten thousand connections nearly all are idle and keep theirs.
const READ: usize = 8 * 1024;
const READ_IDLE: usize = 1024;
const READ_LEAST: usize = 256;

/// A buffer that grew beyond this is given back once it is empty, bytes.
const KEEP: usize = 64 * 1024;

/// The most commands that are taken before something is written.
const BATCH: usize = 64;

/// The most pongs that wait for a daemon that pings and does not read.
const PONGS: u32 = 16;

/// How long the daemon has to take note that the connection is closed.
const LEAVE: Duration = Duration::from_secs(1);

/// What ended the loop.
type Ended = EndReason;

/// A call at the daemon.
struct Pending {
    procedure: Procedure,
    answer: Answer,
    /// Of a call that opens a stream: the stream.
    opened: Option<Opened>,
    /// The position in all that was ever sent behind its last byte.
    end: u64,
    slot: Slot,
    token: Option<Token>,
}

/// A ping that is not answered yet.
enum Ping {
    /// Asks for a sign of life.
    Sign,
    /// Behind a chunk, whose slot its answer gives back.
    Chunk { _slot: Slot },
    /// Asks how many messages the daemon holds: with the position of its end, as of a call.
    Count { end: u64, held: oneshot::Sender<usize> },
}

/// The state of the task.
pub(super) struct Driver {
    /// For what the task itself has to send. Weak, so that it does not keep the link alive.
    commands: mpsc::WeakUnboundedSender<Box<Command>>,
    slots: Arc<Semaphore>,
    codec: FrameCodec,
    inbox: BytesMut,
    /// Whether the last read filled the room for it.
    is_filled: bool,
    outbox: Outbox,
    pongs: u32,
    serial: u32,
    calls: HashMap<(Program, u32), Pending>,
    streams: Streams,
    registrations: Registrations,
    /// The driver was asked to open.
    opened: bool,
    keepalive: Option<Watch>,
    /// In order.
    pings: VecDeque<Ping>,
}

impl Driver {
    pub(super) fn new(
        commands: mpsc::WeakUnboundedSender<Box<Command>>,
        slots: Arc<Semaphore>,
        separate: bool,
    ) -> Self {
        Driver {
            commands,
            slots,
            codec: FrameCodec::default(),
            inbox: BytesMut::new(),
            is_filled: false,
            outbox: Outbox::new(separate),
            pongs: 0,
            serial: 0,
            calls: HashMap::new(),
            streams: Streams::default(),
            registrations: Registrations::default(),
            opened: false,
            keepalive: None,
            pings: VecDeque::new(),
        }
    }

    /// Drives the link until it ends, and reports the end to all callers.
    pub(super) async fn run<S: AsyncRead + AsyncWrite>(
        mut self,
        io: S,
        mut commands: mpsc::UnboundedReceiver<Box<Command>>,
        ended: watch::Sender<Option<Arc<LinkEnd>>>,
        stderr: Option<Stderr>,
    ) {
        let reason = {
            let mut io = pin!(io);
            let reason = self.drive(io.as_mut(), &mut commands).await;
            if commands.is_closed() {
                // Calls that are under way have no callers any more.
                self.calls.clear();
                let _late = timeout(LEAVE, self.leave(io)).await;
            }
            reason
        };
        // The socket is closed by now, and a command behind it is ending.
        let said = match (&reason, stderr) {
            (EndReason::Closed, _) | (_, None) => String::new(),
            (_, Some(stderr)) => stderr.complete().await,
        };
        let end = Arc::new(LinkEnd { reason, said });
        ended.send_replace(Some(end.clone()));
        self.slots.close();
        commands.close();
        while let Ok(command) = commands.try_recv() {
            if let Command::Call(Outgoing { procedure, answer, .. }) = *command {
                answer.fail(CallError::Lost { procedure, sent: false, source: end.clone() });
            }
        }
        for (_, call) in self.calls.drain() {
            let (procedure, sent) = (call.procedure, self.outbox.is_sent(call.end));
            call.answer.fail(CallError::Lost { procedure, sent, source: end.clone() });
        }
        self.streams.fail_all(&end);
    }

    async fn drive<S: AsyncRead + AsyncWrite>(
        &mut self,
        mut io: Pin<&mut S>,
        commands: &mut mpsc::UnboundedReceiver<Box<Command>>,
    ) -> Ended {
        let mut alarm = pin!(sleep_until(Instant::now()));
        poll_fn(|cx| self.poll(cx, io.as_mut(), commands, alarm.as_mut())).await
    }

    /// Tells the daemon that the connection is closed, and waits for it to close its side: a socket that ends without is an
    /// error in the daemon's log. Returns at once where nothing was opened.
    async fn leave<S: AsyncRead + AsyncWrite>(&mut self, mut io: Pin<&mut S>) {
        if !self.opened {
            return;
        }
        let serial = self.next_serial(procedure::CONNECT_CLOSE.program);
        self.queue(procedure::CONNECT_CLOSE, Kind::Call, serial, Status::Ok, &[]);
        let left = poll_fn(|cx| {
            ready!(self.outbox.poll_send(cx, io.as_mut()))?;
            loop {
                self.inbox.clear();
                self.inbox.reserve(READ_LEAST);
                if ready!(poll_read_buf(io.as_mut(), cx, &mut self.inbox))? == 0 {
                    return Poll::Ready(Ok::<_, std::io::Error>(()));
                }
            }
        });
        // An error is an end as well.
        let _over = left.await;
    }

    /// Does everything that can be done without waiting. Polled by hand: this is the path of every call.
    fn poll<S: AsyncRead + AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut S>,
        commands: &mut mpsc::UnboundedReceiver<Box<Command>>,
        mut alarm: Pin<&mut Sleep>,
    ) -> Poll<Ended> {
        loop {
            let mut again = match self.poll_commands(cx, commands, alarm.as_mut()) {
                Poll::Ready(Some(reason)) => return Poll::Ready(reason),
                Poll::Ready(None) => true,
                Poll::Pending => false,
            };
            match self.outbox.poll_send(cx, io.as_mut()) {
                Poll::Ready(Ok(())) => self.pongs = 0,
                Poll::Ready(Err(error)) => return Poll::Ready(EndReason::Frame(error.into())),
                Poll::Pending => {}
            }
            match self.poll_receive(cx, io.as_mut()) {
                Poll::Ready(Ok(None)) => again = true,
                Poll::Ready(Ok(Some(reason))) => return Poll::Ready(reason),
                Poll::Ready(Err(error)) => return Poll::Ready(EndReason::Frame(error)),
                Poll::Pending => {}
            }
            if let Some(watch) = &mut self.keepalive {
                match watch.poll_inquiry(cx) {
                    Poll::Ready(true) => watch.sign_of_life(Instant::now()),
                    Poll::Ready(false) => {
                        let silence = watch.silence(Instant::now());
                        return Poll::Ready(EndReason::Keepalive { silence });
                    }
                    Poll::Pending => {}
                }
            }
            if let Some(watch) = &mut self.keepalive
                && !watch.is_inquiring()
                && alarm.as_mut().poll(cx).is_ready()
            {
                match watch.due(Instant::now()) {
                    Due::Wait(next) => alarm.as_mut().reset(next),
                    Due::Ping(next) => {
                        alarm.as_mut().reset(next);
                        self.ping(Ping::Sign);
                    }
                    Due::Dead(_) if watch.inquires(self.calls.len()) => {}
                    Due::Dead(silence) => return Poll::Ready(EndReason::Keepalive { silence }),
                }
                again = true;
            }
            if !again {
                return Poll::Pending;
            }
        }
    }

    /// Takes commands: until none is left, or so many that something else has to be done first. Returns a reason to
    /// end.
    fn poll_commands(
        &mut self,
        cx: &mut Context<'_>,
        commands: &mut mpsc::UnboundedReceiver<Box<Command>>,
        mut alarm: Pin<&mut Sleep>,
    ) -> Poll<Option<Ended>> {
        for _ in 0..BATCH {
            match ready!(commands.poll_recv(cx)).map(|command| *command) {
                // The last handle was dropped, or the end was requested.
                None | Some(Command::End) => return Poll::Ready(Some(EndReason::Closed)),
                Some(Command::Keepalive(watch)) => {
                    let now = Instant::now();
                    self.keepalive = Some(watch);
                    alarm.as_mut().reset(now);
                }
                Some(command) => self.take_command(command),
            }
        }
        Poll::Ready(None)
    }

    /// Reads once and takes all whole messages. Returns a reason to end.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut impl AsyncRead>,
    ) -> Poll<Result<Option<Ended>, FrameError>> {
        if self.inbox.is_empty() && self.inbox.capacity() > KEEP {
            self.inbox = BytesMut::new();
        }
        if self.inbox.capacity() - self.inbox.len() < READ_LEAST {
            self.inbox.reserve(if self.is_filled { READ } else { READ_IDLE });
        }
        let room = self.inbox.capacity() - self.inbox.len();
        let read = ready!(poll_read_buf(io, cx, &mut self.inbox))?;
        self.is_filled = read == room;
        if read > 0 {
            return Poll::Ready(self.take_frames());
        }
        Poll::Ready(self.codec.decode_eof(&mut self.inbox).map(|_| Some(EndReason::Eof)))
    }

    /// Takes all whole messages. Returns a reason to end.
    fn take_frames(&mut self) -> Result<Option<Ended>, FrameError> {
        // Of a long message on a slow line it is a while until all of it is there.
        if let Some(watch) = &mut self.keepalive {
            watch.sign_of_life(Instant::now());
        }
        while let Some(frame) = self.codec.decode(&mut self.inbox)? {
            if let Some(reason) = self.take_frame(frame)? {
                return Ok(Some(reason));
            }
        }
        Ok(None)
    }

    fn take_frame(&mut self, Frame { header, payload }: Frame) -> Result<Option<Ended>, FrameError> {
        match header.kind {
            Kind::Message => return Ok(self.message(header, payload)),
            Kind::Reply => self.reply(header, payload),
            Kind::Stream => self.stream(header, payload),
            // A daemon sends no calls, and neither descriptors nor holes unless they were asked for.
            Kind::Call | Kind::Other(_) => return Err(FrameError::Kind(header.kind.to_wire())),
        }
        Ok(None)
    }

    fn message(&mut self, header: Header, payload: Bytes) -> Option<Ended> {
        match (header.program, header.procedure) {
            (Program::KEEPALIVE, number) if number == procedure::PING.number => {
                if self.pongs < PONGS {
                    self.pongs += 1;
                    self.queue(procedure::PONG, Kind::Message, 0, Status::Ok, &[]);
                }
            }
            (Program::KEEPALIVE, _) => self.pong(),
            (Program::REMOTE, number) if number == procedure::EVENT_CONNECTION_CLOSED.number => {
                return Some(EndReason::Notice { reason: xdr::decode(&payload).unwrap_or_default() });
            }
            (program, number) => self.registrations.event(program, number, payload),
        }
        None
    }

    fn pong(&mut self) {
        if let Some(Ping::Count { end, held }) = self.pings.pop_front() {
            // A daemon that read the ping held all messages before it that it had not answered.
            let before = self.calls.values().filter(|call| call.end < end).count();
            let _unwanted = held.send(before + 1);
        }
    }

    fn reply(&mut self, header: Header, payload: Bytes) {
        let key = (header.program, header.serial);
        let entry = match self.calls.entry(key) {
            Entry::Occupied(entry) if entry.get().procedure.number == header.procedure => Some(entry),
            _ => None,
        };
        let Some(call) = entry.map(OccupiedEntry::remove) else {
            tracing::debug!(serial = header.serial, "a reply to no call");
            return;
        };
        // The slot is free before the caller goes on: it may want it at once.
        drop(call.slot);
        let procedure = call.procedure;
        if let Answer::Register { .. } = &call.answer {
            drop(call.token);
            self.registered(call.answer, procedure, header.status, &payload);
            return;
        }
        if header.status != Status::Ok {
            drop(call.token);
            self.streams.ended((procedure, header.serial), None);
            call.answer.fail(remote(procedure, &payload));
            return;
        }
        match call.answer {
            Answer::Reply(answer) => {
                drop(call.token);
                let _unwanted = answer.send(Ok(payload));
            }
            Answer::Stream { answer, .. } => {
                if let Some(opened) = call.opened
                    && answer.send(Ok((payload, opened))).is_err()
                    && self.streams.unwanted((procedure, header.serial))
                {
                    self.abort_soon((procedure, header.serial));
                }
            }
            Answer::Register { .. } | Answer::Discard => {}
        }
    }

    fn registered(&mut self, answer: Answer, procedure: Procedure, status: Status, payload: &Bytes) {
        let Answer::Register { queue, deregister, answer } = answer else { return };
        let result = match status {
            Status::Ok => xdr::decode(payload).map_err(|source| CallError::Reply { procedure, source }),
            _ => Err(remote(procedure, payload)),
        };
        let result = result.map(|id| {
            if self.registrations.add(procedure.program, id, queue, deregister) {
                self.deregister_soon(deregister, id);
            }
        });
        self.registrations.answered();
        let _unwanted = answer.send(result);
    }

    fn stream(&mut self, header: Header, payload: Bytes) {
        let Some(key) = self.streams.find(header.program, header.procedure, header.serial) else {
            // Late packets of a stream that is over.
            tracing::debug!(serial = header.serial, "data of no stream");
            return;
        };
        match header.status {
            Status::Continue => {
                if self.streams.data(key, payload) == After::Abort {
                    self.abort_soon(key);
                }
            }
            Status::Ok => self.streams.ended(key, None),
            Status::Error => {
                let error = match remote(key.0, &payload) {
                    CallError::Remote { source, .. } => source,
                    unreadable => Box::new(RemoteError::unreadable(&unreadable)),
                };
                self.streams.ended(key, Some(StreamError::Remote(error)));
            }
        }
    }

    fn take_command(&mut self, command: Command) {
        match command {
            Command::Call(call) => self.call(call),
            Command::Chunk { key, bytes, slot } if self.streams.contains(key) => {
                self.queue(key.0, Kind::Stream, key.1, Status::Continue, &bytes);
                // Only a daemon that knows pings shows what it has taken.
                if self.keepalive.is_some() {
                    self.ping(Ping::Chunk { _slot: slot });
                }
            }
            Command::Count { calls } => {
                for (call, held) in calls {
                    self.call(call);
                    let end = self.queue(procedure::PING, Kind::Message, 0, Status::Ok, &[]);
                    self.pings.push_back(Ping::Count { end, held });
                }
            }
            Command::Holds(requests) => {
                if let Some(watch) = &mut self.keepalive {
                    watch.holds(requests);
                }
            }
            Command::EndStream { key, status, slot, done } => {
                if self.streams.end(key, slot, done) {
                    self.queue(key.0, Kind::Stream, key.1, status, &[]);
                }
            }
            Command::DropStream { key } => {
                if self.streams.unwanted(key) {
                    self.abort_soon(key);
                }
            }
            Command::DropEvents { queue } => {
                for (deregister, id) in self.registrations.remove(&queue) {
                    self.deregister_soon(deregister, id);
                }
            }
            // The daemon has ended the stream; the others are seen to by the loop.
            Command::Chunk { .. } | Command::Keepalive(_) | Command::End => {}
        }
    }

    fn call(&mut self, Outgoing { procedure, payload, answer, slot, token }: Outgoing) {
        if answer.is_unwanted() {
            return;
        }
        self.opened |= procedure == procedure::CONNECT_OPEN;
        if let Answer::Register { .. } = answer {
            self.registrations.pending += 1;
        }
        let serial = self.next_serial(procedure.program);
        let end = self.queue(procedure, Kind::Call, serial, Status::Ok, &payload);
        // The stream is open already: the daemon may send data before its reply.
        let opened = match answer {
            Answer::Stream { buffer, .. } => {
                Some(self.streams.open((procedure, serial), buffer, token.clone()))
            }
            _ => None,
        };
        let call = Pending { procedure, answer, opened, end, slot, token };
        self.calls.insert((procedure.program, serial), call);
    }

    /// The next serial that neither a call nor a stream has. Events carry 1, but are told apart by their kind.
    fn next_serial(&mut self, program: Program) -> u32 {
        loop {
            self.serial = self.serial.wrapping_add(1);
            if !self.calls.contains_key(&(program, self.serial)) && !self.streams.uses(self.serial) {
                return self.serial;
            }
        }
    }

    fn ping(&mut self, ping: Ping) {
        self.pings.push_back(ping);
        self.queue(procedure::PING, Kind::Message, 0, Status::Ok, &[]);
    }

    /// Queues a message. Returns the position of its end.
    fn queue(
        &mut self,
        procedure: Procedure,
        kind: Kind,
        serial: u32,
        status: Status,
        payload: &[u8],
    ) -> u64 {
        let header = Header { program: procedure.program, procedure: procedure.number, kind, serial, status };
        self.outbox.push(header, payload)
    }

    /// Withdraws a registration as soon as there is a slot for it.
    fn deregister_soon(&self, procedure: Procedure, id: i32) {
        let payload = BytesMut::from(&id.to_be_bytes()[..]);
        let answer = Answer::Discard;
        self.soon(move |slot| Command::Call(Outgoing { procedure, payload, answer, slot, token: None }));
    }

    /// Aborts a stream as soon as there is a slot for it.
    fn abort_soon(&self, key: StreamKey) {
        self.soon(move |slot| Command::EndStream { key, status: Status::Error, slot, done: None });
    }

    /// Sends a command once there is a slot. Should the link end before, so does what the command is about.
    fn soon(&self, command: impl FnOnce(Slot) -> Command + Send + 'static) {
        let (slots, commands) = (self.slots.clone(), self.commands.clone());
        tokio::spawn(async move {
            if let Ok(slot) = slots.acquire_owned().await
                && let Some(commands) = commands.upgrade()
            {
                let _ended = commands.send(Box::new(command(slot)));
            }
        });
    }
}

/// The error in a reply.
fn remote(procedure: Procedure, payload: &[u8]) -> CallError {
    match xdr::decode::<RemoteError>(payload) {
        Ok(source) => CallError::Remote { procedure, source: Box::new(source) },
        Err(source) => CallError::Reply { procedure, source },
    }
}
