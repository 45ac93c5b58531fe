//! Tests of an agent's link.

use futures_util::future::join;
use serde_json::json;

use super::super::end::{LinkEnd, SendError};
use super::super::{SENTINEL, SocketConfig};
use super::*;

const BAD_JSON: &str = r#"{"error": {"class": "GenericError", "desc": "JSON parse error"}}"#;

#[tokio::test(start_paused = true)]
async fn after_one_synchronisation_a_command_is_one_round_trip() {
    let (link, mut peer) = agent(SocketConfig::default());
    let answers = async {
        peer.synchronise().await;
        for number in 1..3 {
            assert_eq!(peer.command().await["execute"], "guest-ping");
            peer.reply(json!(number)).await;
        }
    };
    let calls = async { (send(&link, PING).await, send(&link, PING).await) };
    assert_eq!(join(calls, answers).await.0, (Ok(json!(1)), Ok(json!(2))));
}

#[tokio::test(start_paused = true)]
async fn old_bytes_in_the_channel_are_dropped() {
    let (link, mut peer) = agent(SocketConfig::default());
    // A console's prompt, an earlier client's reply, half a reply, and the agent's error about our 0xFF.
    peer.raw(b"\r\nlogin: \n\xf0\x28\n").await;
    peer.reply(json!("an earlier client's")).await;
    peer.raw(b"{\"return\": ").await;
    let answers = async {
        let command = peer.command().await;
        peer.line(BAD_JSON).await;
        peer.reply(command["arguments"]["id"].clone()).await;
        peer.raw(&[SENTINEL]).await;
        peer.reply(json!(command["arguments"]["id"].as_u64().unwrap() ^ 1)).await;
        peer.raw(&[SENTINEL]).await;
        peer.reply(command["arguments"]["id"].clone()).await;
        assert_eq!(peer.command().await["execute"], "guest-ping");
        peer.reply(json!("ours")).await;
    };
    assert_eq!(join(send(&link, PING), answers).await.0, Ok(json!("ours")));
}

#[tokio::test(start_paused = true)]
async fn a_late_reply_is_not_mistaken_for_the_next_one() {
    let (link, mut peer) = agent(SocketConfig::default());
    let answers = async {
        peer.synchronise().await;
        peer.command().await;
    };
    assert_eq!(join(send_within(&link, PING, SECOND), answers).await.0, None);
    let answers = async {
        let sync = peer.command().await;
        peer.reply(json!("late")).await;
        peer.raw(&[SENTINEL]).await;
        peer.reply(sync["arguments"]["id"].clone()).await;
        peer.command().await;
        peer.reply(json!("next")).await;
    };
    assert_eq!(join(send(&link, PING), answers).await.0, Ok(json!("next")));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_answer_is_not_asked() {
    let (link, mut peer) = agent(SocketConfig::default());
    for _ in 0..2 {
        let mut sent = false;
        assert!(timeout(SECOND, link.send(PING, || sent = true)).await.is_err());
        assert!(!sent);
    }
    // The agent starts: the channel delivers everything that was sent before.
    let answers = async {
        for _ in 0..3 {
            peer.synchronise().await;
        }
        peer.command().await;
        peer.reply(json!("up")).await;
    };
    assert_eq!(join(send(&link, PING), answers).await.0, Ok(json!("up")));
}

#[tokio::test(start_paused = true)]
async fn garbage_is_passed_on_as_the_reply_and_the_next_command_synchronises() {
    for garbage in [&b"Segmentation fault\n"[..], b"\xc3\x28\n", b"{\"retu\n", b"[]\n"] {
        let (link, mut peer) = agent(SocketConfig::default());
        let answers = async {
            peer.synchronise().await;
            peer.command().await;
            peer.raw(garbage).await;
        };
        let (got, ()) = join(link.send(PING, || ()), answers).await;
        assert_eq!(got.unwrap(), String::from_utf8_lossy(garbage).trim_end());
        let answers = async {
            peer.synchronise().await;
            peer.command().await;
            peer.reply(json!("next")).await;
        };
        assert_eq!(join(send(&link, PING), answers).await.0, Ok(json!("next")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_too_long_is_dropped_and_the_next_command_works() {
    const MIB: usize = 1024 * 1024;
    let (link, mut peer) = agent(SocketConfig { max_reply: MIB, ..SocketConfig::default() });
    let answers = async {
        peer.synchronise().await;
        peer.command().await;
        peer.raw(b"{\"return\": \"").await;
        for _ in 0..10 {
            peer.raw(&vec![b'x'; MIB]).await;
        }
        peer.line("\"}").await;
        peer.command().await;
        peer.reply(json!("next")).await;
    };
    let calls = async { (send(&link, PING).await, send(&link, PING).await) };
    let ((long, next), ()) = join(calls, answers).await;
    assert!(matches!(long, Err(SendError::TooLarge { limit: MIB, .. })), "{long:?}");
    assert_eq!(next, Ok(json!("next")));
}

#[tokio::test(start_paused = true)]
async fn closing_fails_the_command_and_says_whether_it_was_sent() {
    let (link, mut peer) = agent(SocketConfig::default());
    let answers = async move {
        peer.command().await;
    };
    let end = |sent| Err(SendError::Ended { end: LinkEnd::PeerClosed, sent });
    assert_eq!(join(send(&link, PING), answers).await.0, end(false));

    let (link, mut peer) = agent(SocketConfig::default());
    let answers = async move {
        peer.synchronise().await;
        peer.command().await;
    };
    assert_eq!(join(send(&link, PING), answers).await.0, end(true));
    assert_eq!(send(&link, PING).await, end(false));
}
