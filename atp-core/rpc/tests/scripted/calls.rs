use std::sync::Arc;
use std::time::Duration;

use atp_rpc::frame::{FrameError, Header};
use atp_rpc::numbers::{Kind, Status, code, procedure};
use atp_rpc::{CallError, ConnectFailure, ConnectOptions, Connection, EndReason, EventId, EventItem, Stage};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::{Instant, sleep, timeout};

use crate::daemon::{Daemon, connect, connect_with, open};

const HOSTNAME: atp_rpc::numbers::Procedure = procedure::CONNECT_GET_HOSTNAME;

#[tokio::test(start_paused = true)]
async fn replies_find_their_calls_in_any_order() {
    let (connection, mut daemon) = connect().await;
    let play = async {
        let calls = [daemon.expect(HOSTNAME).await, daemon.expect(HOSTNAME).await];
        for (call, name) in calls.iter().zip(["one", "two"]).rev() {
            // One of a serial that no call has, one of another program, and an event of no registration.
            let unknown = Header { kind: Kind::Reply, serial: 77_777, ..call.header };
            daemon.send(unknown, &[1, 2, 3, 4]).await;
            daemon.event(9).await;
            daemon.reply(call, &name).await;
            daemon.reply(call, &"again").await;
        }
    };
    let calls = async { tokio::join!(connection.hostname(), connection.hostname()) };
    let ((one, two), ()) = tokio::join!(calls, play);
    assert_eq!((one.unwrap().as_str(), two.unwrap().as_str()), ("one", "two"));
    assert!(connection.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_byte_at_a_time_is_enough() {
    let (ours, theirs) = duplex(1);
    let mut daemon = Daemon::new(theirs);
    let options = ConnectOptions::default();
    let (connection, ()) = tokio::join!(open(ours, &options), daemon.greet());
    let connection = connection.unwrap();
    let play = async {
        let call = daemon.expect(HOSTNAME).await;
        daemon.reply(&call, &"slow").await;
    };
    assert_eq!(tokio::join!(connection.hostname(), play).0.unwrap(), "slow");
}

#[tokio::test(start_paused = true)]
async fn an_event_may_come_before_the_reply_to_its_registration() {
    let (connection, mut daemon) = connect().await;
    let mut events = connection.events(4);
    let play = async {
        let call = daemon.expect(procedure::EVENT_REGISTER).await;
        daemon.event(0).await;
        daemon.event(5).await;
        daemon.reply(&call, &0).await;
        daemon.event(0).await;
    };
    tokio::join!(connection.watch(&events, EventId::Reboot, None), play).0.unwrap();
    for _ in 0..2 {
        assert!(matches!(events.next().await, Some(EventItem::Event(_))));
    }
    // One that cannot be read leaves a gap.
    let header = Header { kind: Kind::Message, procedure: 319, ..Header::call(HOSTNAME, 1) };
    daemon.send(header, &[0, 0, 0, 0, 1]).await;
    assert_eq!(events.next().await, Some(EventItem::Gap { missed: 1 }));
    drop(events);
    let call = daemon.expect(procedure::EVENT_DEREGISTER).await;
    assert_eq!(call.payload[..], [0; 4]);
}

#[tokio::test(start_paused = true)]
async fn events_that_are_not_taken_hold_up_nothing_and_leave_a_gap() {
    let (connection, mut daemon) = connect().await;
    let mut events = connection.events(2);
    let play = async {
        let call = daemon.expect(procedure::EVENT_REGISTER).await;
        daemon.reply(&call, &1).await;
        for _ in 0..5 {
            daemon.event(1).await;
        }
        let call = daemon.expect(HOSTNAME).await;
        daemon.reply(&call, &"h").await;
    };
    let calls = async {
        connection.watch(&events, EventId::Reboot, None).await.unwrap();
        connection.hostname().await.unwrap()
    };
    tokio::join!(calls, play);
    for _ in 0..2 {
        assert!(matches!(events.next().await, Some(EventItem::Event(_))));
    }
    assert_eq!(events.next().await, Some(EventItem::Gap { missed: 3 }));
    drop(daemon);
    assert_eq!(events.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_registration_whose_queue_was_dropped_is_withdrawn() {
    let (connection, mut daemon) = connect().await;
    let events = connection.events(4);
    let watch = connection.watch(&events, EventId::Reboot, None);
    assert!(timeout(Duration::from_secs(1), watch).await.is_err());
    drop(events);
    let call = daemon.expect(procedure::EVENT_REGISTER).await;
    daemon.reply(&call, &3).await;
    let call = daemon.expect(procedure::EVENT_DEREGISTER).await;
    assert_eq!(call.payload[..], [0, 0, 0, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_keeps_its_place_and_its_token_until_the_reply() {
    let options = ConnectOptions { max_in_flight: 1, ..ConnectOptions::default() };
    let (connection, mut daemon) = connect_with(&options).await;
    let token = Arc::new(());
    let call = async |time| {
        let holding = connection.holding(token.clone());
        timeout(Duration::from_secs(time), holding.hostname()).await.is_ok()
    };
    assert!(!call(1).await);
    assert_eq!(Arc::strong_count(&token), 2, "the daemon works on it");
    // The second waits for the place, and is never sent.
    assert!(!call(1).await);
    assert_eq!(Arc::strong_count(&token), 2);
    let hung = daemon.expect(HOSTNAME).await;
    daemon.reply(&hung, &"late").await;
    let play = async {
        let call = daemon.expect(HOSTNAME).await;
        assert_eq!(call.header.serial, hung.header.serial + 1);
        daemon.reply(&call, &"new").await;
    };
    assert_eq!(tokio::join!(connection.hostname(), play).0.unwrap(), "new");
    assert_eq!(Arc::strong_count(&token), 1);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_link_lets_tokens_go() {
    let (connection, daemon) = connect().await;
    let token = Arc::new(());
    let holding = connection.holding(token.clone());
    assert!(timeout(Duration::from_secs(1), holding.hostname()).await.is_err());
    drop(holding);
    drop(daemon);
    connection.closed().await;
    tokio::task::yield_now().await;
    assert_eq!(Arc::strong_count(&token), 1);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_ends_says_which_calls_may_have_run() {
    // The socket takes the first call and a part of the second.
    let (ours, theirs) = duplex(400);
    let mut daemon = Daemon::new(theirs);
    let options = ConnectOptions::default();
    let (connection, ()) = tokio::join!(open(ours, &options), daemon.greet());
    let connection = connection.unwrap();
    let long = "x".repeat(1_000);
    let play = async {
        sleep(Duration::from_secs(1)).await;
        drop(daemon);
    };
    let calls = async { tokio::join!(connection.hostname(), connection.domain_by_name(&long)) };
    let ((sent, unsent), ()) = tokio::join!(calls, play);
    let (sent, unsent) = (sent.unwrap_err(), unsent.unwrap_err());
    assert!(sent.may_have_run(), "{sent}");
    assert!(!unsent.may_have_run(), "{unsent}");
    let after = connection.hostname().await.unwrap_err();
    assert!(matches!(after, CallError::Lost { sent: false, .. }), "{after}");
}

#[tokio::test(start_paused = true)]
async fn an_error_reply_is_the_daemons_error() {
    let (connection, mut daemon) = connect().await;
    let play = async {
        let call = daemon.expect(procedure::DOMAIN_LOOKUP_BY_NAME).await;
        let header = Header { kind: Kind::Reply, status: Status::Error, ..call.header };
        // Code, domain, message, level, no domain, one string of three, two numbers, no network.
        let text = |text| atp_rpc::xdr::encode(&Some(text)).unwrap();
        let mut payload = atp_rpc::xdr::encode(&(42, 10)).unwrap();
        payload.extend(text("Domain not found"));
        payload.extend(atp_rpc::xdr::encode(&(2, 0u32)).unwrap());
        payload.extend(text("first"));
        payload.extend(atp_rpc::xdr::encode(&(0u32, 0u32, 7, -1, 0u32)).unwrap());
        daemon.send(header, &payload).await;
    };
    let error = tokio::join!(connection.domain_by_name("x"), play).0.unwrap_err();
    assert!(error.is_code(code::NO_DOMAIN), "{error:?}");
    let remote = error.remote().unwrap();
    assert_eq!((remote.domain, remote.level, remote.numbers), (10, 2, [7, -1]));
    assert_eq!(remote.strings, [Some("first".to_owned()), None, None]);
    assert_eq!(remote.message, "Domain not found");
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_cannot_be_read_costs_its_call_alone() {
    let (connection, mut daemon) = connect().await;
    let play = async {
        let call = daemon.expect(HOSTNAME).await;
        daemon.reply(&call, &u32::MAX).await;
        let call = daemon.expect(HOSTNAME).await;
        daemon.reply(&call, &"fine").await;
    };
    let calls = async { (connection.hostname().await, connection.hostname().await) };
    let ((bad, fine), ()) = tokio::join!(calls, play);
    assert!(matches!(bad, Err(CallError::Reply { .. })), "{bad:?}");
    assert_eq!(fine.unwrap(), "fine");
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_message_end_the_link() {
    for (bytes, cut) in
        [(&[0xff, 0xff, 0xff, 0xff, 1, 2][..], false), (&[0, 0, 0, 27], false), (&[0, 0, 1, 0, 9, 9], true)]
    {
        let (connection, mut daemon) = connect().await;
        daemon.raw(bytes).await;
        if cut {
            drop(daemon);
        }
        let end = connection.closed().await;
        match &end.reason {
            EndReason::Frame(FrameError::Length { .. }) => assert!(!cut),
            EndReason::Frame(FrameError::Cut(6)) => assert!(cut),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_connection_is_none() {
    let (connection, mut daemon) = connect().await;
    daemon.wire.get_mut().shutdown().await.unwrap();
    assert!(matches!(connection.closed().await.reason, EndReason::Eof));
    // The client closes its half too.
    assert_eq!(daemon.wire.get_mut().read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_no_daemon_is_named() {
    for (answer, tls, begins) in [
        (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], false, "SSH-2.0-"),
        (b"HTTP/1.1 400 Bad Request\r\n", false, "HTTP/1.1"),
        (&[0x15, 3, 3, 0, 2, 2, 10], true, ""),
    ] {
        let (ours, mut theirs) = duplex(1_000);
        theirs.write_all(answer).await.unwrap();
        let error = open(ours, &ConnectOptions::default()).await.unwrap_err();
        assert_eq!(error.stage, Stage::Greet);
        match &error.failure {
            ConnectFailure::SpeaksTls => assert!(tls),
            ConnectFailure::NotLibvirt { begins: found } => assert!(found.starts_with(begins) && !tls),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn connecting_says_at_which_stage_it_was_given_up() {
    let (ours, theirs) = duplex(1_000);
    let mut daemon = Daemon::new(theirs);
    let options = ConnectOptions { timeout: Duration::from_secs(3), ..ConnectOptions::default() };
    let error = open(ours, &options).await.unwrap_err();
    assert!(matches!(error.failure, ConnectFailure::Timeout(_)), "{error:?}");
    assert_eq!(error.stage, Stage::Greet);
    // Nothing is left of it.
    daemon.expect(procedure::AUTH_LIST).await;
    assert_eq!(daemon.wire.get_mut().read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_are_in_flight_than_may_be() {
    let (connection, mut daemon) = connect().await;
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let connection = connection.clone();
            tokio::spawn(async move { connection.hostname().await.unwrap() })
        })
        .collect();
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(daemon.expect(HOSTNAME).await);
    }
    let fifth = timeout(Duration::from_secs(1), daemon.next()).await;
    assert!(fifth.is_err(), "{fifth:?}");
    for _ in 0..16 {
        daemon.reply(&open.remove(0), &"x").await;
        open.push(daemon.expect(HOSTNAME).await);
    }
    for call in open {
        daemon.reply(&call, &"x").await;
    }
    for call in calls {
        call.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_way_to_authenticate_is_taken_or_the_one_that_is_wanted() {
    let options = ConnectOptions::default();
    for (wanted, asked) in [("", Some(procedure::AUTH_POLKIT)), ("?auth=none", None)] {
        let (ours, theirs) = duplex(1_000);
        let mut daemon = Daemon::new(theirs);
        let uri = format!("test:///default{wanted}").parse().unwrap();
        let connecting = Connection::over(ours, true, &uri, &options);
        let play = async {
            let call = daemon.expect(procedure::AUTH_LIST).await;
            // polkit, SASL, none.
            daemon.reply(&call, &((3u32, 2, 1), 0)).await;
            if let Some(asked) = asked {
                let call = daemon.expect(asked).await;
                daemon.reply(&call, &()).await;
            }
            daemon.expect(procedure::CONNECT_OPEN).await;
            drop(daemon);
        };
        let (error, ()) = tokio::join!(connecting, play);
        assert_eq!(error.unwrap_err().stage, Stage::Open);
    }
}

#[tokio::test(start_paused = true)]
async fn a_way_to_authenticate_that_is_not_offered_is_named() {
    let (ours, theirs) = duplex(1_000);
    let mut daemon = Daemon::new(theirs);
    let (uri, options) = ("test:///default?auth=sasl".parse().unwrap(), ConnectOptions::default());
    let play = async {
        let call = daemon.expect(procedure::AUTH_LIST).await;
        daemon.reply(&call, &(1u32, 2)).await;
    };
    let (error, ()) = tokio::join!(Connection::over(ours, true, &uri, &options), play);
    let failure = error.unwrap_err().failure;
    assert!(
        matches!(&failure, ConnectFailure::Mechanism { offered, .. } if offered == "polkit"),
        "{failure}"
    );
}

/// Also when no call is under way.
#[tokio::test(start_paused = true)]
async fn a_daemon_that_loses_its_hypervisor_says_so() {
    let (connection, mut daemon) = connect().await;
    let header = Header { kind: Kind::Message, ..Header::call(procedure::EVENT_CONNECTION_CLOSED, 1) };
    daemon.send(header, &[0, 0, 0, 2]).await;
    assert!(matches!(connection.closed().await.reason, EndReason::Notice { reason: 2 }));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_connection_takes_its_leave_and_does_not_wait_for_long() {
    let (connection, mut daemon) = connect().await;
    drop(connection);
    let close = daemon.expect(procedure::CONNECT_CLOSE).await;
    // The daemon closes its side when it has answered, and the link follows.
    daemon.reply(&close, &()).await;
    let dropped = Instant::now();
    daemon.wire.get_mut().shutdown().await.unwrap();
    assert!(daemon.wire.next().await.is_none());
    assert_eq!(dropped.elapsed(), Duration::ZERO);

    let (connection, mut daemon) = connect().await;
    let dropped = Instant::now();
    drop(connection);
    daemon.expect(procedure::CONNECT_CLOSE).await;
    assert!(daemon.wire.next().await.is_none());
    assert_eq!(dropped.elapsed(), Duration::from_secs(1));
}
