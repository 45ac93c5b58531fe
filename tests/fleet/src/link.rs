//! The daemon's side of one connection. One task, no lock but the host's, no allocation beyond the payloads.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;

use atp_rpc::frame::{Frame, FrameCodec, Header, MAX_CHUNK};
use atp_rpc::numbers::{Kind, Program, Status, procedure};
use atp_rpc::xdr;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};
use tokio_util::codec::{Decoder, Encoder};

use crate::calls::{self, Answer};
use crate::event::Event;
use crate::host::{Host, Parked, Presence, Signal, Stop};
use crate::session::{Opening, Session};

/// Room that is made for each read, bytes. Small, because an idle connection keeps it.
const READ: usize = 2 * 1024;

/// While more than this is not taken by the client, its calls are not read, bytes.
const UNTAKEN: usize = 1 << 20;

/// How much of what a dead host was sent is kept, bytes; then the client's socket fills.
const UNANSWERED: usize = 64 * 1024;

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As daemons close.
    Close,
    /// By a reset.
    Reset,
}

/// A reply that takes time: when it is due, its order, its head, its payload.
type Late = Reverse<(Instant, u64, LateReply)>;

struct LateReply(Header, BytesMut);

impl PartialEq for LateReply {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for LateReply {}

impl PartialOrd for LateReply {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The order is that of what stands before it.
impl Ord for LateReply {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

/// What an open stream does with what it gets.
enum Stream {
    SendsBack,
    Drops,
}

struct Link {
    host: Arc<Host>,
    session: Session,
    codec: FrameCodec,
    inbox: BytesMut,
    out: BytesMut,
    /// Replies that workers have ready when everything has been read that the daemon reads. Answers to pings overtake them.
    replies: BytesMut,
    /// Messages on their way through a network that takes time.
    line: VecDeque<(Instant, BytesMut)>,
    late: BinaryHeap<Late>,
    next_late: u64,
    parked: Vec<Parked>,
    /// Open streams, by program, procedure and serial.
    streams: HashMap<(u32, i32, u32), Stream>,
    /// Replies in `out` and `replies`.
    unflushed: usize,
    presence: Presence,
    /// The time of the last message from the client, or of the last ping to it.
    heard: Instant,
    pings: u32,
}

/// Serves a connection until it ends.
pub(crate) async fn serve(
    host: &Arc<Host>,
    mut read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
) -> End {
    let (number, mut signals) = host.enter();
    let now = Instant::now();
    let mut link = Link {
        host: host.clone(),
        session: Session::default(),
        codec: FrameCodec::default(),
        inbox: BytesMut::new(),
        out: BytesMut::new(),
        replies: BytesMut::new(),
        line: VecDeque::new(),
        late: BinaryHeap::new(),
        next_late: 0,
        parked: Vec::new(),
        streams: HashMap::new(),
        unflushed: 0,
        presence: host.presence(now),
        heard: now,
        pings: 0,
    };
    let mut timer = pin!(sleep_until(now));
    let end = loop {
        if let Err(end) = link.advance(Instant::now()) {
            break end;
        }
        if link.is_done() {
            break End::Close;
        }
        let due = link.due();
        if let Some(due) = due
            && (due < timer.deadline() || timer.is_elapsed())
        {
            // A timer that fires too early costs less than setting it again for each message.
            timer.as_mut().reset(due);
        }
        let reads = link.reads();
        if reads {
            link.inbox.reserve(READ);
        }
        tokio::select! {
            biased;
            written = write.write_buf(&mut link.out), if !link.out.is_empty() => match written {
                Ok(1..) => link.unflushed = if link.out.is_empty() { 0 } else { link.unflushed },
                Ok(0) | Err(_) => break End::Close,
            },
            signal = signals.recv() => match signal {
                Some(Signal::Event(event)) => link.event(&event),
                Some(Signal::Look) => {
                    if let Err(end) = link.look(Instant::now()) {
                        break end;
                    }
                }
                Some(Signal::End) | None => break End::Close,
            },
            () = async {
                match due {
                    Some(_) => timer.as_mut().await,
                    None => pending().await,
                }
            } => {}
            count = read.read_buf(&mut link.inbox), if reads => match count {
                Ok(1..) => {
                    link.heard = Instant::now();
                    link.pings = 0;
                }
                Ok(0) | Err(_) => break End::Close,
            },
        }
    };
    host.leave(number, link.parked);
    end
}

impl Link {
    /// The number of calls in flight, as libvirt counts them: from their arrival until their replies are written.
    fn in_flight(&self) -> usize {
        self.late.len() + self.parked.len() + self.unflushed
    }

    fn reads(&self) -> bool {
        match self.presence {
            Presence::Dead => self.inbox.len() < UNANSWERED,
            _ => self.in_flight() < self.host.options.max_client_requests && self.out.len() < UNTAKEN,
        }
    }

    /// Whether the client has closed its session and was sent the reply.
    fn is_done(&self) -> bool {
        self.session.is_closed && self.out.is_empty() && self.line.is_empty()
    }

    /// Does what is due, and answers what was received.
    fn advance(&mut self, now: Instant) -> Result<(), End> {
        match self.presence {
            Presence::Away => return Err(End::Reset),
            Presence::There(Some(until)) if until <= now => {
                self.presence = self.host.presence(now);
                return if self.presence == Presence::Away { Err(End::Reset) } else { Ok(()) };
            }
            Presence::Dead => return Ok(()),
            Presence::There(_) => {}
        }
        while let Some(Reverse((due, ..))) = self.late.peek()
            && *due <= now
            && let Some(Reverse((_, _, LateReply(header, payload)))) = self.late.pop()
        {
            self.send(header, &payload, now)?;
        }
        while let Some((due, _)) = self.line.front()
            && *due <= now
            && let Some((_, bytes)) = self.line.pop_front()
        {
            self.out.extend_from_slice(&bytes);
        }
        loop {
            while self.reads() && !self.session.is_closed {
                match self.codec.decode(&mut self.inbox) {
                    Ok(Some(frame)) => self.take(frame, now)?,
                    Ok(None) => break,
                    // As daemons do.
                    Err(_) => return Err(End::Close),
                }
            }
            let rtt = self.host.options.rtt;
            if rtt.is_zero() || self.replies.is_empty() {
                self.out.unsplit(self.replies.split());
                break;
            }
            // The network takes them at once, and the daemon reads on.
            self.line.push_back((now + rtt, self.replies.split()));
            self.unflushed = 0;
        }
        self.keep_alive(now)
    }

    fn take(&mut self, frame: Frame, now: Instant) -> Result<(), End> {
        match (frame.header.program, frame.header.kind) {
            (Program::KEEPALIVE, Kind::Message) => {
                if frame.header.procedure == procedure::PING.number {
                    self.send(message(Program::KEEPALIVE, procedure::PONG.number, 0), &[], now)?;
                }
                Ok(())
            }
            (_, Kind::Call) => {
                let answer = calls::call(&self.host, &mut self.session, &frame, now);
                self.answer(frame, answer, now)
            }
            (_, Kind::Stream) => self.stream(frame, now),
            _ => Err(End::Close),
        }
    }

    fn answer(&mut self, frame: Frame, answer: Answer, now: Instant) -> Result<(), End> {
        if answer.cut {
            return Err(End::Reset);
        }
        if let Some(opening) = self.session.opening.take() {
            return self.open_stream(frame.header, answer, opening, now);
        }
        let mut delay = answer.delay;
        let (status, payload) = match answer.outcome {
            Ok(payload) => (Status::Ok, payload),
            Err(Stop::Hangs) => {
                self.parked.push(Parked { frame, has_worker: true });
                return Ok(());
            }
            Err(Stop::Waits) => {
                self.parked.push(Parked { frame, has_worker: false });
                return Ok(());
            }
            Err(Stop::Error(error)) => (Status::Error, xdr::encode(&*error).map_err(|_| End::Close)?),
            Err(Stop::Late(wait, error)) => {
                delay += wait;
                (Status::Error, xdr::encode(&*error).map_err(|_| End::Close)?)
            }
        };
        let header = Header { kind: Kind::Reply, status, ..frame.header };
        if delay.is_zero() {
            return self.send(header, &payload, now);
        }
        self.late.push(Reverse((now + delay, self.next_late, LateReply(header, payload))));
        self.next_late += 1;
        Ok(())
    }

    /// Replies to a call that opens a stream, and sends what comes down it. However slow the host is, that is at once.
    fn open_stream(
        &mut self,
        call: Header,
        answer: Answer,
        opening: Opening,
        now: Instant,
    ) -> Result<(), End> {
        let Ok(payload) = answer.outcome else { return Err(End::Close) };
        self.send(Header { kind: Kind::Reply, ..call }, &payload, now)?;
        let stream = match opening {
            Opening::Echo(greeting) => {
                if !greeting.is_empty() {
                    let header = Header { kind: Kind::Stream, status: Status::Continue, ..call };
                    self.send(header, &greeting, now)?;
                }
                Stream::SendsBack
            }
            Opening::Picture(picture) => {
                let header = Header { kind: Kind::Stream, status: Status::Continue, ..call };
                // Nothing is the end.
                for chunk in picture.chunks(MAX_CHUNK).chain([&[][..]]) {
                    self.send(header, chunk, now)?;
                }
                Stream::Drops
            }
        };
        self.streams.insert((call.program.0, call.procedure, call.serial), stream);
        Ok(())
    }

    /// Takes a piece of a stream, or its end. Late ones of a stream that is over are dropped.
    fn stream(&mut self, frame: Frame, now: Instant) -> Result<(), End> {
        let key = (frame.header.program.0, frame.header.procedure, frame.header.serial);
        match (self.streams.get(&key), frame.header.status) {
            (None, _) | (Some(Stream::Drops), Status::Continue) => Ok(()),
            (Some(Stream::SendsBack), Status::Continue) if frame.payload.is_empty() => Ok(()),
            (Some(Stream::SendsBack), Status::Continue) => self.send(frame.header, &frame.payload, now),
            (Some(_), Status::Ok | Status::Error) => {
                self.streams.remove(&key);
                self.send(Header { status: Status::Ok, ..frame.header }, &[], now)
            }
        }
    }

    /// Sends a message, through the network if that takes time.
    fn send(&mut self, header: Header, payload: &[u8], now: Instant) -> Result<(), End> {
        let rtt = self.host.options.rtt;
        let overtakes = header.program == Program::KEEPALIVE;
        if rtt.is_zero() || !overtakes {
            self.unflushed += usize::from(header.kind == Kind::Reply);
            let to = if overtakes { &mut self.out } else { &mut self.replies };
            return self.codec.encode((header, payload), to).map_err(|_| End::Close);
        }
        let mut bytes = BytesMut::new();
        self.codec.encode((header, payload), &mut bytes).map_err(|_| End::Close)?;
        self.line.push_back((now + rtt, bytes));
        Ok(())
    }

    /// Sends an event, once for each registration.
    fn event(&mut self, event: &Event) {
        let messages =
            self.session.registrations.iter().filter_map(|registration| registration.message(event));
        let messages: Vec<_> = messages.flatten().collect();
        let now = Instant::now();
        for (program, number, payload) in messages {
            // Serial 1, as libvirt does. Names are far too short for a message that is too long.
            let _sent = self.send(message(program, number, 1), &payload, now);
        }
    }

    /// Handles a change of faults.
    fn look(&mut self, now: Instant) -> Result<(), End> {
        self.presence = self.host.presence(now);
        for parked in std::mem::take(&mut self.parked) {
            let answer = calls::retry(&self.host, &mut self.session, &parked, now);
            self.answer(parked.frame, answer, now)?;
        }
        Ok(())
    }

    /// Pings a silent client, and closes the connection if it stays silent.
    fn keep_alive(&mut self, now: Instant) -> Result<(), End> {
        let keepalive = self.host.options.keepalive;
        if !self.session.wants_pings || self.heard + keepalive.interval > now {
            return Ok(());
        }
        if self.pings >= keepalive.count {
            return Err(End::Close);
        }
        self.pings += 1;
        self.heard = now;
        self.send(message(Program::KEEPALIVE, procedure::PING.number, 0), &[], now)
    }

    /// When something is to be done next.
    fn due(&self) -> Option<Instant> {
        if self.presence == Presence::Dead {
            return None;
        }
        let until = match self.presence {
            Presence::There(until) => until,
            _ => None,
        };
        let late = self.late.peek().map(|Reverse((due, ..))| *due);
        let line = self.line.front().map(|(due, _)| *due);
        let ping = self.session.wants_pings.then(|| self.heard + self.host.options.keepalive.interval);
        [until, late, line, ping].into_iter().flatten().min()
    }
}

/// The head of a message of the daemon's own.
fn message(program: Program, procedure: i32, serial: u32) -> Header {
    Header { program, procedure, kind: Kind::Message, serial, status: Status::Ok }
}
