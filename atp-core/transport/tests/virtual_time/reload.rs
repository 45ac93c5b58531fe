//! A manager that gets another configuration while work runs.

use std::panic::{AssertUnwindSafe, catch_unwind};

use atp_transport::{
    ErrorKind, Fleet, HostId, HostInfo, SelectionStrategy, TransportConfig, TransportError, TransportManager,
};
use tokio::time::{Instant, sleep};

use crate::scripted::{SECOND, Script, Step};

fn with(change: impl FnOnce(&mut TransportConfig)) -> TransportConfig {
    TransportConfig::builder()
        .with(|config| config.pool.min_connections_per_host = 0)
        .with(change)
        .build()
        .unwrap()
}

fn host(id: &str) -> HostInfo {
    HostInfo::new(id, "192.0.2.1")
}

fn fleet<const N: usize>(config: TransportConfig, hosts: [&str; N]) -> Fleet {
    Fleet { config, hosts: hosts.map(host).into() }
}

fn manager(script: &Script) -> TransportManager<Script> {
    TransportManager::with_connector(with(|_| {}), script.clone())
}

fn ids(hosts: &[HostId]) -> Vec<&str> {
    hosts.iter().map(HostId::as_str).collect()
}

#[tokio::test(start_paused = true)]
async fn hosts_are_added_removed_and_changed_while_work_continues() {
    let manager = manager(&Script::default());
    let changes = manager.apply(fleet(with(|_| {}), ["gone", "kept", "moved", "weighed"])).unwrap();
    assert_eq!(ids(&changes.added), ["gone", "kept", "moved", "weighed"]);

    let work = |id: &'static str| {
        let manager = manager.clone();
        tokio::spawn(async move {
            let work = manager.execute_on_host(id, |lease| async move {
                sleep(5 * SECOND).await;
                lease.is_alive().await
            });
            work.await
        })
    };
    let under_way = ["gone", "kept", "moved", "weighed"].map(work);
    sleep(SECOND).await;

    let mut wanted = fleet(with(|_| {}), ["kept", "new"]);
    wanted.hosts.push(host("weighed").with_weight(7).with_group("web"));
    wanted.hosts.push(HostInfo::new("moved", "192.0.2.9"));
    let changes = manager.apply(wanted.clone()).unwrap();
    assert_eq!(
        [&changes.added, &changes.removed, &changes.replaced, &changes.reconfigured].map(|hosts| ids(hosts)),
        [vec!["new"], vec!["gone"], vec!["moved"], vec!["weighed"]]
    );
    let refused = manager.execute_on_host("gone", |lease| async move { lease.is_alive().await }).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::UnknownHost);
    let weighed = manager.hosts().into_iter().find(|host| host.id == "weighed").unwrap();
    assert_eq!((weighed.weight, weighed.groups), (7, vec!["web".to_owned()]));

    for under_way in under_way {
        assert!(under_way.await.unwrap().unwrap(), "work under way was dropped");
    }
    assert!(manager.apply(wanted).unwrap().is_empty(), "nothing is left to change");
}

#[tokio::test(start_paused = true)]
async fn limits_and_strategies_apply_at_once() {
    let script = Script::default();
    let manager = manager(&script);
    manager.apply(fleet(with(|config| config.pool.max_connections_per_host = 1), ["h1"])).unwrap();
    let pool = manager.pool("h1").unwrap();
    let soon = || Instant::now() + SECOND;
    let mut leases: Vec<_> = Vec::new();
    for _ in 0..pool.config().pool.max_uses_per_connection {
        leases.push(pool.acquire(soon()).await.unwrap());
    }
    let waiting = pool.acquire(soon());
    let config = with(|config| {
        config.pool.max_connections_per_host = 3;
        config.pool.selection_strategy = SelectionStrategy::LeastConnections;
    });
    let (granted, changes) = tokio::join!(waiting, async { manager.apply(fleet(config, ["h1"])).unwrap() });
    assert_eq!(ids(&changes.reconfigured), ["h1"]);
    granted.unwrap();
    assert_eq!(pool.stats().strategy, SelectionStrategy::LeastConnections);
    assert_eq!(script.open_links(), 2, "one more connection, for the waiting caller");

    // Fewer again: the surplus connections close when their leases are back, and none before.
    manager.apply(fleet(with(|config| config.pool.max_connections_per_host = 1), ["h1"])).unwrap();
    sleep(SECOND).await;
    leases.clear();
    sleep(SECOND).await;
    assert_eq!((script.open_links(), pool.stats().total_connections), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn other_time_limits_and_rates_apply_to_what_follows() {
    let script = Script::default();
    script.set_attempts(Step::Hangs);
    let manager = manager(&script);
    manager.apply(fleet(with(|_| {}), ["h1"])).unwrap();
    manager.apply(fleet(with(|config| config.pool.acquire_timeout = 2 * SECOND), ["h1"])).unwrap();
    let asked = Instant::now();
    manager.execute_on_host("h1", |_| async { Ok::<_, TransportError>(()) }).await.unwrap_err();
    assert_eq!(asked.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_invalid_configuration_changes_nothing_and_reports_all_problems() {
    let manager = manager(&Script::default());
    let good = fleet(with(|_| {}), ["h1"]);
    manager.apply(good.clone()).unwrap();
    let before = (manager.hosts(), manager.config());

    let mut config = with(|_| {});
    config.pool.max_connections_per_host = 0;
    let mut bad = fleet(config, ["h1", "h1", "not an id"]);
    let mut own = with(|_| {});
    own.calls.max_threads += 1;
    bad.hosts.push(host("h2").with_config(own));
    let error = manager.apply(bad).unwrap_err();
    let TransportError::Config(error) = error else { panic!("{error}") };
    let paths: Vec<_> = error.problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "transport.pool.max_connections_per_host",
            "hosts.h1",
            "hosts.\"not an id\"",
            "hosts.h2.transport.calls.max_threads"
        ]
    );
    assert_eq!((manager.hosts(), manager.config()), before);
}

#[test]
fn outside_a_runtime_nothing_is_applied() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let manager = manager(&Script::default());
    let _within = runtime.enter();
    manager.apply(fleet(with(|_| {}), ["h1", "h2", "h3"])).unwrap();
    drop(_within);
    let apply = || manager.apply(fleet(with(|_| {}), ["h3"]));
    assert!(catch_unwind(AssertUnwindSafe(apply)).is_err(), "there is no runtime to close the hosts on");
    assert_eq!(manager.hosts().len(), 3);
}
