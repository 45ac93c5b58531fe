use std::time::Duration;

use atp_rpc::frame::{Frame, Header, MAX_CHUNK};
use atp_rpc::numbers::{Kind, Status, procedure};
use atp_rpc::{Connection, RemoteDomain, Stream, StreamError};
use bytes::Bytes;
use tokio::time::timeout;

use crate::daemon::{Daemon, connect};

const CHANNEL: atp_rpc::numbers::Procedure = procedure::DOMAIN_OPEN_CHANNEL;

async fn open(connection: &Connection, daemon: &mut Daemon, buffer: usize) -> (Stream, Frame) {
    let domain = RemoteDomain::of(Default::default());
    let play = async {
        let call = daemon.expect(CHANNEL).await;
        daemon.reply(&call, &()).await;
        call
    };
    let (stream, call) = tokio::join!(connection.open_channel(&domain, None, 0, buffer), play);
    (stream.unwrap(), call)
}

/// The next message, which has to belong to the stream.
async fn expect(daemon: &mut Daemon, of: &Frame, status: Status) -> Bytes {
    let frame = daemon.next().await;
    assert_eq!(frame.header, Header { kind: Kind::Stream, status, ..of.header });
    frame.payload
}

async fn expect_ping(daemon: &mut Daemon) {
    assert_eq!(
        daemon.next().await.header,
        Header { kind: Kind::Message, ..Header::call(procedure::PING, 0) }
    );
}

#[tokio::test(start_paused = true)]
async fn data_flows_in_both_directions_to_the_end() {
    let (connection, mut daemon) = connect().await;
    let (mut stream, call) = open(&connection, &mut daemon, 1_000).await;
    daemon.stream(&call, Status::Continue, b"down").await;
    assert_eq!(stream.recv().await.unwrap().unwrap()[..], b"down"[..]);
    stream.send(Bytes::from_static(b"up")).await.unwrap();
    assert_eq!(expect(&mut daemon, &call, Status::Continue).await[..], b"up"[..]);
    expect_ping(&mut daemon).await;
    daemon.ping(procedure::PONG).await;
    daemon.stream(&call, Status::Continue, b"").await;
    assert_eq!(stream.recv().await.unwrap(), None);
    let play = async {
        expect(&mut daemon, &call, Status::Ok).await;
        daemon.stream(&call, Status::Ok, b"").await;
        // Late packets are ignored.
        daemon.stream(&call, Status::Continue, b"late").await;
    };
    tokio::join!(stream.finish(), play).0.unwrap();
    assert!(connection.is_open());
}

/// A real daemon reads on one thread what it replies about on another.
#[tokio::test(start_paused = true)]
async fn data_may_come_before_the_reply_that_opens_the_stream() {
    let (connection, mut daemon) = connect().await;
    let domain = RemoteDomain::of(Default::default());
    let play = async {
        let call = daemon.expect(CHANNEL).await;
        daemon.stream(&call, Status::Continue, b"early").await;
        daemon.stream(&call, Status::Continue, b"").await;
        daemon.reply(&call, &()).await;
    };
    let (stream, ()) = tokio::join!(connection.open_channel(&domain, None, 0, 100), play);
    let mut stream = stream.unwrap();
    assert_eq!(stream.recv().await.unwrap().unwrap()[..], b"early"[..]);
    assert_eq!(stream.recv().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn chunks_up_count_as_calls_until_they_are_taken() {
    let (connection, mut daemon) = connect().await;
    let (stream, call) = open(&connection, &mut daemon, 1_000).await;
    let data = Bytes::from(vec![7; 6 * MAX_CHUNK]);
    let sending = tokio::spawn(async move { (stream.send(data).await, stream) });
    for _ in 0..4 {
        assert_eq!(expect(&mut daemon, &call, Status::Continue).await.len(), MAX_CHUNK);
        expect_ping(&mut daemon).await;
    }
    // Nothing more, and no calls either, until the daemon shows that it goes on.
    let host = connection.hostname();
    tokio::select! {
        _ = host => panic!("it has no place"),
        more = timeout(Duration::from_secs(1), daemon.next()) => assert!(more.is_err(), "{more:?}"),
    }
    for _ in 0..2 {
        daemon.ping(procedure::PONG).await;
        expect(&mut daemon, &call, Status::Continue).await;
        expect_ping(&mut daemon).await;
    }
    let (sent, _stream) = sending.await.unwrap();
    sent.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_read_is_aborted_and_holds_up_nothing() {
    let (connection, mut daemon) = connect().await;
    let (mut stream, call) = open(&connection, &mut daemon, 10).await;
    daemon.stream(&call, Status::Continue, b"12345678").await;
    daemon.stream(&call, Status::Continue, b"12345678").await;
    expect(&mut daemon, &call, Status::Error).await;
    daemon.stream(&call, Status::Continue, b"12345678").await;
    let play = async {
        let call = daemon.expect(procedure::CONNECT_GET_HOSTNAME).await;
        daemon.reply(&call, &"h").await;
    };
    assert_eq!(tokio::join!(connection.hostname(), play).0.unwrap(), "h");
    assert_eq!(stream.recv().await.unwrap().unwrap()[..], b"12345678"[..]);
    assert!(matches!(stream.recv().await, Err(StreamError::Overrun { limit: 10 })));
    assert_eq!(stream.recv().await.unwrap(), None);
    daemon.stream(&call, Status::Ok, b"").await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_is_aborted() {
    let (connection, mut daemon) = connect().await;
    let (stream, call) = open(&connection, &mut daemon, 1_000).await;
    drop(stream);
    expect(&mut daemon, &call, Status::Error).await;
    daemon.stream(&call, Status::Ok, b"").await;

    // Also one whose opening was given up before the reply came.
    let domain = RemoteDomain::of(Default::default());
    let opening = connection.open_channel(&domain, None, 0, 10);
    assert!(timeout(Duration::from_secs(1), opening).await.is_err());
    let call = daemon.expect(CHANNEL).await;
    daemon.reply(&call, &()).await;
    expect(&mut daemon, &call, Status::Error).await;
}

#[tokio::test(start_paused = true)]
async fn the_daemons_error_ends_a_stream() {
    let (connection, mut daemon) = connect().await;
    let (mut stream, call) = open(&connection, &mut daemon, 1_000).await;
    daemon.stream(&call, Status::Continue, b"some").await;
    let error = atp_rpc::xdr::encode(&((9, 38, Some("broken"), 2), (0u32, 0u32, 0u32, 0u32), (0, 0, 0u32)));
    daemon.stream(&call, Status::Error, &error.unwrap()).await;
    assert!(stream.recv().await.unwrap().is_some());
    match stream.recv().await {
        Err(StreamError::Remote(error)) => assert_eq!((error.code, error.message.as_str()), (9, "broken")),
        other => panic!("{other:?}"),
    }
    assert_eq!(stream.recv().await.unwrap(), None);
    // To send more is no further error; the data is dropped.
    stream.send(Bytes::from_static(b"x")).await.unwrap();
    stream.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_link_ends_a_stream() {
    let (connection, mut daemon) = connect().await;
    let (mut stream, call) = open(&connection, &mut daemon, 1_000).await;
    daemon.stream(&call, Status::Continue, b"last").await;
    drop(daemon);
    assert_eq!(stream.recv().await.unwrap().unwrap()[..], b"last"[..]);
    assert!(matches!(stream.recv().await, Err(StreamError::Lost(_))));
    assert!(stream.finish().await.is_err());
}
