//! Work goes on: beside hosts and guests that are hurt in every way, and while the configuration changes under it.

use std::path::Path;
use std::time::Duration;

use atp_e2e::{Bed, becomes, bed, eventually, within};
use atp_transport::{
    BreakerState, ErrorKind, EventKind, Fleet, HostInfo, SelectionStrategy, TransportConfig, TransportManager,
};

use crate::support::{Load, attentive, manager, query_status, vm};

/// Longest any of these tests may take.
const LIMIT: Duration = Duration::from_secs(400);
/// Longest anything may take that should happen soon; the machine may be busy.
const SOON: Duration = Duration::from_secs(90);

/// Soon leaves a host alone, and soon looks again.
fn config() -> TransportConfig {
    let mut config = attentive();
    // Hosts that are not hurt may be slow for a moment: this is a busy machine.
    config.keepalive.count = 4;
    config.breaker.consecutive_failures = 2;
    config.breaker.cool_down = Duration::from_millis(500);
    config.breaker.max_cool_down = Duration::from_secs(1);
    config
}

/// Hurts a host until it is left alone, with others' work done meanwhile; mends it until its work is done again.
fn endures(
    what: &str,
    manager: &TransportManager,
    hurt: &Load,
    spared: [&Load; 2],
    breaks: impl FnOnce(),
    mends: impl FnOnce(),
) {
    let opened = || manager.event_counts()[&EventKind::BreakerOpened];
    let before = (hurt.failed(), opened());
    breaks();
    eventually(&format!("work fails and is refused: {what}"), SOON, || {
        let now = (hurt.failed(), opened());
        if now.0 > before.0 && now.1 > before.1 { Ok(()) } else { Err(now) }
    });
    for load in spared {
        load.wait_for_work("others' work");
    }
    mends();
    hurt.wait_for_work(&format!("work goes on after {what}"));
    let breaker = || manager.pool("h2").unwrap().breaker().state;
    becomes(&format!("the breaker after {what}"), SOON, BreakerState::Closed, breaker);
    for load in spared {
        assert_eq!(load.failed(), 0, "others' work failed: {what}");
    }
}

#[test]
fn work_on_what_is_not_hurt_is_done_whatever_else_is() {
    let bed = bed();
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        let (hurt, beside, apart) =
            (Load::on(&manager, "h2"), Load::on(&manager, "h1"), Load::on(&manager, "h3"));
        let spared = [&beside, &apart];
        for load in [&hurt, &beside, &apart] {
            load.wait_for_work("work at first");
        }

        // On one of the hosts that are spared a VM hangs all the while, and callers keep asking it.
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
                    // Refused at once, it would be asked as fast as can be.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        });
        let stuck = || manager.pool("h1").unwrap().stats().stuck_calls > 0;
        becomes("whether a call hangs", SOON, true, stuck);

        let host = bed.host("h2").unwrap();
        let done = "can be done to a host of the bed";
        endures(
            "the daemon is killed",
            &manager,
            &hurt,
            spared,
            || host.kill_daemon().expect(done),
            || host.start_daemon().expect(done),
        );
        endures(
            "the daemon is stopped",
            &manager,
            &hurt,
            spared,
            || host.pause_daemon().expect(done),
            || host.resume_daemon().expect(done),
        );
        endures(
            "packets are dropped",
            &manager,
            &hurt,
            spared,
            || host.drop_packets().expect(done),
            || host.heal().expect(done),
        );
        endures(
            "the link is cut",
            &manager,
            &hurt,
            spared,
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
        hurt.finish().await;
        let counts = manager.event_counts();
        assert!(counts[&EventKind::BreakerClosed] >= 4 && counts[&EventKind::Suspect] > 0, "{counts:?}");
    });
}

fn fleet(bed: &Bed, hosts: &[&str], change: impl FnOnce(&mut TransportConfig)) -> Fleet {
    let mut config = config();
    change(&mut config);
    let host = |id: &&str| HostInfo::from_uri(*id, bed.host(id).unwrap().uri());
    Fleet { config, hosts: hosts.iter().map(host).collect() }
}

/// Has a followed file say this, and waits until that has been read.
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
        let goes_on = || loads.each_ref().map(|load| load.wait_for_work("work goes on"));
        goes_on();

        // Limits, strategies and a host that comes and goes, step after step.
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
            goes_on();
            let pool = manager.pool("h1").unwrap();
            let in_service = || {
                let stats = pool.stats();
                stats.total_connections - stats.draining - stats.suspect <= max
            };
            becomes("whether there are so few connections", SOON, true, in_service);
            let changes = manager.apply(fleet(&bed, &["h1", "h2"], with)).unwrap();
            assert_eq!((changes.removed.len(), changes.reconfigured.len()), (1, 0), "{changes:?}");
        }

        // The same from a file, with one that cannot be used in between.
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fleet.toml");
        let hosts = |ids: &[&str]| {
            let host = |id: &&str| format!("[hosts.{id}]\nuri = '{}'\n", bed.host(id).unwrap().uri());
            ids.iter().map(host).collect::<String>()
        };
        std::fs::write(&file, hosts(&["h1", "h2"])).unwrap();
        let _following = manager.follow(&file).unwrap();
        goes_on();
        let wide = format!("[transport.pool]\nmax_connections_per_host = 6\n{}", hosts(&["h1", "h2", "h3"]));
        write(&manager, &file, &wide, EventKind::ConfigurationApplied);
        goes_on();
        assert_eq!(manager.hosts().len(), 3);
        let broken = wide.replace("= 6", "= 0");
        write(&manager, &file, &broken, EventKind::ConfigurationRefused);
        goes_on();
        assert_eq!(manager.config().pool.max_connections_per_host, 6);
        write(&manager, &file, &hosts(&["h2", "h1"]), EventKind::ConfigurationApplied);
        goes_on();
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
