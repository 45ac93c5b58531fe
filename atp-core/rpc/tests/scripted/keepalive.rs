use std::collections::VecDeque;
use std::time::Duration;

use atp_rpc::frame::{FrameCodec, Header};
use atp_rpc::numbers::{Kind, Program, procedure};
use atp_rpc::xdr::encode;
use atp_rpc::{ConnectOptions, Connection, EndReason, Keepalive};
use bytes::BytesMut;
use tokio::io::duplex;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};

use tokio_util::codec::Encoder;

use crate::daemon::{Daemon, connect, connect_with, open};

#[tokio::test(start_paused = true)]
async fn a_daemon_that_is_silent_is_given_up_in_time() {
    let keepalive = Keepalive { interval: Duration::from_secs(5), count: 3 };
    let (connection, mut daemon) =
        connect_with(&ConnectOptions { keepalive, ..ConnectOptions::default() }).await;
    let start = Instant::now();
    let call = connection.hostname();
    let end = async { (call.await.unwrap_err(), connection.closed().await) };
    let pings = async {
        daemon.expect(procedure::CONNECT_GET_HOSTNAME).await;
        for n in 1..=3 {
            let ping = daemon.next().await;
            assert_eq!((ping.header.program, ping.header.procedure), (Program::KEEPALIVE, 1));
            assert_eq!((ping.header.kind, ping.header.serial), (Kind::Message, 0));
            assert_eq!(start.elapsed().as_secs(), 5 * n);
        }
    };
    let ((error, end), ()) = tokio::join!(end, pings);
    assert!(error.may_have_run(), "{error}");
    assert!(matches!(end.reason, EndReason::Keepalive { .. }), "{end:?}");
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_hung_call_on_a_living_daemon_is_waited_for() {
    let (connection, mut daemon) = connect().await;
    let play = async {
        let call = daemon.expect(procedure::CONNECT_GET_HOSTNAME).await;
        for _ in 0..100 {
            assert_eq!(daemon.next().await.header.procedure, procedure::PING.number);
            daemon.ping(procedure::PONG).await;
        }
        daemon.reply(&call, &"at last").await;
    };
    assert_eq!(tokio::join!(connection.hostname(), play).0.unwrap(), "at last");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reply_is_a_sign_of_life_all_the_time() {
    let (connection, mut daemon) = connect().await;
    let play = async {
        let call = daemon.expect(procedure::CONNECT_GET_CAPABILITIES).await;
        let header = Header { kind: Kind::Reply, ..call.header };
        let mut bytes = BytesMut::new();
        let text = encode(&"x".repeat(200)).unwrap();
        FrameCodec::default().encode((header, &text[..]), &mut bytes).unwrap();
        for byte in bytes {
            sleep(Duration::from_secs(4)).await;
            daemon.raw(&[byte]).await;
        }
    };
    assert_eq!(tokio::join!(connection.capabilities(), play).0.unwrap().len(), 200);
}

#[tokio::test(start_paused = true)]
async fn the_daemons_pings_are_answered() {
    let (_connection, mut daemon) = connect().await;
    for _ in 0..100 {
        daemon.ping(procedure::PING).await;
        let pong = daemon.next().await;
        assert_eq!((pong.header.program, pong.header.procedure), (Program::KEEPALIVE, 2));
        assert_eq!((pong.header.kind, pong.payload.len()), (Kind::Message, 0));
    }
}

/// It takes nothing off the socket, and what it sends is no sign that it is well. It keeps pinging, so that this link
/// does not end by its own keepalive; and the pongs it does not take are not heaped up.
#[tokio::test(start_paused = true)]
async fn a_daemon_that_stops_reading_costs_a_bounded_buffer() {
    let (connection, mut daemon) = connect().await;
    let long = "x".repeat(1_000_000);
    let call = connection.domain_by_name(&long);
    let play = async {
        // The call fills the socket first.
        sleep(Duration::from_secs(1)).await;
        for _ in 0..1_000 {
            daemon.ping(procedure::PING).await;
        }
        sleep(Duration::from_secs(1)).await;
        let call = daemon.expect(procedure::DOMAIN_LOOKUP_BY_NAME).await;
        let mut pongs = 0;
        while timeout(Duration::from_secs(1), daemon.next()).await.is_ok() {
            pongs += 1;
        }
        assert!((1..=16).contains(&pongs), "{pongs}");
        daemon.reply(&call, &atp_rpc::RemoteDomain::of(Default::default())).await;
    };
    tokio::join!(call, play).0.unwrap();
}

/// A connection to a daemon that takes so many messages at once, and the daemon's side of it.
async fn connect_to(max_client_requests: usize) -> (Connection, Daemon) {
    let (ours, theirs) = duplex(64 * 1024);
    let mut daemon = Daemon::new(theirs);
    let options = ConnectOptions::default();
    let (connection, ()) = tokio::join!(open(ours, &options), daemon.greet_with(max_client_requests));
    (connection.unwrap(), daemon)
}

#[tokio::test(start_paused = true)]
async fn a_connection_carries_one_call_fewer_than_the_daemon_takes_messages() {
    for (max_client_requests, max_in_flight) in [(1, 1), (2, 1), (3, 2), (4, 3), (5, 4), (20, 4)] {
        let (connection, mut daemon) = connect_to(max_client_requests).await;
        assert_eq!(connection.max_in_flight(), max_in_flight, "of {max_client_requests}");
        let calls = futures_util::future::join_all([(); 6].map(|()| connection.hostname()));
        let play = async {
            let mut held = Vec::new();
            for _ in 0..max_in_flight {
                held.push(daemon.expect(procedure::CONNECT_GET_HOSTNAME).await);
            }
            // What comes next is a ping.
            assert_eq!(daemon.next().await.header.program, Program::KEEPALIVE);
        };
        tokio::select! {
            _ = calls => panic!("calls were answered"),
            () = play => {}
        }
    }
}

/// Until then one call is under way, and only one is made to learn whether the daemon reads pings beside it.
#[tokio::test(start_paused = true)]
async fn what_a_daemon_takes_can_be_measured_later_beside_a_call_that_hangs() {
    for (max_client_requests, max_in_flight) in [(2, 1), (3, 2), (4, 3), (5, 4), (20, 4)] {
        let (ours, theirs) = duplex(64 * 1024);
        let mut daemon = Daemon::new(theirs);
        let options = ConnectOptions { measure: false, ..ConnectOptions::default() };
        let (connection, ()) = tokio::join!(open(ours, &options), daemon.greet_with(max_client_requests));
        let connection = connection.unwrap();
        assert_eq!((connection.max_in_flight(), connection.is_measured()), (1, false));
        let same = connection.clone();
        let hung = tokio::spawn(async move { same.hostname().await });
        let call = daemon.expect(procedure::CONNECT_GET_HOSTNAME).await;
        let play = async {
            let mut held = VecDeque::new();
            loop {
                let frame = daemon.next().await;
                match frame.header.program {
                    Program::KEEPALIVE => {
                        daemon.ping(procedure::PONG).await;
                        if daemon.wire.read_buffer().is_empty() {
                            for call in std::mem::take(&mut held) {
                                daemon.reply(&call, &()).await;
                            }
                        }
                    }
                    _ => held.push_back(frame),
                }
                if held.len() + 1 == max_client_requests
                    && let Some(call) = held.pop_front()
                {
                    daemon.reply(&call, &()).await;
                }
            }
        };
        tokio::select! {
            found = connection.measure() => assert_eq!(found.unwrap(), max_in_flight),
            () = play => {}
        }
        assert_eq!((connection.max_in_flight(), connection.is_measured()), (max_in_flight, true));
        daemon.reply(&call, &"at last").await;
        assert_eq!(hung.await.unwrap().unwrap(), "at last");
    }
    let (ours, theirs) = duplex(64 * 1024);
    let options = ConnectOptions { measure: false, ..ConnectOptions::default() };
    let mut daemon = Daemon::new(theirs);
    let (connection, ()) = tokio::join!(open(ours, &options), daemon.greet_with(1));
    let connection = connection.unwrap();
    assert_eq!((connection.max_in_flight(), connection.is_measured()), (1, true));
}

/// A daemon at its `max_client_requests` does not read pings. Whether it is dead is asked on another connection.
#[tokio::test]
async fn a_silent_daemon_that_takes_one_message_is_asked_on_another_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("test+tcp://{}/default", listener.local_addr().unwrap());
    let keepalive = Keepalive { interval: Duration::from_millis(200), count: 1 };
    let options = ConnectOptions { keepalive, ..ConnectOptions::default() };
    let accept = async || Daemon::new(listener.accept().await.unwrap().0);
    let greet = async {
        let mut daemon = accept().await;
        daemon.greet_with(1).await;
        daemon
    };
    let (connection, mut daemon) = tokio::join!(Connection::open(&uri, &options), greet);
    let connection = connection.unwrap();
    let play = async {
        let call = daemon.expect(procedure::CONNECT_GET_HOSTNAME).await;
        for _ in 0..3 {
            let mut other = accept().await;
            let call = other.expect(procedure::AUTH_LIST).await;
            other.reply(&call, &0u32).await;
            assert_eq!(other.next().await.header.program, Program::KEEPALIVE);
            other.ping(procedure::PONG).await;
        }
        daemon.reply(&call, &"at last").await;
    };
    assert_eq!(tokio::join!(connection.hostname(), play).0.unwrap(), "at last");

    // It takes the connection and says nothing there either.
    let (error, _silent) = tokio::join!(connection.hostname(), accept());
    assert!(error.unwrap_err().may_have_run());
    assert!(matches!(connection.closed().await.reason, EndReason::Keepalive { .. }));
}
