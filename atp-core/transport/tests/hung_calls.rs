//! Calls that hang at one daemon, by the native engine, on a simulated host that counts what it executes.

#![cfg(feature = "native")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atp_fleet::{Fleet, FleetOptions, KeepaliveOptions, VmFault};
use atp_transport::{
    Engine, EventKind, ExecuteOptions, HostInfo, LibvirtConnection, TransportConfig, TransportManager,
};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

const HUNG: u32 = 24;
const WELL: u32 = 8;
const SECOND: Duration = Duration::from_secs(1);
const STATUS: &str = r#"{"execute":"query-status"}"#;

/// A host of VMs, the first of which will hang, and a manager of it. Both sides give up a silent connection after 4 s.
async fn host(
    max_client_requests: usize,
    change: impl FnOnce(&mut TransportConfig),
) -> (Fleet, TransportManager, Vec<Uuid>) {
    let keepalive = KeepaliveOptions { interval: SECOND, count: 3 };
    let options =
        FleetOptions { vms: HUNG + WELL, max_client_requests, keepalive, ..FleetOptions::default() };
    let fleet = Fleet::start(options).await.unwrap();
    let mut config = TransportConfig { engine: Engine::Native, ..TransportConfig::default() };
    (config.keepalive.interval, config.keepalive.count) = (SECOND, 3);
    // As of the command line: work that waits for VMs that hang leaves connections for other work.
    config.pool.max_connections_per_host = 64;
    change(&mut config);
    let manager = TransportManager::new(config);
    let host = fleet.host(1).unwrap();
    manager.add_host(HostInfo::from_uri("h1", host.uri())).await.unwrap();
    let list = async |lease: LibvirtConnection| lease.list_domain_states().await;
    let domains = manager.execute_on_host("h1", list).await.unwrap();
    let of = |number: u32| domains.iter().find(|domain| domain.name == format!("vm{number}")).unwrap().uuid;
    let vms = (1..=HUNG + WELL).map(of).collect();
    for number in 1..=HUNG {
        host.vm(number).unwrap().set_fault(VmFault::Hung);
    }
    (fleet, manager, vms)
}

/// Asks the VMs that hang, all at once, and counts what is sent to them. Ends when all have overrun.
async fn ask_hung(manager: &TransportManager, vms: &[Uuid], deadline: Instant) -> usize {
    let sent = Arc::new(AtomicUsize::new(0));
    let mut asked = JoinSet::new();
    for vm in vms.iter().copied() {
        let (manager, sent) = (manager.clone(), sent.clone());
        asked.spawn(async move {
            let work = async |lease: LibvirtConnection| {
                let sent = || {
                    sent.fetch_add(1, Ordering::SeqCst);
                };
                lease.monitor_command_with(vm, STATUS, sent).await
            };
            manager.execute_on_host_with("h1", ExecuteOptions::by(deadline), work).await.unwrap_err();
        });
    }
    while asked.join_next().await.is_some() {}
    sent.load(Ordering::SeqCst)
}

/// Asks the VMs that are well, one after another, until the deadline; returns how long each answer took.
async fn ask_well(manager: &TransportManager, vms: &[Uuid], until: Instant) -> Vec<Duration> {
    let mut times = Vec::new();
    while Instant::now() < until {
        for vm in vms.iter().copied() {
            let began = Instant::now();
            let work = async |lease: LibvirtConnection| lease.monitor_command(vm, STATUS).await;
            manager.execute_on_host("h1", work).await.unwrap();
            times.push(began.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    times
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vms_that_hang_leave_the_others_their_answers_and_the_connections_open() {
    // The second daemon takes fewer requests than a connection carries by default, and is configured for.
    for (max_client_requests, max_per_connection) in [(5, 0), (3, 2)] {
        let change = |config: &mut TransportConfig| config.calls.max_per_connection = max_per_connection;
        let (_fleet, manager, vms) = host(max_client_requests, change).await;
        let (hung, well) = vms.split_at(HUNG as usize);
        let before = p99(ask_well(&manager, well, Instant::now() + SECOND).await);
        // For long enough that a connection which is not read would be given up.
        let deadline = Instant::now() + 8 * SECOND;
        let (sent, times) =
            tokio::join!(ask_hung(&manager, hung, deadline), ask_well(&manager, well, deadline - SECOND));
        println!("p99 {before:?} before, {:?} beside {sent} calls that hang", p99(times));
        assert!((1..=15).contains(&sent), "{sent} calls were sent");
        let lost = manager.event_counts().get(&EventKind::Lost).copied().unwrap_or_default();
        assert_eq!(lost, 0, "connections were lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_takes_fewer_requests_is_noticed() {
    let (_fleet, manager, vms) = host(3, |_| {}).await;
    let (hung, well) = vms.split_at(HUNG as usize);
    // Noticed after two pings without an answer, before the connection is given up.
    let sent = ask_hung(&manager, hung, Instant::now() + 3 * SECOND).await;
    assert!((1..=15).contains(&sent), "{sent} calls were sent");
    // From now on one that hangs takes nothing from another.
    ask_well(&manager, well, Instant::now() + SECOND).await;
    let pool = manager.pool("h1").unwrap();
    let deadline = Instant::now() + 10 * SECOND;
    let leases = [pool.acquire(deadline).await.unwrap(), pool.acquire(deadline).await.unwrap()];
    assert_ne!(leases[0].connection_id(), leases[1].connection_id(), "several calls on one connection");
}
