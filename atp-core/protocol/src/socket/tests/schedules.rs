//! Properties that hold whatever a peer does and whenever a caller leaves.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::super::{SENTINEL, SocketConfig};
use super::*;

/// How the peer handles one command.
#[derive(Debug, Clone)]
enum Deed {
    Answer,
    /// After this many milliseconds.
    Late(u64),
    /// Only after the next command has been answered. Not for agents, whose replies have no ids.
    AfterTheNext,
    Never,
    /// Byte by byte, with this many milliseconds between bytes.
    Bytewise(u64),
    TooLong,
    AfterEvents(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => Just(Deed::Answer),
        2 => (0..200_u64).prop_map(Deed::Late),
        1 => Just(Deed::AfterTheNext),
        1 => Just(Deed::Never),
        1 => (0..4_u64).prop_map(Deed::Bytewise),
        1 => Just(Deed::TooLong),
        1 => (1..400_usize).prop_map(Deed::AfterEvents),
    ]
}

const MAX: usize = 2000;

/// The longest time a caller waits.
const CALL_LIMIT: Duration = Duration::from_millis(100);

/// Handles command `n` as `deeds[n]` says. The number is read from the command: a command whose caller gives up during
/// the synchronisation is never sent, so counting would be wrong.
async fn perform(peer: &mut Peer, deeds: Vec<Deed>, is_agent: bool) {
    let mut held_back: Option<String> = None;
    loop {
        let command = peer.command().await;
        if command.is_null() {
            return;
        }
        if command["execute"] == "guest-sync-delimited" {
            peer.raw(&[SENTINEL]).await;
            peer.reply(command["arguments"]["id"].clone()).await;
            continue;
        }
        // The reply names the command, so that the test can check whose it is.
        let mut reply = json!({"return": command["arguments"]["n"]});
        if !is_agent {
            reply["id"] = command["id"].clone();
        }
        let reply = reply.to_string();
        let number = command["arguments"]["n"].as_u64().and_then(|number| usize::try_from(number).ok());
        match number.and_then(|number| deeds.get(number)).cloned().unwrap_or(Deed::Answer) {
            Deed::Answer => peer.line(&reply).await,
            Deed::Late(millis) => {
                sleep(Duration::from_millis(millis)).await;
                peer.line(&reply).await;
            }
            Deed::AfterTheNext if is_agent => peer.line(&reply).await,
            Deed::AfterTheNext => {
                held_back = Some(reply);
                continue;
            }
            Deed::Never => {}
            Deed::Bytewise(millis) => {
                for byte in reply.bytes().chain([b'\n']) {
                    sleep(Duration::from_millis(millis)).await;
                    peer.raw(&[byte]).await;
                }
            }
            Deed::TooLong => {
                let id = if is_agent { String::new() } else { format!(", \"id\": {}", command["id"]) };
                peer.line(&format!("{{\"return\": \"{}\"{id}}}", "x".repeat(2 * MAX))).await;
            }
            Deed::AfterEvents(count) => {
                for number in 0..if is_agent { 0 } else { count } {
                    peer.event(number).await;
                }
                peer.line(&reply).await;
            }
        }
        if let Some(reply) = held_back.take() {
            peer.line(&reply).await;
        }
    }
}

/// Sends numbered commands one after another to a peer with this behaviour, and checks each result.
async fn check_schedule(deeds: Vec<Deed>, is_agent: bool) -> Result<(), TestCaseError> {
    let config = SocketConfig { max_reply: MAX, event_buffer: 8, ..SocketConfig::default() };
    let (link, mut peer) = if is_agent { agent(config) } else { monitor(config).await };
    let events = link.events();
    let count = deeds.len();
    let peer = tokio::spawn(async move { perform(&mut peer, deeds, is_agent).await });
    for number in 0..count {
        let command = format!(r#"{{"execute":"x","arguments":{{"n":{number}}}}}"#);
        let begun = Instant::now();
        match timeout(CALL_LIMIT, send(&link, &command)).await {
            Ok(Ok(value)) => prop_assert_eq!(value, json!(number), "another command's reply"),
            Ok(Err(error)) => prop_assert!(matches!(error, SendError::TooLarge { .. }), "{}", error),
            Err(_) => prop_assert!(begun.elapsed() >= CALL_LIMIT),
        }
    }
    // Whatever arrives first, a caller with enough time gets its answer.
    let command = format!(r#"{{"execute":"x","arguments":{{"n":{count}}}}}"#);
    let last = timeout(Duration::from_secs(600), send(&link, &command)).await;
    prop_assert_eq!(last, Ok(Ok(json!(count))));
    drop((link, events));
    prop_assert!(timeout(SECOND, peer).await.is_ok(), "the link was not closed");
    Ok(())
}

fn run(work: impl Future<Output = Result<(), TestCaseError>>) -> Result<(), TestCaseError> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_call_to_a_monitor_never_gets_another_calls_reply(deeds in prop::collection::vec(deed(), 1..12)) {
        run(check_schedule(deeds, false))?;
    }

    #[test]
    fn a_call_to_an_agent_never_gets_another_calls_reply(deeds in prop::collection::vec(deed(), 1..12)) {
        run(check_schedule(deeds, true))?;
    }

    #[test]
    fn a_caller_may_leave_at_any_time(millis in prop::collection::vec(0..12_u64, 1..12), is_agent: bool) {
        run(async move {
            let (link, mut peer) =
                if is_agent { agent(SocketConfig::default()) } else { monitor(SocketConfig::default()).await };
            let peer = tokio::spawn(async move { perform(&mut peer, vec![Deed::Late(3); 100], is_agent).await });
            for (number, millis) in millis.into_iter().enumerate() {
                let command = format!(r#"{{"execute":"x","arguments":{{"n":{number}}}}}"#);
                if let Ok(reply) = timeout(Duration::from_millis(millis), send(&link, &command)).await {
                    prop_assert_eq!(reply, Ok(json!(number)));
                }
            }
            prop_assert_eq!(send(&link, r#"{"execute":"x","arguments":{"n":99}}"#).await, Ok(json!(99)));
            drop(link);
            prop_assert!(timeout(SECOND, peer).await.is_ok());
            Ok(())
        })?;
    }
}
