//! libvirt's wire protocol: frames, XDR, and everything that a daemon can send.

use atp_rpc::agent::AgentTimeout;
use atp_rpc::domain::Metadata;
use atp_rpc::frame::{Frame, FrameCodec, Header};
use atp_rpc::lifecycle::SuspendTarget;
use atp_rpc::message::Parameter;
use atp_rpc::monitor::KeycodeSet;
use atp_rpc::numbers::{Kind, Procedure, Program, Status, procedure};
use atp_rpc::uri::Uri;
use atp_rpc::xdr::{self, FromXdr, Reader, ToXdr};
use atp_rpc::{CallError, ConnectOptions, Connection, EventId, EventItem, RemoteDomain, RemoteError};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Duration;
use tokio_util::codec::{Encoder, Framed};
use uuid::Uuid;

use crate::{cut, runtime, text};

/// What the pipe to a scripted daemon holds, bytes.
const PIPE: usize = 64 * 1024;

/// The event messages that are read, and one that is not known.
const EVENTS: [(Program, i32); 13] = [
    (Program::REMOTE, 318),
    (Program::REMOTE, 319),
    (Program::REMOTE, 321),
    (Program::REMOTE, 324),
    (Program::REMOTE, 325),
    (Program::REMOTE, 333),
    (Program::REMOTE, 339),
    (Program::REMOTE, 348),
    (Program::REMOTE, 354),
    (Program::REMOTE, 367),
    (Program::REMOTE, 379),
    (Program::REMOTE, UNKNOWN),
    (Program::QEMU, 6),
];

/// An event that libvirt does not have.
const UNKNOWN: i32 = 9_999;

/// What a message may claim to belong to: a call, a stream, events, keepalive.
const SENT: [(Program, i32); 7] = [
    (Program::REMOTE, procedure::CONNECT_GET_HOSTNAME.number),
    (Program::REMOTE, procedure::DOMAIN_OPEN_CHANNEL.number),
    (Program::REMOTE, 318),
    (Program::REMOTE, procedure::EVENT_CONNECTION_CLOSED.number),
    (Program::QEMU, 6),
    (Program::KEEPALIVE, procedure::PING.number),
    (Program::KEEPALIVE, procedure::PONG.number),
];

/// The number 0, a list without elements, or an empty string.
const ZERO: Bytes = Bytes::from_static(&[0; 4]);

/// Messages: the first byte determines the pieces in which they arrive. The messages must not depend on the pieces,
/// and each is encoded to the bytes that it came from.
pub(crate) fn rpc_frames(bytes: &[u8]) {
    let Some((step, bytes)) = bytes.split_first() else { return };
    let (whole, ends_well) = cut(FrameCodec::default(), bytes, bytes.len());
    let in_pieces = cut(FrameCodec::default(), bytes, usize::from(*step));
    assert_eq!(in_pieces, (whole.clone(), ends_well));
    let mut again = BytesMut::new();
    for frame in whole {
        let encoded = FrameCodec::default().encode(frame, &mut again);
        assert!(encoded.is_ok(), "{encoded:?}");
    }
    assert!(bytes.starts_with(&again), "{again:?}");
    assert_eq!(ends_well, again.len() == bytes.len());
}

/// XDR values of every form, each alone and in lists.
pub(crate) fn rpc_xdr(bytes: &[u8]) {
    same_again::<i32>(bytes);
    same_again::<u32>(bytes);
    same_again::<u64>(bytes);
    same_again::<bool>(bytes);
    same_again::<Uuid>(bytes);
    same_again::<Option<i64>>(bytes);
    same_again::<RemoteDomain>(bytes);
    same_again::<(Option<String>, (u32, Uuid), Option<RemoteDomain>)>(bytes);
    list::<String>(bytes);
    list::<Option<i64>>(bytes);
    list::<RemoteDomain>(bytes);
    list::<Parameter>(bytes);
    let _error: Result<RemoteError, _> = xdr::decode(bytes);
    if let Ok(chars) = Reader::new(bytes).chars("chars", 100) {
        assert!(chars.len() <= 100 && chars.len() * 4 < bytes.len(), "{} chars", chars.len());
    }
}

/// A value that can be read can be written, and is the same when it is read again. Text may have been mended, and a
/// NUL is never sent.
fn same_again<T: FromXdr + ToXdr + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(value) = xdr::decode::<T>(bytes) else { return };
    assert!(bytes.len() >= T::MIN_SIZE, "{value:?} of {} bytes", bytes.len());
    if let Ok(written) = xdr::encode(&value) {
        assert_eq!(xdr::decode::<T>(&written), Ok(value));
    }
}

/// A list has no more elements than its bytes can hold.
fn list<T: FromXdr>(bytes: &[u8]) {
    if let Ok(list) = Reader::new(bytes).list::<T>("a list", 1_000) {
        assert!(list.len() <= 1_000 && list.len() * T::MIN_SIZE <= bytes.len(), "{} elements", list.len());
    }
}

/// The same reply to every call: the first byte says whether it is a result or an error. A reply that cannot be read
/// costs its call, and not the connection.
pub(crate) fn rpc_replies(bytes: &[u8]) {
    let Some((status, payload)) = bytes.split_first() else { return };
    let status = if status % 2 == 0 { Status::Ok } else { Status::Error };
    let payload = Bytes::copy_from_slice(payload);
    runtime().block_on(async {
        let (ours, theirs) = duplex(PIPE);
        tokio::spawn(serve(theirs, move |call| vec![reply(call, status, payload.clone())]));
        let connection = open(ours).await;
        every_call(&connection).await;
        assert!(connection.is_open());
    });
}

/// An event message, which the first byte selects. One that cannot be read leaves a gap.
pub(crate) fn rpc_events(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else { return };
    let (program, number) = EVENTS[usize::from(*which) % EVENTS.len()];
    // Every registration has the number 0 here.
    let event = message(program, number, Bytes::from([&[0; 4], rest].concat()));
    runtime().block_on(async {
        let (ours, theirs) = duplex(PIPE);
        tokio::spawn(serve(theirs, move |call| {
            let answer = reply(call, Status::Ok, ZERO);
            if is(call, procedure::CONNECT_GET_HOSTNAME) { vec![event.clone(), answer] } else { vec![answer] }
        }));
        let connection = open(ours).await;
        let mut events = connection.events(4);
        answered(connection.watch(&events, EventId::Lifecycle, None).await);
        answered(connection.watch_monitor(&events, None, None).await);
        assert_eq!(answered(connection.hostname().await).as_deref(), Some(""));
        match events.next().await {
            Some(EventItem::Event(_)) => assert_ne!(number, UNKNOWN),
            Some(EventItem::Gap { missed }) => assert_eq!(missed, 1),
            None => panic!("the connection ended"),
        }
    });
}

/// Messages of all kinds, under the serials of calls, a stream and a registration that are open: four bytes select a
/// message and how many bytes of payload follow. Everyone who waits gets an answer when the daemon is gone.
pub(crate) fn rpc_link(bytes: &[u8]) {
    let mut sent = BytesMut::new();
    let mut left = bytes;
    while let Some(([kind, which, serial, length], rest)) = left.split_first_chunk() {
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(length % 64)));
        left = rest;
        let Some(status) = Status::from_wire(u32::from(kind / 8 % 4)) else {
            // Now and then something that is no message.
            sent.extend_from_slice(payload);
            continue;
        };
        let (program, procedure) = SENT[usize::from(*which) % SENT.len()];
        let (kind, serial) = (Kind::from_wire(u32::from(kind % 8)), u32::from(serial % 12));
        let header = Header { program, procedure, kind, serial, status };
        assert!(FrameCodec::default().encode((header, payload), &mut sent).is_ok());
    }
    runtime().block_on(async {
        let (ours, theirs) = duplex(PIPE + sent.len());
        tokio::spawn(async move {
            let wait = |call: &Header| is(call, procedure::CONNECT_GET_HOSTNAME);
            let answer = |call: &Header| {
                let result = if is(call, procedure::EVENT_REGISTER) { ZERO } else { Bytes::new() };
                if wait(call) { vec![] } else { vec![reply(call, Status::Ok, result)] }
            };
            let mut wire = serve_until(theirs, answer, wait).await;
            // The client may have ended the link.
            let _ended = wire.get_mut().write_all(&sent).await;
        });
        let connection = open(ours).await;
        let mut events = connection.events(4);
        answered(connection.watch(&events, EventId::Lifecycle, None).await);
        let vm = RemoteDomain::of(Uuid::nil());
        let opened = answered(connection.open_channel(&vm, None, 0, 100).await);
        let Some(mut stream) = opened else { panic!("the channel was not opened") };
        let _any = connection.hostname().await;
        while let Ok(Some(chunk)) = stream.recv().await {
            assert!(!chunk.is_empty());
        }
        while events.next().await.is_some() {}
        connection.closed().await;
    });
}

/// Simulates a daemon that accepts everyone, and answers calls with the given replies.
async fn serve(io: DuplexStream, answer: impl Fn(&Header) -> Vec<Frame>) {
    serve_until(io, answer, |_| false).await;
}

/// As [`serve`], until a call that ends it.
async fn serve_until(
    io: DuplexStream,
    answer: impl Fn(&Header) -> Vec<Frame>,
    last: impl Fn(&Header) -> bool,
) -> Framed<DuplexStream, FrameCodec> {
    let mut wire = Framed::new(io, FrameCodec::default());
    while let Some(Ok(Frame { header, .. })) = wire.next().await {
        let frames = match header.kind {
            Kind::Call => greet(&header).map_or_else(|| answer(&header), |hello| vec![hello]),
            // The end of a stream is confirmed.
            Kind::Stream if header.status != Status::Continue => {
                vec![Frame { header: Header { status: Status::Ok, ..header }, payload: Bytes::new() }]
            }
            _ => pong(&header).map_or_else(Vec::new, |pong| vec![pong]),
        };
        for frame in frames {
            if wire.send(frame).await.is_err() {
                return wire;
            }
        }
        if last(&header) {
            break;
        }
    }
    wire
}

/// The replies that open a connection.
fn greet(call: &Header) -> Option<Frame> {
    if is(call, procedure::AUTH_LIST) || is(call, procedure::CONNECT_SUPPORTS_FEATURE) {
        // No way to authenticate, or no such feature: the same word.
        return Some(reply(call, Status::Ok, ZERO));
    }
    is(call, procedure::CONNECT_OPEN).then(|| reply(call, Status::Ok, Bytes::new()))
}

/// The answer to a ping.
pub(crate) fn pong(ping: &Header) -> Option<Frame> {
    let header = Header { procedure: procedure::PONG.number, ..*ping };
    is(ping, procedure::PING).then(|| Frame { header, payload: Bytes::new() })
}

pub(crate) fn is(call: &Header, procedure: Procedure) -> bool {
    (call.program, call.procedure) == (procedure.program, procedure.number)
}

pub(crate) fn reply(call: &Header, status: Status, payload: Bytes) -> Frame {
    Frame { header: Header { kind: Kind::Reply, status, ..*call }, payload }
}

fn message(program: Program, procedure: i32, payload: Bytes) -> Frame {
    // Events carry the serial 1.
    Frame {
        header: Header { program, procedure, kind: Kind::Message, serial: 1, status: Status::Ok },
        payload,
    }
}

async fn open(io: DuplexStream) -> Connection {
    let uri = match "test:///default".parse::<Uri>() {
        Ok(uri) => uri,
        Err(error) => panic!("{error}"),
    };
    let opened = Connection::over(io, true, &uri, &ConnectOptions::default()).await;
    opened.unwrap_or_else(|error| panic!("{error:?}"))
}

/// What became of a call whose reply came.
fn answered<T>(result: Result<T, CallError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(CallError::Remote { .. } | CallError::Reply { .. }) => None,
        Err(other) => panic!("{other:?}"),
    }
}

async fn every_call(c: &Connection) {
    let second = Duration::from_secs(1);
    let vm = &RemoteDomain::of(Uuid::nil());
    answered(c.hostname().await);
    answered(c.lib_version().await);
    answered(c.version().await);
    answered(c.driver_type().await);
    answered(c.uri().await);
    answered(c.capabilities().await);
    answered(c.node_info().await);
    answered(c.free_memory().await);
    answered(c.list_domains(0).await);
    answered(c.domain_by_id(1).await);
    answered(c.domain_by_name("vm").await);
    answered(c.domain_by_uuid(Uuid::nil()).await);
    answered(c.domain_state(vm).await);
    answered(c.domain_info(vm).await);
    answered(c.domain_control_info(vm).await);
    answered(c.domain_job_info(vm).await);
    answered(c.domain_xml(vm, 0).await);
    answered(c.domain_metadata(vm, Metadata::Title, 0).await);
    answered(c.set_domain_metadata(vm, Metadata::Title, Some("x"), None, 0).await);
    answered(c.domain_autostart(vm).await);
    answered(c.set_domain_autostart(vm, true).await);
    answered(c.domain_is_active(vm).await);
    answered(c.domain_is_persistent(vm).await);
    answered(c.domain_stats(&[], 0, 0).await);
    answered(c.start_domain(vm).await);
    answered(c.destroy_domain(vm, 0).await);
    answered(c.shut_domain_down(vm, 0).await);
    answered(c.reboot_domain(vm, 0).await);
    answered(c.reset_domain(vm).await);
    answered(c.suspend_domain(vm).await);
    answered(c.resume_domain(vm).await);
    answered(c.pm_suspend_domain(vm, SuspendTarget::Disk, second).await);
    answered(c.wake_domain(vm).await);
    answered(c.inject_nmi(vm).await);
    answered(c.monitor_command(vm, "{}").await);
    answered(c.send_keys(vm, KeycodeSet::Linux, &[1], second).await);
    answered(c.agent_command(vm, "{}", AgentTimeout::Default).await);
    answered(c.guest_info(vm, 0).await);
    answered(c.freeze_file_systems(vm, &[]).await);
    answered(c.thaw_file_systems(vm, &[]).await);
    answered(c.trim_file_systems(vm, 0).await);
    answered(c.set_user_password(vm, "u", "p", false).await);
    answered(c.guest_hostname(vm).await);
    if let Some((_, picture)) = answered(c.screenshot(vm, 0, 100).await) {
        let ended = picture.finish().await;
        assert!(ended.is_ok(), "{ended:?}");
    }
    drop(answered(c.open_console(vm, None, 0, 100).await));
    drop(answered(c.open_channel(vm, None, 0, 100).await));
    let events = c.events(4);
    answered(c.watch(&events, EventId::Lifecycle, None).await);
    answered(c.watch_monitor(&events, None, None).await);
}

/// A connection URI. What is shown of it is a URI of the same place.
pub(crate) fn rpc_uri(bytes: &[u8]) {
    let Ok(uri) = text(bytes).parse::<Uri>() else { return };
    assert!(uri.parameter("tls_priority").is_none(), "{uri}");
    let shown: Uri = match uri.to_string().parse() {
        Ok(shown) => shown,
        // What was written as %20 is shown as it is.
        Err(_) => return,
    };
    assert_eq!((shown.transport, shown.port), (uri.transport, uri.port), "{uri}");
    let _name = uri.name();
}
