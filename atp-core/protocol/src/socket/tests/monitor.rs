//! Tests of a monitor's link.

use std::pin::pin;

use futures_util::FutureExt;
use futures_util::future::join;
use serde_json::json;
use tokio::time::sleep;

use super::super::end::{LinkEnd, SendError};
use super::super::{MonitorNotice, Oversized, SocketConfig, SocketLink};
use super::*;

fn ended(end: LinkEnd, sent: bool) -> Result<Value, SendError> {
    Err(SendError::Ended { end, sent })
}

#[tokio::test(start_paused = true)]
async fn replies_are_matched_whatever_their_order() {
    let (link, mut peer) = monitor(SocketConfig::default()).await;
    let answers = async {
        let (first, second) = (peer.command().await, peer.command().await);
        peer.answer(&json!({"id": 4711}), json!("nobody's")).await;
        peer.answer(&json!({"id": "text"}), json!("nobody's")).await;
        peer.answer(&json!({}), json!("nobody's")).await;
        peer.answer(&second, json!("second")).await;
        peer.answer(&second, json!("again")).await;
        peer.answer(&first, json!("first")).await;
    };
    let (got, ()) = join(join(send(&link, QUERY), send(&link, QUERY)), answers).await;
    assert_eq!(got, (Ok(json!("first")), Ok(json!("second"))));
}

#[tokio::test(start_paused = true)]
async fn a_late_reply_is_not_mistaken_for_the_next_one() {
    let (link, mut peer) = monitor(SocketConfig::default()).await;
    assert_eq!(send_within(&link, QUERY, SECOND).await, None);
    let answers = async {
        let (late, next) = (peer.command().await, peer.command().await);
        peer.answer(&late, json!("late")).await;
        peer.answer(&next, json!("next")).await;
    };
    let (got, ()) = join(send(&link, QUERY), answers).await;
    assert_eq!(got, Ok(json!("next")));
}

#[tokio::test(start_paused = true)]
async fn bytes_may_arrive_one_by_one_with_events_between_replies() {
    let (link, mut peer) = monitor(SocketConfig::default()).await;
    let answers = async {
        let command = peer.command().await;
        peer.event(1).await;
        for byte in json!({"return": "é", "id": command["id"]}).to_string().bytes().chain([b'\r', b'\n']) {
            peer.raw(&[byte]).await;
            sleep(SECOND).await;
        }
    };
    assert_eq!(join(send(&link, QUERY), answers).await.0, Ok(json!("é")));
}

#[tokio::test(start_paused = true)]
async fn unread_events_block_nothing_and_are_counted() {
    let config = SocketConfig { event_buffer: 16, max_event: 200, ..SocketConfig::default() };
    let (link, mut peer) = monitor(config).await;
    let mut events = link.events().unwrap().unwrap();
    let answers = async {
        let command = peer.command().await;
        for number in 0..10_000 {
            peer.event(number).await;
        }
        peer.answer(&command, json!("through")).await;
    };
    assert_eq!(join(send(&link, QUERY), answers).await.0, Ok(json!("through")));

    let MonitorNotice::Gap { missed } = events.next().await.unwrap() else { panic!("no gap is told") };
    assert_eq!(missed, 10_000 - 16);
    for number in 10_000 - 16..10_000 {
        let MonitorNotice::Event(event) = events.next().await.unwrap() else { panic!("a gap too many") };
        assert_eq!((event.name.as_str(), &event.data), ("TICK", &json!({"n": number})));
        assert_eq!(event.time(), Some(Duration::from_micros(1_000_002)));
    }
    // An event that is too long, and one that is invalid.
    peer.line(&json!({"event": "LONG", "data": "x".repeat(300)}).to_string()).await;
    peer.line(r#"{"event": 7}"#).await;
    for _ in 0..2 {
        assert_eq!(events.next().await, Ok(MonitorNotice::Gap { missed: 1 }));
    }
    drop(peer);
    assert_eq!(events.next().await, Err(LinkEnd::PeerClosed));
    assert!(matches!(link.events(), Some(Err(LinkEnd::PeerClosed))));
}

#[tokio::test(start_paused = true)]
async fn an_event_converts_to_its_type() {
    let (link, mut peer) = monitor(SocketConfig::default()).await;
    let mut events = link.events().unwrap().unwrap();
    peer.line(r#"{"timestamp": {"seconds": -1, "microseconds": -1}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#).await;
    let MonitorNotice::Event(event) = events.next().await.unwrap() else { panic!() };
    assert!(matches!(event.typed(), Some(qapi::qmp::Event::SHUTDOWN { data, .. }) if data.guest));
    assert_eq!(event.time(), None);
    peer.line(r#"{"timestamp": {"seconds": 1, "microseconds": 1}, "event": "STOP"}"#).await;
    let MonitorNotice::Event(event) = events.next().await.unwrap() else { panic!() };
    assert!(matches!(event.typed(), Some(qapi::qmp::Event::STOP { .. })), "{event:?}");
    peer.event(1).await;
    let MonitorNotice::Event(event) = events.next().await.unwrap() else { panic!() };
    assert_eq!((event.name.as_str(), event.typed().is_none()), ("TICK", true));
}

#[tokio::test(start_paused = true)]
async fn an_invalid_message_ends_the_link_and_fails_all_calls() {
    for garbage in [&b"what?\n"[..], b"\xc3\x28\n", b"[1,2,3]\n", b"{\"return\": \n", b"\xff\xff{\n"] {
        let (link, mut peer) = monitor(SocketConfig::default()).await;
        let answers = async {
            peer.command().await;
            peer.command().await;
            peer.raw(garbage).await;
        };
        let ((first, second), ()) = join(join(send(&link, QUERY), send(&link, QUERY)), answers).await;
        assert!(
            matches!(first, Err(SendError::Ended { end: LinkEnd::NotAMessage { .. }, sent: true })),
            "{first:?}"
        );
        assert_eq!(first, second);
        assert!(matches!(send(&link, QUERY).await, Err(SendError::Ended { sent: false, .. })));
        assert_eq!(peer.command().await, Value::Null, "the socket is closed");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_without_an_id_belongs_to_the_only_call() {
    let (link, mut peer) = monitor(SocketConfig::default()).await;
    let error = r#"{"error": {"class": "GenericError", "desc": "JSON token size limit exceeded"}}"#;
    let answers = async {
        peer.command().await;
        peer.line(error).await;
    };
    assert_eq!(join(link.send(QUERY, || ()), answers).await.0, Ok(error.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_too_long_is_dropped_and_the_next_command_works() {
    const MIB: usize = 1024 * 1024;
    let config = SocketConfig { max_reply: MIB, ..SocketConfig::default() };
    let (link, mut peer) = monitor(config).await;
    let answers = async {
        let (long, short) = (peer.command().await, peer.command().await);
        peer.raw(b"{\"return\": \"").await;
        for _ in 0..10 {
            peer.raw(&vec![b'x'; MIB]).await;
        }
        peer.line(&format!("\", \"id\": {}}}", long["id"])).await;
        peer.answer(&short, json!("short")).await;
    };
    let ((long, short), ()) = join(join(send(&link, QUERY), send(&link, QUERY)), answers).await;
    assert!(
        matches!(long, Err(SendError::TooLarge { size, limit: MIB }) if size > 10 * MIB as u64),
        "{long:?}"
    );
    assert_eq!(short, Ok(json!("short")));
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_too_long_ends_the_link_if_so_configured() {
    let config =
        SocketConfig { max_reply: 1000, oversized: Oversized::Disconnect, ..SocketConfig::default() };
    let (link, mut peer) = monitor(config).await;
    let answers = async {
        peer.command().await;
        // The line has no end.
        peer.raw(&vec![b'x'; 2000]).await;
    };
    let (got, ()) = join(send(&link, QUERY), answers).await;
    assert!(matches!(got, Err(SendError::TooLarge { limit: 1000, .. })), "{got:?}");
    assert_eq!(link.ended().await, LinkEnd::TooLong { limit: 1000 });
}

#[tokio::test(start_paused = true)]
async fn an_unidentified_reply_that_is_too_long_ends_the_link() {
    let (link, mut peer) = monitor(SocketConfig { max_reply: 1000, ..SocketConfig::default() }).await;
    let answers = async {
        peer.command().await;
        peer.command().await;
        peer.line(&"x".repeat(2000)).await;
    };
    let (got, ()) = join(join(send(&link, QUERY), send(&link, QUERY)), answers).await;
    let end = || ended(LinkEnd::TooLong { limit: 1000 }, true);
    assert_eq!(got, (end(), end()));
}

#[tokio::test(start_paused = true)]
async fn closing_fails_all_calls_with_the_reason() {
    for (last, end) in [(&b""[..], LinkEnd::PeerClosed), (b"{\"retu", LinkEnd::CutOff)] {
        let (link, mut peer) = monitor(SocketConfig::default()).await;
        let answers = async move {
            peer.command().await;
            peer.raw(last).await;
        };
        assert_eq!(join(send(&link, QUERY), answers).await.0, ended(end.clone(), true));
        assert_eq!(link.ended().await, end);
        assert_eq!(send(&link, QUERY).await, ended(end, false));
    }
}

#[tokio::test(start_paused = true)]
async fn no_command_is_sent_while_the_peer_does_not_read() {
    let (link, mut peer) = monitor(SocketConfig::default()).await;
    let big = format!(r#"{{"execute":"x","arguments":{{"a":"{}"}}}}"#, "x".repeat(200_000));
    assert_eq!(send_within(&link, &big, SECOND).await, None);
    let mut sent = false;
    assert!(timeout(SECOND, link.send(QUERY, || sent = true)).await.is_err());
    assert!(!sent, "the second command was sent");

    let answers = async {
        let (first, next) = (peer.command().await, peer.command().await);
        assert_eq!((&first["execute"], &next["execute"]), (&json!("x"), &json!("query-status")));
        peer.answer(&first, json!("late")).await;
        peer.answer(&next, json!("next")).await;
    };
    assert_eq!(join(send(&link, QUERY), answers).await.0, Ok(json!("next")));
}

#[tokio::test(start_paused = true)]
async fn dropping_a_link_closes_it_and_ends_its_events() {
    let (link, mut peer) = monitor(SocketConfig::default()).await;
    let mut events = link.events().unwrap().unwrap();
    drop(link);
    assert_eq!(peer.command().await, Value::Null);
    assert_eq!(events.next().await, Err(LinkEnd::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_a_monitor_is_refused() {
    for first in ["login: ", r#"{"return": {}}"#, "{", "\u{1b}[2J"] {
        let (ours, mut peer) = stream();
        peer.line(first).await;
        let end = SocketLink::monitor(ours, SocketConfig::default()).await.unwrap_err();
        assert!(matches!(end, LinkEnd::NotAMessage { .. }), "{first:?}: {end}");
    }
    let (ours, mut peer) = stream();
    peer.greet().await;
    peer.line(r#"{"error": {"class": "GenericError", "desc": "no"}, "id": 0}"#).await;
    assert!(SocketLink::monitor(ours, SocketConfig::default()).await.is_err());

    let (ours, peer) = stream();
    let mut silent = pin!(SocketLink::monitor(ours, SocketConfig::default()));
    assert!(silent.as_mut().now_or_never().is_none(), "it waits for the greeting");
    drop(peer);
    assert_eq!(silent.await.unwrap_err(), LinkEnd::PeerClosed);
}
