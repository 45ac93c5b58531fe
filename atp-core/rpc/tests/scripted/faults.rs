//! Faults of the wire while calls are under way.

use std::net::Shutdown;
use std::time::Duration;

use atp_rpc::frame::{FrameError, Header, MAX_CHUNK, MAX_MESSAGE};
use atp_rpc::numbers::{Kind, Program, procedure};
use atp_rpc::{
    CallError, ConnectFailure, ConnectOptions, Connection, EndReason, EventId, EventItem, RemoteDomain,
};
use bytes::Bytes;
use tokio::net::{TcpListener, UnixStream};

use crate::daemon::{Daemon, connect};

#[tokio::test(start_paused = true)]
async fn a_flood_of_events_between_a_call_and_its_reply_delays_neither() {
    let (connection, mut daemon) = connect().await;
    let mut events = connection.events(10);
    let play = async {
        let call = daemon.expect(procedure::EVENT_REGISTER).await;
        daemon.reply(&call, &7).await;
        let call = daemon.expect(procedure::CONNECT_GET_HOSTNAME).await;
        for _ in 0..1_000 {
            daemon.event(7).await;
        }
        daemon.reply(&call, &"h").await;
    };
    let calls = async {
        connection.watch(&events, EventId::Reboot, None).await.unwrap();
        connection.hostname().await.unwrap()
    };
    assert_eq!(tokio::join!(calls, play).0, "h");
    for _ in 0..10 {
        assert!(matches!(events.next().await, Some(EventItem::Event(_))));
    }
    assert_eq!(events.next().await, Some(EventItem::Gap { missed: 990 }));
}

#[tokio::test(start_paused = true)]
async fn a_message_out_of_range_ends_the_calls_that_are_under_way() {
    for length in [27, MAX_MESSAGE as u32 + 1] {
        let (connection, mut daemon) = connect().await;
        let play = async {
            daemon.expect(procedure::CONNECT_GET_HOSTNAME).await;
            daemon.raw(&length.to_be_bytes()).await;
        };
        let (result, ()) = tokio::join!(connection.hostname(), play);
        match result.unwrap_err() {
            CallError::Lost { sent: true, source, .. } => {
                let is_it = matches!(source.reason, EndReason::Frame(FrameError::Length { length: of, .. }) if of == length);
                assert!(is_it, "{source:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// It still sends, but takes nothing any more.
#[tokio::test]
async fn a_daemon_that_closes_its_reading_half_has_not_run_the_call() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut daemon = Daemon::new(theirs);
    let uri = "test:///default".parse().unwrap();
    let options = ConnectOptions::default();
    let (connection, ()) = tokio::join!(Connection::over(ours, true, &uri, &options), daemon.greet());
    let connection = connection.unwrap();
    let theirs = daemon.wire.into_inner().into_std().unwrap();
    theirs.shutdown(Shutdown::Read).unwrap();
    let error = connection.hostname().await.unwrap_err();
    assert!(!error.may_have_run(), "{error:?}");
    assert!(matches!(connection.closed().await.reason, EndReason::Frame(FrameError::Io(_))));
}

/// The daemon closes a connection whose pongs do not come. They wait behind what was queued before, and no more of a
/// long upload goes before them.
#[tokio::test(start_paused = true)]
async fn an_upload_does_not_starve_the_answers_to_pings() {
    let (connection, mut daemon) = connect().await;
    let domain = RemoteDomain::of(Default::default());
    let play = async {
        let call = daemon.expect(procedure::DOMAIN_OPEN_CHANNEL).await;
        daemon.reply(&call, &()).await;
    };
    let (stream, ()) = tokio::join!(connection.open_channel(&domain, None, 0, 1_000), play);
    let stream = stream.unwrap();
    let sending = tokio::spawn(async move { stream.send(Bytes::from(vec![7; 100 * MAX_CHUNK])).await });
    let mut chunks = 0;
    let mut pongs = 0;
    daemon.ping(procedure::PING).await;
    while pongs == 0 {
        let frame = daemon.next().await;
        match frame.header {
            Header { kind: Kind::Stream, .. } => chunks += 1,
            Header { program: Program::KEEPALIVE, procedure: 1, .. } => daemon.ping(procedure::PONG).await,
            Header { program: Program::KEEPALIVE, procedure: 2, .. } => pongs += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(chunks <= 8, "{chunks} chunks went before the pong");
    sending.abort();
}

/// A peer that hangs up may be a port for TLS, which is looked at. One that hangs then is still one that hung up.
#[tokio::test]
async fn a_look_at_a_peer_that_hangs_leaves_the_failure_that_led_to_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("test+tcp://{}/default", listener.local_addr().unwrap());
    let options = ConnectOptions { timeout: Duration::from_secs(1), ..ConnectOptions::default() };
    let peer = async {
        drop(listener.accept().await.unwrap());
        listener.accept().await.unwrap()
    };
    let (result, _silent) = tokio::join!(Connection::open(&uri, &options), peer);
    let error = result.unwrap_err();
    assert!(matches!(error.failure, ConnectFailure::Call(CallError::Lost { .. })), "{error:?}");
}
