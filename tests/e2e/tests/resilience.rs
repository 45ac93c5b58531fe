//! Work continues with other hosts and guests in every kind of fault, and during changes of the configuration.

use std::path::Path;
use std::time::Duration;

use atp_e2e::{Bed, becomes, bed, engine, eventually, within};
use atp_transport::{
    BreakerState, Engine, ErrorKind, EventKind, Fleet, HostInfo, SelectionStrategy, TransportConfig,
    TransportManager,
};

use crate::support::{Load, attentive, manager, query_status, vm};

/// Time limit of each test.
const LIMIT: Duration = Duration::from_secs(400);
/// Time limit for changes that happen soon; the machine may be busy.
const SOON: Duration = Duration::from_secs(90);

/// Settings that soon open a breaker and soon probe the host again.
fn config() -> TransportConfig {
    let mut config = attentive();
    // Hosts without a fault may be slow for a moment, since the machine is busy.
    config.keepalive.count = 10;
    config.breaker.consecutive_failures = 2;
    config.breaker.cool_down = Duration::from_millis(500);
    config.breaker.max_cool_down = Duration::from_secs(1);
    config
}

/// Injects a fault into a host until its breaker opens, while other hosts' work is done; undoes the fault and waits
/// until its own work is done again.
fn endures(
    what: &str,
    manager: &TransportManager,
    faulty: &Load,
    healthy: [&Load; 2],
    breaks: impl FnOnce(),
    mends: impl FnOnce(),
) {
    let opened = || manager.event_counts()[&EventKind::BreakerOpened];
    let before = (faulty.failed(), opened());
    breaks();
    eventually(&format!("work fails and is refused: {what}"), SOON, || {
        let now = (faulty.failed(), opened());
        if now.0 > before.0 && now.1 > before.1 { Ok(()) } else { Err(now) }
    });
    for load in healthy {
        load.wait_for_work("others' work");
    }
    mends();
    faulty.wait_for_work(&format!("work continues after {what}"));
    let breaker = || manager.pool("h2").unwrap().breaker().state;
    becomes(&format!("the breaker after {what}"), SOON, BreakerState::Closed, breaker);
    for load in healthy {
        assert_eq!(load.failed(), 0, "others' work failed: {what}");
    }
}

#[test]
fn work_on_healthy_hosts_is_done_while_others_fail() {
    let bed = bed();
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        let (faulty, beside, apart) =
            (Load::on(&manager, "h2"), Load::on(&manager, "h1"), Load::on(&manager, "h3"));
        let healthy = [&beside, &apart];
        for load in [&faulty, &beside, &apart] {
            load.wait_for_work("work at first");
        }

        // On one of the hosts without a fault, a VM hangs all the time and callers keep asking it.
        let hung = bed.host("h1").unwrap().guest("vm1").unwrap();
        let vm = vm(&bed, "h1", "vm1");
        hung.pause_qemu().unwrap();
        let asks = tokio::spawn({
            let manager = manager.clone();
            async move {
                loop {
                    let error = query_status(&manager, "h1", vm, 2).await.unwrap_err();
                    assert!(
                        matches!(
                            error.kind(),
                            ErrorKind::CallTimeout
                                | ErrorKind::StuckCalls
                                | ErrorKind::MonitorBusy
                                | ErrorKind::PoolExhausted
                        ),
                        "{error:?}"
                    );
                    // Callers whose work is refused at once would retry without a pause.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        });
        let stuck = || manager.pool("h1").unwrap().stats().stuck_calls > 0;
        becomes("whether a call hangs", SOON, true, stuck);

        let host = bed.host("h2").unwrap();
        let done = "the fault is injected into a host of the bed";
        endures(
            "the daemon is killed",
            &manager,
            &faulty,
            healthy,
            || host.kill_daemon().expect(done),
            || host.start_daemon().expect(done),
        );
        endures(
            "the daemon is stopped",
            &manager,
            &faulty,
            healthy,
            || host.pause_daemon().expect(done),
            || host.resume_daemon().expect(done),
        );
        endures(
            "packets are dropped",
            &manager,
            &faulty,
            healthy,
            || host.drop_packets().expect(done),
            || host.heal().expect(done),
        );
        endures(
            "the link is cut",
            &manager,
            &faulty,
            healthy,
            || host.link_down().expect(done),
            || host.link_up().expect(done),
        );
        assert!(!asks.is_finished(), "the hung VM answered: {:?}", asks.await);
        asks.abort();
        hung.resume_qemu().unwrap();

        for load in [beside, apart] {
            let (done, failed) = load.finish().await;
            assert_eq!(failed, 0, "of {done} pieces of work");
        }
        faulty.finish().await;
        let counts = manager.event_counts();
        assert!(counts[&EventKind::BreakerClosed] >= 4, "{counts:?}");
        // A connection of the native engine goes on beside one hung call.
        let has_suspect = engine() != Engine::Library || counts[&EventKind::Suspect] > 0;
        assert!(has_suspect, "{counts:?}");
    });
}

fn fleet(bed: &Bed, hosts: &[&str], change: impl FnOnce(&mut TransportConfig)) -> Fleet {
    let mut config = config();
    change(&mut config);
    let host = |id: &&str| HostInfo::from_uri(*id, bed.host(id).unwrap().uri());
    Fleet { config, hosts: hosts.iter().map(host).collect() }
}

/// Writes this to a followed file, and waits until it has been read.
fn write(manager: &TransportManager, file: &Path, text: &str, then: EventKind) {
    let before = manager.event_counts()[&then];
    std::fs::write(file, text).unwrap();
    eventually(then.as_str(), SOON, || {
        let count = manager.event_counts()[&then];
        if count > before { Ok(()) } else { Err(count) }
    });
}

#[test]
fn a_configuration_that_changes_under_load_loses_no_work() {
    let bed = bed();
    within(LIMIT, async {
        let manager = TransportManager::new(config());
        manager.apply(fleet(&bed, &["h1", "h2"], |_| {})).unwrap();
        let loads = [Load::on(&manager, "h1"), Load::on(&manager, "h2")];
        let continues = || loads.each_ref().map(|load| load.wait_for_work("work continues"));
        continues();

        // Limits, strategies and a host that is added and removed, step by step.
        for (max, strategy) in [
            (2, SelectionStrategy::Random),
            (8, SelectionStrategy::LeastConnections),
            (1, SelectionStrategy::RoundRobin),
        ] {
            let with = |config: &mut TransportConfig| {
                config.pool.max_connections_per_host = max;
                config.pool.selection_strategy = strategy;
            };
            let changes = manager.apply(fleet(&bed, &["h1", "h2", "h3"], with)).unwrap();
            assert_eq!((changes.added.len(), changes.reconfigured.len()), (1, 2), "{changes:?}");
            continues();
            let pool = manager.pool("h1").unwrap();
            let in_service = || {
                let stats = pool.stats();
                stats.total_connections - stats.draining - stats.suspect <= max
            };
            becomes("the pool has shrunk", SOON, true, in_service);
            let changes = manager.apply(fleet(&bed, &["h1", "h2"], with)).unwrap();
            assert_eq!((changes.removed.len(), changes.reconfigured.len()), (1, 0), "{changes:?}");
        }

        // The same from a file, with an invalid version in between.
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fleet.toml");
        let hosts = |ids: &[&str]| {
            let host = |id: &&str| format!("[hosts.{id}]\nuri = '{}'\n", bed.host(id).unwrap().uri());
            ids.iter().map(host).collect::<String>()
        };
        std::fs::write(&file, hosts(&["h1", "h2"])).unwrap();
        let _following = manager.follow(&file).unwrap();
        continues();
        let wide = format!("[transport.pool]\nmax_connections_per_host = 6\n{}", hosts(&["h1", "h2", "h3"]));
        write(&manager, &file, &wide, EventKind::ConfigurationApplied);
        continues();
        assert_eq!(manager.hosts().len(), 3);
        let broken = wide.replace("= 6", "= 0");
        write(&manager, &file, &broken, EventKind::ConfigurationRefused);
        continues();
        assert_eq!(manager.config().pool.max_connections_per_host, 6);
        write(&manager, &file, &hosts(&["h2", "h1"]), EventKind::ConfigurationApplied);
        continues();
        assert_eq!(manager.hosts().len(), 2);

        for load in loads {
            let (done, failed) = load.finish().await;
            assert_eq!(failed, 0, "of {done} pieces of work");
        }
        for (id, stats) in manager.stats().await {
            assert_eq!((stats.total_active_uses, stats.waiting), (0, 0), "{id}: {stats}");
        }
    });
}
