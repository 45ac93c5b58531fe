//! The library's connections, when their peers fail, hang or are slow.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atp_e2e::{becomes, bed, engine, eventually, within};
use atp_testbed::Proxy;
use atp_transport::domain::DomainInfo;
use atp_transport::{
    ConnectionState, Effect, Engine, ErrorKind, EventKind, HostInfo, LibvirtConnection, Result,
    TransportConfig, TransportError, TransportManager,
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::load::occupied_for_seconds;
use crate::support::{in_seconds, manager, nothing_is_held, query_status, quick, vm};

/// Time limit of each test.
const LIMIT: Duration = Duration::from_secs(240);
/// Time limit for changes that happen at once or soon; the machine may be busy.
const SOON: Duration = Duration::from_secs(60);

/// Never gives up on a host.
fn config() -> TransportConfig {
    let mut config = quick();
    config.reconnect.max_attempts = 0;
    config
}

async fn list(manager: &TransportManager, host: &str, seconds: u64) -> Result<Vec<DomainInfo>> {
    let work = |connection: LibvirtConnection| async move { connection.list_domains().await };
    manager.execute_on_host_with(host, in_seconds(seconds), work).await
}

/// The state of the only connection to the host.
fn state(manager: &TransportManager, host: &str) -> ConnectionState {
    let connections = manager.pool(host).unwrap().connections();
    assert_eq!(connections.len(), 1, "{connections:?}");
    connections[0].state()
}

#[test]
fn a_killed_daemon_and_its_restart_are_noticed_at_once() {
    let bed = bed();
    within(LIMIT, async {
        // Neither a heartbeat nor keepalive would notice within the test: only libvirt's close notice can.
        let mut config = config();
        config.heartbeat_interval = Duration::from_secs(3600);
        config.keepalive.interval = Duration::from_secs(3600);
        let manager = manager(&bed, config).await;
        list(&manager, "h2", 20).await.unwrap();
        assert_eq!(state(&manager, "h2"), ConnectionState::Connected);

        bed.host("h2").unwrap().kill_daemon().unwrap();
        eventually("the loss is noticed", SOON, || match state(&manager, "h2") {
            ConnectionState::Reconnecting { .. } => Ok(()),
            other => Err(other),
        });
        let connection = manager.pool("h2").unwrap().connections().remove(0);
        eventually("the next attempt to connect failed", SOON, || {
            connection.last_connect_error().ok_or("not yet")
        });
        let error = list(&manager, "h2", 2).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::ConnectionRefused, Effect::None), "{error:?}");
        assert_eq!(list(&manager, "h1", 20).await.unwrap().len(), 2);

        bed.host("h2").unwrap().start_daemon().unwrap();
        becomes("the state", SOON, ConnectionState::Connected, || state(&manager, "h2"));
        assert_eq!(list(&manager, "h2", 20).await.unwrap().len(), 2);
        assert_eq!(manager.pool("h2").unwrap().connections()[0].metrics().reconnects, 1);
    });
}

#[test]
fn a_pool_grows_by_its_load_and_for_those_who_wait_and_shrinks_again() {
    let bed = bed();
    within(LIMIT, async {
        let mut config = config();
        config.pool.maintenance_interval = Duration::from_secs(1);
        let manager = manager(&bed, config).await;
        let pool = manager.pool("h1").unwrap();
        let total = || pool.stats().total_connections;
        let take = async |count: usize| {
            let deadline = Instant::now() + SOON;
            let leases = futures_util::future::join_all((0..count).map(|_| pool.acquire(deadline))).await;
            leases.into_iter().collect::<Result<Vec<_>>>().unwrap()
        };
        // How many calls a connection carries, and how many are a high load.
        let (places, high) = if engine() == Engine::Library { (1, 1) } else { (4, 3) };

        // A connection is measured when it is first to carry several calls, which wait for that.
        drop(take(high).await);
        becomes("connections of an idle pool", SOON, 1, total);

        // None has to wait: the load alone makes the pool grow, and only until less than 80 % are highly loaded.
        let held = take(high).await;
        becomes("connections of a highly loaded pool", SOON, 2, total);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(total(), 2, "one of two connections highly loaded");
        drop(held);
        becomes("connections of an idle pool", SOON, 1, total);

        let mut events = manager.events();
        let held = take(8 * places).await;
        // As all of them are highly loaded, the next maintenance may already open more.
        assert!(total() >= 8, "{}", total());
        let (mut opening, mut most) = (0_usize, 0_usize);
        while let Some(event) = events.try_recv() {
            match event.what.kind() {
                EventKind::PoolGrown => opening += 1,
                EventKind::Connected => opening -= 1,
                _ => {}
            }
            most = most.max(opening);
        }
        let allowed = manager.config().pool.max_opening;
        // The end of an opening is published a moment after its place is free again; the limit itself is tested in virtual time.
        let seen = 2..=allowed + 2;
        assert!(seen.contains(&most), "{most} connections opened at once, of {allowed} allowed");
        for lease in &held {
            lease.hostname().await.unwrap();
        }
        drop(held);
        becomes("connections of an idle pool", SOON, 1, total);
    });
}

#[test]
fn a_daemon_killed_during_a_call_is_a_lost_connection() {
    let bed = bed();
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        // The call hangs in the daemon, since its QEMU is stopped.
        bed.host("h1").unwrap().guest("vm1").unwrap().pause_qemu().unwrap();
        let hung = tokio::spawn({
            let (manager, vm) = (manager.clone(), vm(&bed, "h1", "vm1"));
            async move { query_status(&manager, "h1", vm, 60).await }
        });
        // The call may still be on its way. The daemon has it when it waits for the monitor.
        let host = bed.host("h1").unwrap();
        eventually("the call is at the monitor", SOON, || occupied_for_seconds(&host, 0.0));
        host.kill_daemon().unwrap();
        let error = hung.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::ConnectionLost, Effect::Unknown), "{error:?}");
        assert!(error.libvirt().is_some(), "{error:?}");
    });
}

#[test]
fn a_stopped_daemon_is_detected_by_keepalive_and_reconnected() {
    let bed = bed();
    nothing_is_held(SOON);
    within(LIMIT, async {
        let mut config = config();
        config.keepalive.interval = Duration::from_secs(3);
        config.keepalive.count = 2;
        let manager = manager(&bed, config).await;
        list(&manager, "h3", 20).await.unwrap();

        bed.host("h3").unwrap().pause_daemon().unwrap();
        let asked = Instant::now();
        let error = list(&manager, "h3", 60).await.unwrap_err();
        // Nine seconds by the settings, not the minute that the call would have.
        assert!(asked.elapsed() < Duration::from_secs(50), "{error:?} after {:?}", asked.elapsed());
        assert_eq!((error.kind(), error.effect()), (ErrorKind::ConnectionLost, Effect::Unknown), "{error:?}");
        let error = list(&manager, "h3", 5).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::ConnectTimeout, Effect::None), "{error:?}");

        bed.host("h3").unwrap().resume_daemon().unwrap();
        assert_eq!(list(&manager, "h3", 30).await.unwrap().len(), 2);
        assert!(manager.close(SOON).await);
        nothing_is_held(SOON);
    });
}

#[test]
fn a_hung_vm_delays_only_its_caller_and_only_until_the_deadline() {
    let bed = bed();
    nothing_is_held(SOON);
    let hung = bed.host("h1").unwrap().guest("vm1").unwrap();
    let (vm1, vm2) = (vm(&bed, "h1", "vm1"), vm(&bed, "h1", "vm2"));
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        let stats = || manager.pool("h1").unwrap().stats();
        query_status(&manager, "h1", vm1, 20).await.unwrap();

        hung.pause_qemu().unwrap();
        let asked = Instant::now();
        let stuck = tokio::spawn({
            let manager = manager.clone();
            async move { (query_status(&manager, "h1", vm1, 15).await, asked.elapsed()) }
        });
        becomes("calls in flight", SOON, 1, || stats().calls_in_flight);
        // The healthy VM of the same host answers before the hung one's time limit, and more than once.
        for _ in 0..3 {
            query_status(&manager, "h1", vm2, 20).await.unwrap();
        }
        assert!(!stuck.is_finished(), "the healthy VM waited for the hung one: {:?}", stuck.await);

        let (result, took) = stuck.await.unwrap();
        let error = result.unwrap_err();
        assert!(matches!(error, TransportError::CallTimeout { sent: true, .. }), "{error:?}");
        assert_eq!(error.effect(), Effect::Unknown);
        assert!((15..60).contains(&took.as_secs()), "{took:?}");

        // With the library the connection is out of service, and replaced as soon as there is work. The native engine's
        // goes on with one place less.
        let replaced = usize::from(engine() == Engine::Library);
        becomes("stuck calls and suspect connections", SOON, (1, replaced), || {
            (stats().stuck_calls, stats().suspect)
        });
        query_status(&manager, "h1", vm2, 20).await.unwrap();
        assert_eq!(list(&manager, "h1", 20).await.unwrap().len(), 2);
        assert!(stats().total_connections > replaced, "{}", stats());

        hung.resume_qemu().unwrap();
        // The call returns, and its connection is closed.
        becomes("calls in flight and suspect connections", SOON, (0, 0), || {
            (stats().calls_in_flight, stats().suspect)
        });
        query_status(&manager, "h1", vm1, 20).await.unwrap();
        assert!(manager.close(SOON).await);
        nothing_is_held(SOON);
    });
}

#[test]
fn a_command_whose_qemu_is_killed_may_have_been_carried_out() {
    let bed = bed();
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    let vm1 = vm(&bed, "h1", "vm1");
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        guest.pause_qemu().unwrap();
        let asked = tokio::spawn({
            let manager = manager.clone();
            async move { query_status(&manager, "h1", vm1, 60).await }
        });
        let is_free = |connection: LibvirtConnection| async move { connection.monitor_is_free(vm1).await };
        while let Ok(true) = manager.execute_on_host_with("h1", in_seconds(20), is_free).await {
            assert!(!asked.is_finished(), "{:?}", asked.await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        guest.kill_qemu().unwrap();
        let error = asked.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::LibvirtError, Effect::Unknown), "{error:?}");
        assert!(manager.close(SOON).await);
    });
}

#[test]
fn an_agent_command_whose_qemu_is_killed_may_have_been_carried_out() {
    let bed = bed();
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    let vm1 = vm(&bed, "h1", "vm1");
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        guest.pause_qemu().unwrap();
        let (sent, is_sent) = tokio::sync::oneshot::channel();
        let asked = tokio::spawn({
            let manager = manager.clone();
            let ping = async move |connection: LibvirtConnection| {
                let notify = move || sent.send(()).unwrap();
                connection.agent_command_with(vm1, r#"{"execute":"guest-ping"}"#, notify).await
            };
            async move { manager.execute_on_host_with("h1", in_seconds(60), ping).await }
        });
        is_sent.await.unwrap();
        // The daemon answers this after it has begun the command.
        assert_eq!(guest.state().unwrap(), "running");
        guest.kill_qemu().unwrap();
        let error = asked.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::LibvirtError, Effect::Unknown), "{error:?}");
        assert!(manager.close(SOON).await);
    });
}

#[test]
fn a_command_whose_look_at_the_monitor_is_not_answered_was_not_sent() {
    let bed = bed();
    let vm1 = vm(&bed, "h1", "vm1");
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        let h1 = bed.host("h1").unwrap();
        // Asks a VM while its daemon is paused. Returns the error, and whether the command was handed over.
        let ask = async || {
            let handed_over = AtomicBool::new(false);
            let work = async |connection: LibvirtConnection| {
                connection.list_domains().await?;
                h1.pause_daemon().unwrap();
                let sent = || handed_over.store(true, Ordering::Relaxed);
                let asked = connection.monitor_command_with(vm1, r#"{"execute":"query-status"}"#, sent).await;
                h1.resume_daemon().unwrap();
                asked
            };
            let error = manager.execute_on_host_with("h1", in_seconds(10), work).await.unwrap_err();
            (error, handed_over.into_inner())
        };

        // A VM that has not answered yet is looked at first.
        let (error, handed_over) = ask().await;
        assert_eq!((error.kind(), error.effect()), (ErrorKind::CallTimeout, Effect::None), "{error:?}");
        assert!(!handed_over);

        // A VM that has just answered is not looked at: the command itself is not answered.
        query_status(&manager, "h1", vm1, 20).await.unwrap();
        let (error, handed_over) = ask().await;
        assert_eq!((error.kind(), error.effect()), (ErrorKind::CallTimeout, Effect::Unknown), "{error:?}");
        assert!(handed_over);
        assert!(manager.close(SOON).await);
    });
}

#[test]
fn calls_beside_a_hung_one_are_not_delayed() {
    let bed = bed();
    bed.host("h1").unwrap().guest("vm1").unwrap().pause_qemu().unwrap();
    let (vm1, vm2) = (vm(&bed, "h1", "vm1"), vm(&bed, "h1", "vm2"));
    within(LIMIT, async {
        // libvirt's client before 9.10 can forget to send a call made beside another one on the same connection until
        // something else is sent there. Here nothing else is sent.
        let mut config = config();
        config.keepalive.interval = Duration::from_secs(3600);
        let manager = manager(&bed, config).await;
        let stuck = tokio::spawn({
            let manager = manager.clone();
            async move { query_status(&manager, "h1", vm1, 200).await }
        });
        let host = bed.host("h1").unwrap();
        eventually("a call hangs", SOON, || occupied_for_seconds(&host, 0.0));

        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..3 {
            let manager = manager.clone();
            tasks.spawn(async move {
                for _ in 0..300 {
                    if task == 0 {
                        query_status(&manager, "h1", vm2, 30).await.unwrap();
                    } else {
                        list(&manager, "h1", 30).await.unwrap();
                    }
                }
            });
        }
        tasks.join_all().await;
        assert!(!stuck.is_finished());
        stuck.abort();
    });
}

#[test]
fn a_manager_closes_although_a_call_hangs() {
    let bed = bed();
    nothing_is_held(SOON);
    let hung = bed.host("h1").unwrap().guest("vm1").unwrap();
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        list(&manager, "h1", 20).await.unwrap();
        hung.pause_qemu().unwrap();
        let error = query_status(&manager, "h1", vm(&bed, "h1", "vm1"), 2).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CallTimeout, "{error:?}");
        let asked = Instant::now();
        manager.close(Duration::from_secs(2)).await;
        assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
        drop(manager);

        hung.resume_qemu().unwrap();
        nothing_is_held(SOON);
    });
}

/// A manager of one host, `x`, behind a proxy.
async fn behind(proxy: &Proxy, config: TransportConfig) -> TransportManager {
    let manager = TransportManager::new(config);
    manager.add_host(HostInfo::from_uri("x", proxy.uri())).await.unwrap();
    manager
}

/// Has some ten thousand bytes sent in one message: the machine's UUID is in the host's capabilities.
async fn capabilities(manager: &TransportManager, seconds: u64) -> Result<Option<Uuid>> {
    let work = |connection: LibvirtConnection| async move { connection.machine().await };
    manager.execute_on_host_with("x", in_seconds(seconds), work).await
}

#[test]
fn a_slow_network_is_slow_but_works() {
    let bed = bed();
    let proxy = bed.host("h1").unwrap().proxy().unwrap();
    within(LIMIT, async {
        proxy.set_delay(Duration::from_millis(100));
        let manager = behind(&proxy, atp_e2e::config()).await;
        let asked = Instant::now();
        assert_eq!(list(&manager, "x", 60).await.unwrap().len(), 2);
        assert!(
            asked.elapsed() >= Duration::from_millis(200),
            "{:?}: the traffic bypassed the proxy",
            asked.elapsed()
        );
    });
}

#[test]
fn a_call_over_low_bandwidth_ends_at_the_deadline() {
    let bed = bed();
    let proxy = bed.host("h1").unwrap().proxy().unwrap();
    within(LIMIT, async {
        let manager = behind(&proxy, config()).await;
        let whole = capabilities(&manager, 20).await.unwrap();

        proxy.trickle(400);
        let asked = Instant::now();
        let error = capabilities(&manager, 3).await.unwrap_err();
        assert!(matches!(error, TransportError::CallTimeout { sent: true, .. }), "{error:?}");
        assert!((3..40).contains(&asked.elapsed().as_secs()), "{:?}", asked.elapsed());

        proxy.pass();
        assert_eq!(capabilities(&manager, 20).await.unwrap(), whole);
        becomes("stuck calls", SOON, 0, || manager.pool("x").unwrap().stats().stuck_calls);
    });
}

#[test]
fn a_silent_connection_ends_the_call_at_the_deadline_and_is_detected_by_keepalive() {
    let bed = bed();
    let proxy = bed.host("h1").unwrap().proxy().unwrap();
    within(LIMIT, async {
        let mut config = config();
        config.keepalive.interval = Duration::from_secs(2);
        config.keepalive.count = 2;
        let manager = behind(&proxy, config).await;
        list(&manager, "x", 20).await.unwrap();

        proxy.hold();
        let asked = Instant::now();
        let error = list(&manager, "x", 2).await.unwrap_err();
        assert!(matches!(error, TransportError::CallTimeout { sent: true, .. }), "{error:?}");
        assert!((2..40).contains(&asked.elapsed().as_secs()), "{:?}", asked.elapsed());
        // The call that hung returns when the C library gives the connection up.
        becomes("suspect connections", SOON, 0, || manager.pool("x").unwrap().stats().suspect);

        proxy.pass();
        assert_eq!(list(&manager, "x", 30).await.unwrap().len(), 2);
    });
}

#[test]
fn a_message_cut_in_the_middle_is_a_lost_connection() {
    let bed = bed();
    let proxy = bed.host("h1").unwrap().proxy().unwrap();
    within(LIMIT, async {
        let manager = behind(&proxy, config()).await;
        let whole = capabilities(&manager, 20).await.unwrap();

        proxy.cut_after(1000);
        let asked = Instant::now();
        let error = capabilities(&manager, 60).await.unwrap_err();
        assert!(asked.elapsed() < SOON, "{error:?} after {:?}", asked.elapsed());
        assert_eq!((error.kind(), error.effect()), (ErrorKind::ConnectionLost, Effect::Unknown), "{error:?}");

        proxy.pass();
        assert_eq!(capabilities(&manager, 30).await.unwrap(), whole);
    });
}

#[test]
fn a_half_closed_connection_is_a_lost_connection() {
    let bed = bed();
    let proxy = bed.host("h1").unwrap().proxy().unwrap();
    within(LIMIT, async {
        let mut config = config();
        config.heartbeat_interval = Duration::from_secs(3600);
        config.keepalive.interval = Duration::from_secs(3600);
        let manager = behind(&proxy, config).await;
        list(&manager, "x", 20).await.unwrap();
        let first = manager.pool("x").unwrap().connections().remove(0);

        proxy.half_close();
        becomes("reconnects", SOON, 1, || first.metrics().reconnects);
        assert_eq!(list(&manager, "x", 20).await.unwrap().len(), 2);
    });
}

#[test]
fn states_are_listed_in_one_call_that_a_hung_vm_does_not_delay() {
    let bed = bed();
    let h1 = bed.host("h1").unwrap();
    h1.virsh(&["suspend", "vm2"]).unwrap();
    let hung = h1.guest("vm1").unwrap();
    hung.pause_qemu().unwrap();
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        let list = || async {
            let work = |connection: LibvirtConnection| async move { connection.list_domain_states().await };
            let mut listed = manager.execute_on_host_with("h1", in_seconds(20), work).await.unwrap();
            listed.sort_by(|a, b| a.name.cmp(&b.name));
            listed.into_iter().map(|vm| (vm.name, vm.state.as_str())).collect::<Vec<_>>()
        };
        let expected = [("vm1".to_owned(), "running"), ("vm2".to_owned(), "paused")];
        // First while no other client waits for the hung one, when libvirt would find its monitor free, ...
        assert_eq!(list().await, expected);
        // ... and then while another client does.
        let vm = vm(&bed, "h1", "vm1");
        assert!(query_status(&manager, "h1", vm, 2).await.is_err());
        assert_eq!(list().await, expected);
    });
}
