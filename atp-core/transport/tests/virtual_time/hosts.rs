//! Hosts with a configuration of their own.

use std::time::Duration;

use atp_transport::{ErrorKind, EventKind, HostInfo, TransportConfig, TransportError, TransportManager};
use tokio::time::Instant;

use crate::scripted::{SECOND, Script, Step};

fn common() -> TransportConfig {
    TransportConfig::builder().with(|config| config.pool.min_connections_per_host = 0).build().unwrap()
}

fn host(id: &str) -> HostInfo {
    HostInfo::new(id, "192.0.2.1")
}

#[tokio::test(start_paused = true)]
async fn a_host_uses_its_own_configuration_and_others_the_common_one() {
    let script = Script::attempts([Step::Hangs, Step::Hangs]);
    let manager = TransportManager::with_connector(common(), script);
    let own =
        manager.config().to_builder().toml("[pool]\nacquire_timeout = '3s'\nmax_connections_per_host = 1");
    manager.add_host(host("own").with_config(own.build().unwrap())).await.unwrap();
    manager.add_host(host("common")).await.unwrap();
    for (id, most, patience) in [("own", 1, 3 * SECOND), ("common", 10, 30 * SECOND)] {
        assert_eq!(manager.pool(id).unwrap().config().pool.max_connections_per_host, most);
        let asked = Instant::now();
        let work = manager.execute_on_host(id, |_| async { Ok::<_, TransportError>(()) });
        work.await.unwrap_err();
        assert_eq!(asked.elapsed().as_secs(), patience.as_secs(), "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_removed_host_drains_for_its_own_drain_time() {
    let manager = TransportManager::with_connector(common(), Script::default());
    let own = common().to_builder().with(|config| config.pool.drain_timeout = 2 * SECOND).build().unwrap();
    manager.add_host(host("h1").with_config(own)).await.unwrap();
    let _lease = manager.pool("h1").unwrap().acquire(Instant::now() + SECOND).await.unwrap();
    let asked = Instant::now();
    manager.remove_host("h1").await.unwrap();
    assert_eq!(asked.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_a_host_cannot_have_is_refused() {
    let manager = TransportManager::with_connector(common(), Script::default());
    let mut not_valid = common();
    not_valid.pool.max_connections_per_host = 0;
    let mut of_all_hosts = common();
    of_all_hosts.calls.max_threads += 1;
    for (config, path) in [(not_valid, "pool.max_connections_per_host"), (of_all_hosts, "calls.max_threads")]
    {
        let error = manager.add_host(host("h1").with_config(config)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains(path), "{error}");
    }
    assert!(manager.hosts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_manager_may_close_without_a_time_limit() {
    let manager = TransportManager::with_connector(common(), Script::default());
    manager.add_host(host("h1")).await.unwrap();
    let lease = manager.pool("h1").unwrap().acquire(Instant::now() + SECOND).await.unwrap();
    tokio::spawn(async move {
        tokio::time::sleep(9 * SECOND).await;
        drop(lease);
    });
    let asked = Instant::now();
    assert!(manager.close(Duration::MAX).await);
    assert_eq!(asked.elapsed().as_secs(), 9);
}

#[test]
fn added_and_removed_hosts_are_reported_in_order() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    runtime.block_on(async {
        let mut config = common();
        config.events.capacity = 1 << 16;
        let manager = TransportManager::with_connector(config, Script::default());
        let mut events = manager.events();
        let tasks = (0..4).map(|_| {
            let manager = manager.clone();
            tokio::spawn(async move {
                for _ in 0..500 {
                    // Another host's event may have come first.
                    let _there = manager.add_host(host("h1")).await;
                    let _gone = manager.remove_host("h1").await;
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        let mut is_there = false;
        while let Some(event) = events.try_recv() {
            match event.what.kind() {
                EventKind::HostAdded => assert!(!std::mem::replace(&mut is_there, true), "added twice"),
                EventKind::HostRemoved => assert!(std::mem::replace(&mut is_there, false), "removed twice"),
                _ => {}
            }
        }
    });
}
