//! The wire protocol in Rust on a real daemon with real guests: what libvirt's test driver does not have. `virsh` on
//! the same daemon is the oracle.

use std::time::Duration;

use atp_e2e::{Bed, bed, within};
use atp_rpc::agent::{AgentTimeout, guest_info};
use atp_rpc::domain::{ControlState, DomainState};
use atp_rpc::lifecycle::destroy;
use atp_rpc::monitor::KeycodeSet;
use atp_rpc::numbers::code;
use atp_rpc::{ConnectOptions, Connection, EventId, EventItem, EventKind, Events, Keepalive, RemoteDomain};
use atp_testbed::Guest;
use bytes::Bytes;
use serde_json::Value;
use tokio::time::{sleep, timeout};

/// Longest any of these tests may take.
const LIMIT: Duration = Duration::from_secs(300);
/// Longest anything may take that should happen soon; the machine may be busy.
const SOON: Duration = Duration::from_secs(60);

async fn connect(bed: &Bed) -> Connection {
    let uri = bed.host("h1").unwrap().uri();
    Connection::open(&uri, &ConnectOptions::default()).await.unwrap()
}

fn guest(bed: &Bed) -> Guest {
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    guest.wait_agent(SOON).unwrap();
    guest
}

async fn domain(connection: &Connection) -> RemoteDomain {
    connection.domain_by_name("vm1").await.unwrap()
}

fn virsh(bed: &Bed, arguments: &[&str]) -> String {
    bed.host("h1").unwrap().virsh(arguments).unwrap()
}

async fn next(events: &mut Events) -> EventKind {
    match timeout(SOON, events.next()).await.unwrap() {
        Some(EventItem::Event(event)) => event.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rpc_asks_monitor_and_agent() {
    let bed = bed();
    let guest = guest(&bed);
    within(LIMIT, async {
        let connection = connect(&bed).await;
        let vm = domain(&connection).await;
        assert_eq!(vm.uuid.to_string(), guest.uuid());
        let status = r#"{"execute":"query-status"}"#;
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let reply = json(&connection.monitor_command(&vm, status).await.unwrap());
        assert_eq!(reply["return"], json(&virsh(&bed, &["qemu-monitor-command", "vm1", status]))["return"]);
        let error = connection.monitor_command(&vm, r#"{"execute":"no-such"}"#).await.unwrap();
        assert_eq!(json(&error)["error"]["class"], "CommandNotFound");

        let info = r#"{"execute":"guest-info"}"#;
        let after = AgentTimeout::After(Duration::from_secs(30));
        let reply = connection.agent_command(&vm, info, after).await.unwrap().unwrap();
        assert_eq!(json(&reply), json(&virsh(&bed, &["qemu-agent-command", "vm1", info])));
        let unknown = r#"{"execute":"no-such"}"#;
        let error = connection.agent_command(&vm, unknown, AgentTimeout::Default).await.unwrap_err();
        assert!(error.is_code(code::INTERNAL_ERROR), "{error:?}");

        let printed = virsh(&bed, &["guestinfo", "vm1", "--os", "--hostname"]);
        let info = connection.guest_info(&vm, guest_info::OS | guest_info::HOSTNAME).await.unwrap();
        for name in ["hostname", "os.id", "os.kernel-release"] {
            let value = info.text(name).unwrap();
            let found = printed.lines().any(|line| {
                line.split_once(':').is_some_and(|(of, text)| of.trim() == name && text.trim() == value)
            });
            assert!(found, "{name} = {value}: {printed}");
        }
        assert_eq!(connection.guest_hostname(&vm).await.unwrap(), "vm1");
        // Which of the guest's file systems can be frozen depends on what tests have mounted there.
        let frozen = connection.freeze_file_systems(&vm, &[]).await.unwrap();
        assert_eq!(connection.thaw_file_systems(&vm, &[]).await.unwrap(), frozen);
        connection.trim_file_systems(&vm, 1).await.unwrap();
        connection.inject_nmi(&vm).await.unwrap();
        connection.set_user_password(&vm, "root", "n3w", false).await.unwrap();

        let control = connection.domain_control_info(&vm).await.unwrap();
        assert_eq!(control.state, ControlState::Free);
        let keys = [42, 30];
        connection.send_keys(&vm, KeycodeSet::Linux, &keys, Duration::from_millis(50)).await.unwrap();
        let many = connection.send_keys(&vm, KeycodeSet::Linux, &[30; 17], Duration::ZERO).await.unwrap_err();
        assert!(!many.may_have_run(), "{many}");
    });
}

#[test]
fn rpc_tells_what_happens_to_a_domain() {
    let bed = bed();
    guest(&bed);
    within(LIMIT, async {
        let connection = connect(&bed).await;
        let vm = domain(&connection).await;
        let mut events = connection.events(64);
        for id in EventId::ALL {
            connection.watch(&events, id, None).await.unwrap();
        }
        let mut monitor = connection.events(64);
        connection.watch_monitor(&monitor, Some("STOP"), Some(&vm)).await.unwrap();

        connection.suspend_domain(&vm).await.unwrap();
        assert_eq!(next(&mut events).await, EventKind::Lifecycle { event: 3, detail: 0 });
        let stop = next(&mut monitor).await;
        assert!(matches!(&stop, EventKind::Monitor { name, .. } if name == "STOP"), "{stop:?}");
        connection.resume_domain(&vm).await.unwrap();
        assert_eq!(next(&mut events).await, EventKind::Lifecycle { event: 4, detail: 0 });
        connection.reset_domain(&vm).await.unwrap();
        // A reset is a reboot, and the agent goes and comes with it.
        let mut seen = Vec::new();
        while !seen.contains(&EventKind::Agent { state: 1, reason: 2 }) {
            seen.push(next(&mut events).await);
        }
        assert!(seen.contains(&EventKind::Reboot), "{seen:?}");
        assert!(seen.contains(&EventKind::Agent { state: 2, reason: 2 }), "{seen:?}");

        let title = "A title";
        virsh(&bed, &["desc", "vm1", "--live", "--title", title]);
        assert_eq!(next(&mut events).await, EventKind::MetadataChange { kind: 1, namespace: None });
        virsh(&bed, &["detach-device-alias", "vm1", "watchdog0", "--live"]);
        loop {
            match next(&mut events).await {
                EventKind::DeviceRemoved { device } | EventKind::DeviceRemovalFailed { device } => {
                    assert_eq!(device, "watchdog0");
                    break;
                }
                other => println!("{other:?}"),
            }
        }

        connection.destroy_domain(&vm, destroy::GRACEFUL).await.unwrap();
        while next(&mut events).await != (EventKind::Lifecycle { event: 5, detail: 1 }) {}
        let (state, _) = connection.domain_state(&vm).await.unwrap();
        assert_eq!(state, DomainState::ShutOff);
        connection.start_domain(&vm).await.unwrap();
        while next(&mut events).await != (EventKind::Lifecycle { event: 2, detail: 0 }) {}
    });
}

#[test]
fn rpc_streams_in_both_directions() {
    let bed = bed();
    guest(&bed);
    bed.run(&["exec", "h1/vm1", "--", "channel-peer", "bytes"]).exits_with(0);
    within(LIMIT, async {
        let connection = connect(&bed).await;
        let vm = domain(&connection).await;
        let mut channel =
            connection.open_channel(&vm, Some("org.atp.test.channel"), 0, 16 << 20).await.unwrap();
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let mut received = Vec::new();
        // One handle does both: the guest sends back what it gets, as fast as that.
        let mut left = Bytes::from(sent.clone());
        while received.len() < sent.len() {
            if !left.is_empty() {
                let piece = left.split_to(left.len().min(20_000));
                timeout(SOON, channel.send(piece)).await.unwrap().unwrap();
            }
            while let Ok(chunk) =
                timeout(Duration::from_millis(if left.is_empty() { 60_000 } else { 1 }), channel.recv()).await
            {
                received.extend_from_slice(&chunk.unwrap().unwrap());
                if received.len() == sent.len() {
                    break;
                }
            }
        }
        assert!(received == sent);
        channel.finish().await.unwrap();

        let (mime, mut stream) = connection.screenshot(&vm, 0, 64 << 20).await.unwrap();
        let mut picture = Vec::new();
        while let Some(chunk) = stream.recv().await.unwrap() {
            picture.extend_from_slice(&chunk);
        }
        stream.finish().await.unwrap();
        assert_eq!(mime.as_deref(), Some("image/png"));
        assert!(picture.starts_with(b"\x89PNG") && picture.ends_with(b"IEND\xaeB`\x82"), "{}", picture.len());
        let none = connection.screenshot(&vm, 9, 64).await.unwrap_err();
        assert!(none.remote().is_some(), "{none:?}");
    });
}

/// At five calls that hang, the daemon would stop reading the connection and close it.
#[test]
fn rpc_keeps_a_connection_with_hung_calls_alive() {
    let bed = bed();
    let guest = guest(&bed);
    within(LIMIT, async {
        let keepalive = Keepalive { interval: Duration::from_secs(2), count: 3 };
        let options = ConnectOptions { keepalive, ..ConnectOptions::default() };
        let uri = bed.host("h1").unwrap().uri();
        let connection = Connection::open(&uri, &options).await.unwrap();
        let vm = domain(&connection).await;
        // As below: what was before this may have restarted the daemon.
        connection.monitor_command(&vm, r#"{"execute":"query-status"}"#).await.unwrap();
        guest.pause_qemu().unwrap();
        let calls: Vec<_> = (0..3)
            .map(|_| {
                let (connection, vm) = (connection.clone(), vm.clone());
                tokio::spawn(
                    async move { connection.monitor_command(&vm, r#"{"execute":"query-status"}"#).await },
                )
            })
            .collect();
        // Longer than the keepalive limit of either side. The remaining slot stays usable.
        for _ in 0..20 {
            sleep(Duration::from_secs(2)).await;
            timeout(SOON, connection.hostname()).await.unwrap().unwrap();
        }
        let control = connection.domain_control_info(&vm).await.unwrap();
        assert_eq!(control.state, ControlState::Occupied);
        assert!(control.for_time > Duration::from_secs(30), "{control:?}");
        guest.resume_qemu().unwrap();
        let mut answered = 0;
        for call in calls {
            // Those that waited for the monitor failed after 30 s.
            match timeout(SOON, call).await.unwrap().unwrap() {
                Ok(_) => answered += 1,
                Err(error) => assert!(error.is_code(code::OPERATION_TIMEOUT), "{error:?}"),
            }
        }
        assert!(answered >= 1);
        assert!(connection.is_open());
    });
}

/// A daemon at its `max_client_requests` reads neither pings nor pongs. A connection carries one call fewer, and to a daemon that
/// takes one request it stays open beside a call that hangs.
#[test]
fn rpc_keeps_a_connection_to_a_daemon_with_a_low_limit_alive() {
    for limit in [1, 3] {
        let bed = bed();
        let guest = guest(&bed);
        let host = bed.host("h1").unwrap();
        host.set_daemon_settings(&format!("max_client_requests = {limit}\n")).unwrap();
        within(LIMIT, async {
            let keepalive = Keepalive { interval: Duration::from_secs(2), count: 3 };
            let options = ConnectOptions { keepalive, ..ConnectOptions::default() };
            let connection = Connection::open(&host.uri(), &options).await.unwrap();
            // What is measured is a lower bound.
            let most = connection.max_in_flight();
            assert!((1..limit.max(2) as usize).contains(&most), "{most} calls of {limit}");
            let vm = domain(&connection).await;
            // A daemon that was just restarted asks each monitor itself. A pause in the midst of that is waited for by the calls.
            connection.monitor_command(&vm, r#"{"execute":"query-status"}"#).await.unwrap();
            guest.pause_qemu().unwrap();
            let calls: Vec<_> = (0..most)
                .map(|_| {
                    let (connection, vm) = (connection.clone(), vm.clone());
                    tokio::spawn(async move {
                        connection.monitor_command(&vm, r#"{"execute":"query-status"}"#).await
                    })
                })
                .collect();
            // Longer than the keepalive limit of either side.
            timeout(Duration::from_secs(40), connection.closed()).await.expect_err("the connection was lost");
            guest.resume_qemu().unwrap();
            let mut answered = 0;
            for call in calls {
                match timeout(SOON, call).await.unwrap().unwrap() {
                    Ok(_) => answered += 1,
                    Err(error) => assert!(error.is_code(code::OPERATION_TIMEOUT), "{error:?}"),
                }
            }
            assert!(answered >= 1);
            timeout(SOON, connection.hostname()).await.unwrap().unwrap();
        });
    }
}
