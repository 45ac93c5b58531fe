//! Calls that hang at one daemon, on a simulated host that counts what it executes.

#![cfg(feature = "native")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atp_fleet::{Fleet, FleetOptions, HostFault, KeepaliveOptions, VmFault};
use atp_transport::domain::Lifecycle;
use atp_transport::{
    DomainEvents, Effect, Engine, ErrorKind, EventKind, ExecuteOptions, HostInfo, LibvirtConnection,
    TransportConfig, TransportManager, WatchItem, WatchOptions,
};
use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

const HUNG: u32 = 24;
const WELL: u32 = 8;
const SECOND: Duration = Duration::from_secs(1);
const ENGINES: &[Engine] = &[
    Engine::Native,
    #[cfg(feature = "library")]
    Engine::Library,
];
const STATUS: &str = r#"{"execute":"query-status"}"#;

/// A host of VMs, the first of which will hang, and a manager of it. Both sides give up a silent connection after 4 s.
async fn host(max_client_requests: usize) -> (Fleet, TransportManager, Vec<Uuid>) {
    let keepalive = KeepaliveOptions { interval: SECOND, count: 3 };
    let options =
        FleetOptions { vms: HUNG + WELL, max_client_requests, keepalive, ..FleetOptions::default() };
    let fleet = Fleet::start(options).await.unwrap();
    let mut config = TransportConfig { engine: Engine::Native, ..TransportConfig::default() };
    (config.keepalive.interval, config.keepalive.count) = (SECOND, 3);
    // As of the command line: work that waits for VMs that hang leaves connections for other work.
    config.pool.max_connections_per_host = 64;
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

/// The number of calls that a connection allows is measured before it carries more than are known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vms_that_hang_leave_the_others_their_answers_and_the_connections_open() {
    for max_client_requests in [5, 3, 1] {
        let (_fleet, manager, vms) = host(max_client_requests).await;
        let (hung, well) = vms.split_at(HUNG as usize);
        let before = p99(ask_well(&manager, well, Instant::now() + SECOND).await);
        // For long enough that a connection which is not read would be given up.
        let deadline = Instant::now() + 8 * SECOND;
        let (sent, times) =
            tokio::join!(ask_hung(&manager, hung, deadline), ask_well(&manager, well, deadline - SECOND));
        println!("p99 {before:?} before, {:?} beside {sent} calls that hang", p99(times));
        assert!((1..=15).contains(&sent), "{sent} calls were sent to a daemon of {max_client_requests}");
        let lost = manager.event_counts().get(&EventKind::Lost).copied().unwrap_or_default();
        assert_eq!(lost, 0, "connections to a daemon of {max_client_requests} were lost");
    }
}

/// As of VMs whose disks are on storage that does not answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_that_hang_leave_the_other_vms_their_answers() {
    let (fleet, manager, vms) = host(5).await;
    let (hung, well) = vms.split_at(HUNG as usize);
    for number in 1..=HUNG {
        fleet.host(1).unwrap().vm(number).unwrap().set_fault(VmFault::StartHangs);
    }
    ask_well(&manager, well, Instant::now() + SECOND / 10).await;
    let deadline = Instant::now() + 5 * SECOND;
    let starts = join_all(hung.iter().map(|vm| {
        let work = async |lease: LibvirtConnection| lease.domain_lifecycle(*vm, Lifecycle::Start).await;
        manager.execute_on_host_with("h1", ExecuteOptions::by(deadline), work)
    }));
    let (started, times) = tokio::join!(starts, ask_well(&manager, well, deadline + SECOND));
    println!("p99 {:?} beside starts that hang", p99(times));
    let errors: Vec<_> = started.into_iter().map(Result::unwrap_err).collect();
    let sent = errors.iter().filter(|error| error.effect() == Effect::Unknown).count();
    assert!((1..=8).contains(&sent), "{sent} starts were sent: {errors:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_carries_one_call_fewer_than_its_daemon_takes() {
    for (max_client_requests, per_connection) in [(5, 4), (3, 2), (2, 1), (1, 1)] {
        let (_fleet, manager, _) = host(max_client_requests).await;
        let pool = manager.pool("h1").unwrap();
        let deadline = Instant::now() + 10 * SECOND;
        let leases = join_all([(); 8].map(|()| pool.acquire(deadline))).await;
        let leases: Vec<_> = leases.into_iter().map(Result::unwrap).collect();
        let on = |id| leases.iter().filter(|lease| lease.connection_id() == id).count();
        let fullest = leases.iter().map(|lease| on(lease.connection_id())).max();
        assert_eq!(fullest, Some(per_connection), "of {max_client_requests}");
    }
}

/// Connections to a host that is far away open more slowly than work waits before it shares one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_vm_that_hangs_on_a_host_far_away_all_others_are_done() {
    const VMS: u32 = 24;
    for engine in ENGINES {
        let options = FleetOptions { vms: VMS, rtt: SECOND / 10, ..FleetOptions::default() };
        let fleet = Fleet::start(options).await.unwrap();
        let manager =
            TransportManager::new(TransportConfig { engine: *engine, ..TransportConfig::default() });
        let host = fleet.host(1).unwrap();
        manager.add_host(HostInfo::from_uri("h1", host.uri())).await.unwrap();
        let list = async |lease: LibvirtConnection| lease.list_domain_states().await;
        let domains = manager.execute_on_host("h1", list).await.unwrap();
        host.vm(1).unwrap().set_fault(VmFault::Hung);
        let deadline = Instant::now() + 20 * SECOND;
        let mut asked = JoinSet::new();
        for domain in domains {
            let manager = manager.clone();
            asked.spawn(async move {
                let work = async |lease: LibvirtConnection| lease.monitor_command(domain.uuid, STATUS).await;
                let options = ExecuteOptions::by(deadline);
                (domain.name, manager.execute_on_host_with("h1", options, work).await)
            });
        }
        for _ in 1..VMS {
            let (vm, answer) = asked.join_next().await.unwrap().unwrap();
            assert!(answer.is_ok(), "{engine}: {vm} of {VMS}, of which vm1 hangs: {answer:?}");
        }
    }
}

/// Its socket stays open, and nothing is answered there; nor on another connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_daemon_that_takes_one_request_is_noticed_beside_a_call() {
    let (fleet, manager, vms) = host(1).await;
    let (vm, options) = (vms[0], ExecuteOptions::by(Instant::now() + 30 * SECOND));
    let host = fleet.host(1).unwrap();
    let work = async |lease: LibvirtConnection| {
        lease.monitor_command_with(vm, STATUS, || host.set_fault(HostFault::Dead)).await
    };
    let error = manager.execute_on_host_with("h1", options, work).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{error}");
    assert_eq!(error.effect(), Effect::Unknown);
}

/// As virtqemud behind virtproxyd, which answers pings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_have_a_gap_when_the_daemon_behind_a_proxy_hangs() {
    for engine in ENGINES {
        let fleet = Fleet::start(FleetOptions::default()).await.unwrap();
        let mut config =
            TransportConfig { engine: *engine, heartbeat_timeout: SECOND, ..TransportConfig::default() };
        (config.keepalive.interval, config.keepalive.count) = (SECOND, 3);
        let manager = TransportManager::new(config);
        let host = fleet.host(1).unwrap();
        manager.add_host(HostInfo::from_uri("h1", host.uri())).await.unwrap();
        let mut events = manager.watch_domains(&["h1"], &WatchOptions::default()).unwrap();
        let next = async |events: &mut DomainEvents| {
            // A heartbeat would take a minute.
            tokio::time::timeout(30 * SECOND, events.next()).await.expect("an item comes").unwrap()
        };
        assert!(matches!(next(&mut events).await, WatchItem::Present { .. }));
        host.set_fault(HostFault::Behind);
        let gap = next(&mut events).await;
        assert!(matches!(gap, WatchItem::Gap { .. }), "{engine}: {gap:?}");
        host.set_fault(None);
        while !matches!(next(&mut events).await, WatchItem::Present { .. }) {}
    }
}
