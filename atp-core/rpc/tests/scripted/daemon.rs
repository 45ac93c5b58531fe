//! The daemon's side of a connection, a message at a time.

use std::collections::VecDeque;
use std::time::Duration;

use atp_rpc::frame::{Frame, FrameCodec, Header};
use atp_rpc::numbers::{Kind, Procedure, Program, Status, procedure};
use atp_rpc::xdr::{ToXdr, encode};
use atp_rpc::{ConnectError, ConnectOptions, Connection};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;
use tokio_util::codec::Framed;

/// The daemon's side.
pub(crate) struct Daemon<S = DuplexStream> {
    pub(crate) wire: Framed<S, FrameCodec>,
}

/// What a socket holds of what the other side has not read, bytes.
const SOCKET: usize = 64 * 1024;

/// An open connection, and the daemon's side of it.
pub(crate) async fn connect() -> (Connection, Daemon) {
    connect_with(&ConnectOptions::default()).await
}

pub(crate) async fn connect_with(options: &ConnectOptions) -> (Connection, Daemon) {
    let (ours, theirs) = duplex(SOCKET);
    let mut daemon = Daemon::new(theirs);
    let (connection, ()) = tokio::join!(open(ours, options), daemon.greet());
    (connection.unwrap(), daemon)
}

pub(crate) async fn open(io: DuplexStream, options: &ConnectOptions) -> Result<Connection, ConnectError> {
    Connection::over(io, true, &"test:///default".parse().unwrap(), options).await
}

impl<S: AsyncRead + AsyncWrite + Unpin> Daemon<S> {
    pub(crate) fn new(io: S) -> Self {
        Daemon { wire: Framed::new(io, FrameCodec::default()) }
    }

    /// Answers what a client asks until its driver is open, as a daemon with the default `max_client_requests`.
    pub(crate) async fn greet(&mut self) {
        self.greet_with(5).await;
    }

    /// As [`greet`](Self::greet), as a daemon that takes so many messages at once: at that number it
    /// answers the oldest before it reads on.
    pub(crate) async fn greet_with(&mut self, max_client_requests: usize) {
        let call = self.expect(procedure::AUTH_LIST).await;
        self.reply(&call, &0u32).await;
        let call = self.expect(procedure::CONNECT_OPEN).await;
        assert_eq!(call.payload, encode(&(Some("test:///default"), 0u32)).unwrap());
        self.reply(&call, &()).await;
        for (feature, answer) in [(14, 1), (15, 0)] {
            let call = self.expect(procedure::CONNECT_SUPPORTS_FEATURE).await;
            assert_eq!(call.payload, encode(&feature).unwrap());
            self.reply(&call, &answer).await;
        }
        let (mut held, mut measured) = (VecDeque::new(), 0);
        // It is measured three times, unless it takes what the client needs. One that takes one message is not asked to ping.
        while max_client_requests > 1 || measured < 3 {
            let frame = self.next().await;
            match frame.header.procedure {
                _ if frame.header.kind == Kind::Message => {
                    self.ping(procedure::PONG).await;
                    // Nothing more comes before the calls are answered.
                    if self.wire.read_buffer().is_empty() {
                        measured += 1;
                        for call in std::mem::take(&mut held) {
                            self.reply(&call, &()).await;
                        }
                    }
                }
                number if number == procedure::NODE_GET_INFO.number => held.push_back(frame),
                _ => {
                    assert_eq!(frame.payload, encode(&10).unwrap());
                    self.reply(&frame, &1).await;
                    return;
                }
            }
            if held.len() == max_client_requests
                && let Some(call) = held.pop_front()
            {
                self.reply(&call, &()).await;
            }
        }
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Frame {
        let next = timeout(Duration::from_secs(600), self.wire.next()).await;
        next.expect("a message comes").expect("the client is there").unwrap()
    }

    /// The next call, which has to be this one.
    pub(crate) async fn expect(&mut self, procedure: Procedure) -> Frame {
        let call = self.next().await;
        assert_eq!(call.header.kind, Kind::Call);
        assert_eq!((call.header.program, call.header.procedure), (procedure.program, procedure.number));
        call
    }

    /// Replies to a call.
    pub(crate) async fn reply(&mut self, call: &Frame, result: &impl ToXdr) {
        let header = Header { kind: Kind::Reply, ..call.header };
        self.send(header, &encode(result).unwrap()).await;
    }

    /// Sends a message of the stream that a call opened.
    pub(crate) async fn stream(&mut self, call: &Frame, status: Status, payload: &[u8]) {
        self.send(Header { kind: Kind::Stream, status, ..call.header }, payload).await;
    }

    /// Sends an event: a reboot of some domain, by the registration of that number.
    pub(crate) async fn event(&mut self, id: i32) {
        let domain = atp_rpc::RemoteDomain::of(Default::default());
        let header = Header {
            program: Program::REMOTE,
            procedure: 319,
            kind: Kind::Message,
            // As real ones do.
            serial: 1,
            status: Status::Ok,
        };
        self.send(header, &encode(&(id, domain)).unwrap()).await;
    }

    pub(crate) async fn ping(&mut self, procedure: Procedure) {
        let header = Header { kind: Kind::Message, ..Header::call(procedure, 0) };
        self.send(header, &[]).await;
    }

    pub(crate) async fn send(&mut self, header: Header, payload: &[u8]) {
        self.wire.send(Frame { header, payload: Bytes::copy_from_slice(payload) }).await.unwrap();
    }

    /// Sends bytes as they are.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.wire.get_mut().write_all(bytes).await.unwrap();
    }
}
