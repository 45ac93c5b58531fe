//! What the pool does with links to sockets.

use atp_protocol::socket::{LinkEnd, MonitorNotice};
use atp_protocol::{Carrier, Peer, agent};
use atp_transport::{Effect, TransportError};
use qapi::qmp::query_version;
use tokio::time::timeout;

use super::*;

#[tokio::test]
async fn a_typed_command_gets_its_typed_reply_over_both_kinds_of_sockets() {
    for socket in [Socket::unix(), Socket::tcp().await] {
        let manager = manager(&socket.uri("qmp"), SocketConfig::default()).await;
        let qemu = play(async move {
            let mut peer = socket.monitor().await;
            let command = peer.command().await;
            peer.answer(&command, json!({"qemu": {"major": 9, "minor": 1, "micro": 2}, "package": "p"}))
                .await;
            let command = peer.command().await;
            let error = json!({"class": "CommandNotFound", "desc": "The command x has not been found"});
            peer.line(&json!({"id": command["id"], "error": error}).to_string()).await;
            socket
        });
        let work = |connection: SocketConnection| async move {
            let deadline = Instant::now() + SOON;
            monitor::execute(&SocketCarrier::new(&connection), &query_version {}, deadline).await
        };
        let version = manager.execute_on_host("vm", work).await.unwrap();
        assert_eq!((version.qemu.major, version.qemu.minor, version.package.as_str()), (9, 1, "p"));
        let error = qmp(&manager, "x", SOON).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), ("qmp-error", Effect::None));
        drop(qemu.await.unwrap());
    }
}

#[tokio::test]
async fn an_agents_commands_go_over_its_own_socket() {
    let socket = Socket::unix();
    let manager = manager(&socket.uri("qga"), SocketConfig::default()).await;
    let guest = play(async move {
        let mut peer = socket.accept().await;
        peer.synchronise().await;
        assert_eq!(peer.command().await["execute"], "guest-get-time");
        peer.reply(json!(1_700_000_000_000_000_000_i64)).await;
        (socket, peer)
    });
    let work = |connection: SocketConnection| async move {
        let (carrier, deadline) = (SocketCarrier::new(&connection), Instant::now() + SOON);
        let time = agent::execute(&carrier, &qapi::qga::guest_get_time {}, deadline).await?;
        let command = RawCommand::from_words(["query-status"]).unwrap();
        let error = monitor::execute_raw(&carrier, &command, deadline).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), ("no-channel", Effect::None));
        let error = carrier.events(deadline).await.unwrap_err();
        assert_eq!(error.kind(), "no-channel");
        Ok::<_, ProtocolError>(time)
    };
    assert_eq!(manager.execute_on_host("vm", work).await.unwrap(), 1_700_000_000_000_000_000);
    drop(guest.await.unwrap());
}

#[tokio::test]
async fn there_is_at_most_one_link_and_leases_take_turns_on_it() {
    let socket = Socket::unix();
    let manager = manager(&socket.uri("qmp"), SocketConfig::default()).await;
    manager.pool("vm").unwrap().resize(1, 5).unwrap();
    let qemu = play(async move {
        // A second client would wait for its greeting, as with QEMU.
        echo(&mut socket.monitor().await).await;
        socket
    });
    let calls = (0..20).map(|_| {
        let manager = manager.clone();
        tokio::spawn(async move { qmp(&manager, "query-status", SOON).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().unwrap(), json!("query-status"));
    }
    assert_eq!(manager.pool("vm").unwrap().stats().total_connections, 1);
    manager.close(SOON).await;
    drop(qemu.await.unwrap());
}

#[tokio::test]
async fn commands_that_would_desynchronise_the_peer_are_not_sent() {
    let socket = Socket::unix();
    let limits = SocketConfig { max_command: 1000, ..SocketConfig::default() };
    let manager = manager(&socket.uri("qmp"), limits).await;
    let qemu = play(async move {
        echo(&mut socket.monitor().await).await;
        socket
    });
    let work = |connection: SocketConnection| async move {
        let (carrier, deadline) = (SocketCarrier::new(&connection), Instant::now() + SOON);
        let send = |command: String| {
            let carrier = &carrier;
            async move { carrier.send(Peer::Monitor, &command, deadline).await }
        };
        for bad in [
            "",
            "{",
            "[]",
            "[1,2,3]",
            "{}",
            r#"{"execute":"x"} {"execute":"y"}"#,
            r#"{"execute":"x","id":1}"#,
        ] {
            let error = send(bad.to_owned()).await.unwrap_err();
            assert_eq!((error.kind().as_str(), error.effect()), ("invalid-command", Effect::None), "{bad}");
        }
        let long = format!(r#"{{"execute":"{}"}}"#, "x".repeat(1000));
        let error = send(long).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), ("command-too-large", Effect::None));
        let spread = "  {  \"execute\"  :  \"stop\"  }  ";
        assert!(send(spread.to_owned()).await.unwrap().contains("stop"));
        Ok::<_, ProtocolError>(())
    };
    manager.execute_on_host("vm", work).await.unwrap();
    manager.close(SOON).await;
    drop(qemu.await.unwrap());
}

#[tokio::test]
async fn events_arrive_until_the_link_ends_and_then_from_the_next_link() {
    let socket = Socket::unix();
    let manager = manager(&socket.uri("qmp"), SocketConfig::default()).await;
    let qemu = play(async move {
        for _ in 0..2 {
            let mut peer = socket.monitor().await;
            let command = peer.command().await;
            peer.event(7).await;
            peer.answer(&command, json!({})).await;
        }
        socket
    });
    for _ in 0..2 {
        let work = |connection: SocketConnection| async move {
            let (carrier, deadline) = (SocketCarrier::new(&connection), Instant::now() + SOON);
            let events = carrier.events(deadline).await?;
            carrier.send(Peer::Monitor, r#"{"execute":"stop"}"#, deadline).await?;
            Ok::<_, ProtocolError>(events)
        };
        let mut events = manager.execute_on_host("vm", work).await.unwrap();
        let MonitorNotice::Event(event) = timeout(SOON, events.next()).await.unwrap().unwrap() else {
            panic!()
        };
        assert_eq!(event.data, json!({"n": 7}));
        assert_eq!(timeout(SOON, events.next()).await.unwrap(), Err(LinkEnd::PeerClosed));
    }
    drop(qemu.await.unwrap());
}

#[tokio::test]
async fn an_invalid_address_is_refused_when_the_host_is_added() {
    let manager = TransportManager::with_connector(config(), SocketConnector::new(SocketConfig::default()));
    for uri in ["qemu:///system", "qmp+unix://relative", "qmp+tcp://h"] {
        let error = manager.add_host(HostInfo::from_uri("vm", uri)).await.unwrap_err();
        assert!(matches!(error, TransportError::InvalidUri { .. }), "{uri}: {error}");
    }
    assert!(manager.add_host(HostInfo::new("vm", "10.0.0.1")).await.is_err());
}
