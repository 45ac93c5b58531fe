//! Slow, wrong or absent peers: the error is clear, and the next command works.

use atp_protocol::{Carrier, Peer};
use atp_transport::Effect;
use tokio::time::sleep;

use super::*;

#[tokio::test]
async fn a_hung_peer_delays_only_its_caller_until_the_deadline() {
    let socket = Socket::unix();
    let manager = manager(&socket.uri("qmp"), SocketConfig::default()).await;
    let qemu = play(async move {
        let mut hung = socket.monitor().await;
        hung.command().await;
        // The link is replaced, because the result of the call is unknown.
        echo(&mut socket.monitor().await).await;
        (socket, hung)
    });
    let error = qmp(&manager, "stop", SHORT).await.unwrap_err();
    assert_eq!(
        (error.kind().as_str(), error.effect(), error.is_timeout()),
        ("call-timeout", Effect::Unknown, true)
    );
    assert_eq!(qmp(&manager, "cont", SOON).await.unwrap(), json!("cont"));
    manager.close(SOON).await;
    drop(qemu.await.unwrap());
}

#[tokio::test]
async fn a_late_reply_does_not_disturb_the_next_command_of_the_lease() {
    let socket = Socket::tcp().await;
    let manager = manager(&socket.uri("qmp"), SocketConfig::default()).await;
    let qemu = play(async move {
        let mut peer = socket.monitor().await;
        let late = peer.command().await;
        let next = peer.command().await;
        peer.answer(&late, json!("late")).await;
        peer.answer(&next, json!("next")).await;
        (socket, peer)
    });
    let work = |connection: SocketConnection| async move {
        let carrier = SocketCarrier::new(&connection);
        let command = RawCommand::from_words(["query-status"]).unwrap();
        let late = monitor::execute_raw(&carrier, &command, Instant::now() + SHORT).await.unwrap_err();
        assert_eq!((late.kind().as_str(), late.effect()), ("call-timeout", Effect::Unknown));
        monitor::execute_raw(&carrier, &command, Instant::now() + SOON).await
    };
    assert_eq!(manager.execute_on_host("vm", work).await.unwrap(), json!("next"));
    drop(qemu.await.unwrap());
}

#[tokio::test]
async fn after_garbage_or_a_close_the_call_fails_and_the_link_is_opened_again() {
    for (last, words) in [
        (&b"login: \n"[..], "an invalid message: \"login:\""),
        (b"\x80\x81\n", "an invalid message"),
        (b"{\"return\": {\"sta", "in the middle of a message"),
        (b"", "the peer closed the connection"),
    ] {
        let socket = Socket::unix();
        let manager = manager(&socket.uri("qmp"), SocketConfig::default()).await;
        let qemu = play(async move {
            let mut peer = socket.monitor().await;
            peer.command().await;
            peer.raw(last).await;
            if !last.ends_with(b"\n") {
                drop(peer);
            }
            echo(&mut socket.monitor().await).await;
            socket
        });
        let error = qmp(&manager, "stop", SOON).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), ("connection-lost", Effect::Unknown), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(qmp(&manager, "cont", SOON).await.unwrap(), json!("cont"));
        manager.close(SOON).await;
        drop(qemu.await.unwrap());
    }
}

#[tokio::test]
async fn a_reply_of_a_hundred_mebibytes_is_not_kept() {
    const MIB: usize = 1024 * 1024;
    let socket = Socket::unix();
    let limits = SocketConfig { max_reply: MIB, ..SocketConfig::default() };
    let manager = manager(&socket.uri("qmp"), limits).await;
    let qemu = play(async move {
        let mut peer = socket.monitor().await;
        let command = peer.command().await;
        let chunk = vec![b'x'; MIB];
        peer.raw(b"{\"return\": \"").await;
        for _ in 0..100 {
            peer.raw(&chunk).await;
        }
        peer.line(&format!("\", \"id\": {}}}", command["id"])).await;
        echo(&mut peer).await;
        socket
    });
    let before = most_memory();
    let error = qmp(&manager, "query-all", SOON).await.unwrap_err();
    assert_eq!((error.kind().as_str(), error.effect()), ("output-too-large", Effect::Done));
    let grown = most_memory() - before;
    assert!(grown < 50 * MIB, "{grown} bytes more than before were held");
    assert_eq!(qmp(&manager, "cont", SOON).await.unwrap(), json!("cont"));
    manager.close(SOON).await;
    drop(qemu.await.unwrap());
}

/// The peak memory of this process, bytes.
fn most_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn a_monitor_without_a_greeting_differs_from_a_missing_socket() {
    let socket = Socket::unix();
    let manager = manager(&socket.uri("qmp"), SocketConfig::default()).await;
    let silent = play(async move { (socket.accept().await, socket) });
    let error = qmp(&manager, "stop", SHORT).await.unwrap_err();
    assert_eq!((error.kind().as_str(), error.effect()), ("connect-timeout", Effect::None));
    let told = atp_words(&error);
    assert!(told.contains("serves another client"), "{told}");
    drop(silent.await.unwrap());

    let gone = super::manager("qmp+unix:///nonexistent/socket", SocketConfig::default()).await;
    let error = qmp(&gone, "stop", SOON).await.unwrap_err();
    assert_eq!((error.kind().as_str(), error.is_unreachable()), ("connection-refused", true));
    assert!(atp_words(&error).contains("the socket does not exist"), "{}", atp_words(&error));

    // This name is invalid: it is refused without a query to a name server, which might delay the test.
    let nobody = super::manager("qmp+tcp://-name.invalid:1", SocketConfig::default()).await;
    let error = qmp(&nobody, "stop", SOON).await.unwrap_err();
    assert_eq!(error.kind(), "name-not-resolved", "{}", atp_words(&error));
}

/// The error with its causes.
fn atp_words(error: &ProtocolError) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        words.push_str(": ");
        words.push_str(&error.to_string());
        source = error.source();
    }
    words
}

#[tokio::test]
async fn an_agent_that_starts_later_is_asked_then() {
    let socket = Socket::unix();
    let manager = manager(&socket.uri("qga"), SocketConfig::default()).await;
    let ping = |limit: Duration| {
        let manager = manager.clone();
        async move {
            let deadline = Instant::now() + limit;
            let work = |connection: SocketConnection| async move {
                let carrier = SocketCarrier::new(&connection);
                carrier.send(Peer::Agent, r#"{"execute":"guest-ping"}"#, deadline).await
            };
            manager.execute_on_host_with("vm", ExecuteOptions::by(deadline), work).await
        }
    };
    let error = ping(SHORT).await.unwrap_err();
    assert_eq!((error.kind().as_str(), error.effect()), ("agent-unresponsive", Effect::None), "{error}");
    let guest = play(async move {
        // The link of the abandoned call is replaced.
        let _first = socket.accept().await;
        let mut peer = socket.accept().await;
        sleep(SHORT).await;
        peer.synchronise().await;
        peer.command().await;
        peer.reply(json!({})).await;
        (socket, peer)
    });
    assert_eq!(ping(SOON).await.unwrap(), r#"{"return":{}}"#);
    drop(guest.await.unwrap());
}
