//! How a pool maintains its connections: load, age, validation, long leases, resizing.

use std::time::Duration;

use atp_transport::{
    AcquireStage, BreakerState, Effect, ErrorKind, ExecuteOptions, HostInfo, PoolConfig, PooledConnection,
    ReconnectConfig, SelectionStrategy, TransportConfig, TransportError, TransportManager,
};
use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::scripted::{SECOND, Script, Step, multiplexed, one_host};

/// One host with this pool configuration.
async fn with_pool(script: &Script, pool: PoolConfig) -> TransportManager<Script> {
    one_host(script, TransportConfig { pool, ..multiplexed() }).await
}

async fn leases(manager: &TransportManager<Script>, count: usize) -> Vec<PooledConnection<Script>> {
    let pool = manager.pool("h1").unwrap();
    let mut leases = Vec::new();
    for _ in 0..count {
        leases.push(pool.acquire(Instant::now() + 5 * SECOND).await.unwrap());
    }
    leases
}

fn total(manager: &TransportManager<Script>) -> usize {
    manager.pool("h1").unwrap().stats().total_connections
}

#[tokio::test(start_paused = true)]
async fn a_pool_under_load_grows_by_one_per_check_and_shrinks_again() {
    // Limits on calls do not make it grow here: no lease has to wait.
    let pool = PoolConfig { high_load_uses: 2, max_connections_per_host: 3, ..PoolConfig::default() };
    let manager = with_pool(&Script::default(), pool).await;
    let held = leases(&manager, 3).await;
    assert_eq!(total(&manager), 1);
    sleep(31 * SECOND).await;
    assert_eq!(total(&manager), 2, "one connection highly loaded out of one");
    sleep(31 * SECOND).await;
    assert_eq!(total(&manager), 2, "one out of two is less than the threshold");
    drop(held);
    sleep(91 * SECOND).await;
    assert_eq!(total(&manager), 1, "no load, and nothing idle for long enough to be reaped");
}

/// With the defaults, and links that carry several calls or one.
#[tokio::test(start_paused = true)]
async fn a_pool_grows_when_four_of_five_connections_are_highly_loaded_and_shrinks_when_they_are_not() {
    for (per_connection, high) in [(4, 3), (1, 1)] {
        let mut config = TransportConfig::default();
        config.calls.max_per_connection = per_connection;
        config.pool.min_connections_per_host = 5;
        let manager = one_host(&Script::default(), config).await;
        let pool = manager.pool("h1").unwrap();
        sleep(SECOND).await;
        pool.resize(1, 10).unwrap();
        // One more on the first connection where that leaves room, and one connection without any.
        let mut held = leases(&manager, 5 * high).await;
        let spared = held.iter().map(|lease| lease.connection_id()).max();
        held.retain(|lease| Some(lease.connection_id()) != spared);
        sleep(31 * SECOND).await;
        assert_eq!(total(&manager), 6, "four of five");
        sleep(31 * SECOND).await;
        assert_eq!(total(&manager), 6, "four of six are less than the threshold");
        held.truncate(high);
        let grown = Instant::now();
        while total(&manager) > 5 {
            assert!(grown.elapsed() < 200 * SECOND, "one of six highly loaded, and nothing is closed");
            sleep(SECOND).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn connections_are_opened_side_by_side_as_far_as_waiting_work_needs_them() {
    for (per_connection, max_opening, needed) in [(1, 4, 10), (1, 2, 10), (4, 4, 4), (4, 1, 4)] {
        let script = Script::default();
        let mut config = TransportConfig::default();
        config.calls.max_per_connection = per_connection;
        (config.pool.max_opening, config.pool.grow_patience) = (max_opening, 60 * SECOND);
        let manager = one_host(&script, config).await;
        drop(leases(&manager, 1).await);
        script.set_attempts(Step::Opens(2 * SECOND));
        let asked = Instant::now();
        let pool = manager.pool("h1").unwrap();
        let count = needed * per_connection;
        let held = join_all((0..count).map(|_| pool.acquire(asked + 60 * SECOND))).await;
        assert!(held.iter().all(Result::is_ok));
        let rounds = (needed - 1).div_ceil(max_opening);
        assert_eq!(asked.elapsed(), 2 * SECOND * u32::try_from(rounds).unwrap());
        assert_eq!(script.most_attempts_at_once(), max_opening.min(needed - 1));
        assert_eq!(total(&manager), needed, "with {per_connection} calls on a connection");
    }
}

/// Attempts that fail at once are one failure of the host, and the next is made alone.
#[tokio::test(start_paused = true)]
async fn attempts_that_fail_side_by_side_count_as_one() {
    let script = Script::default();
    let mut config = TransportConfig::default();
    config.reconnect = ReconnectConfig { max_attempts: 3, ..config.reconnect };
    let manager = one_host(&script, config).await;
    let _held = leases(&manager, 1).await;
    script.set_attempts(Step::Fails(SECOND));
    let pool = manager.pool("h1").unwrap();
    let waiting = join_all((0..8).map(|_| pool.acquire(Instant::now() + SECOND / 2)));
    assert!(waiting.await.iter().all(Result::is_err));
    sleep(SECOND).await;
    assert_eq!(script.attempts_made().len(), 5);
    // A host that had failed three times would be left alone for longer.
    script.cut();
    sleep(3 * SECOND).await;
    assert!(script.attempts_made().len() > 5, "{:?}", pool.stats());
    assert_eq!(script.attempts_beside_while_not_well(), 0);
}

#[tokio::test(start_paused = true)]
async fn load_never_grows_a_pool_past_its_maximum() {
    let pool = PoolConfig { high_load_uses: 0, max_connections_per_host: 2, ..PoolConfig::default() };
    let manager = with_pool(&Script::default(), pool).await;
    let _held = leases(&manager, 10).await;
    sleep(600 * SECOND).await;
    assert_eq!(total(&manager), 2);
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_is_no_longer_needed_is_not_made() {
    let script = Script::attempts([Step::Opens(Duration::ZERO), Step::Fails(Duration::ZERO)]);
    let pool = PoolConfig { max_uses_per_connection: 1, ..PoolConfig::default() };
    let manager = with_pool(&script, pool).await;
    let held = leases(&manager, 1).await;
    // A second caller makes the pool try again, without success, and wait before the next attempt.
    let pool = manager.pool("h1").unwrap();
    let waiting = tokio::spawn(async move { pool.acquire(Instant::now() + 5 * SECOND).await.map(drop) });
    sleep(SECOND).await;
    drop(held);
    waiting.await.unwrap().unwrap();
    let made = script.attempts_made().len();
    sleep(400 * SECOND).await;
    assert!(
        script.attempts_made().len() <= made + 7,
        "the failed connection is tried only at intervals of max_delay"
    );
    assert_eq!(total(&manager), 1, "and reaped when no caller needs it");
}

#[tokio::test(start_paused = true)]
async fn old_connections_are_replaced_when_their_leases_are_back() {
    let script = Script::default();
    let pool = PoolConfig { max_lifetime: 600 * SECOND, ..PoolConfig::default() };
    let manager = with_pool(&script, pool).await;
    let held = leases(&manager, 1).await;
    sleep(700 * SECOND).await;
    let stats = manager.pool("h1").unwrap().stats();
    assert_eq!((stats.draining, stats.idle_connections), (1, 1), "{stats}");
    assert!(held[0].is_alive().await.unwrap(), "a leased connection was closed because of its age");
    drop(held);
    sleep(SECOND).await;
    assert_eq!((total(&manager), script.open_links()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_validated_before_it_is_lent() {
    let script = Script::default();
    let manager = with_pool(&script, PoolConfig::default()).await;
    drop(leases(&manager, 1).await);
    assert_eq!(script.probes(), 0, "a connection opened a moment ago was probed");
    sleep(40 * SECOND).await;
    drop(leases(&manager, 1).await);
    assert_eq!(script.probes(), 1);
    drop(leases(&manager, 1).await);
    assert_eq!(script.probes(), 1, "probed twice in one moment");

    // One that does not answer is not lent, and the caller gets another.
    sleep(40 * SECOND).await;
    script.set_silent(true);
    let asked = Instant::now();
    let lease = manager.pool("h1").unwrap().acquire(asked + 60 * SECOND).await.unwrap();
    assert_eq!(lease.metrics().reconnects, 1);
    let patience = multiplexed().heartbeat_timeout;
    assert!(asked.elapsed() >= patience && asked.elapsed() < patience + 2 * SECOND, "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn leases_held_for_long_are_counted() {
    let pool = PoolConfig { report_leases_after: 60 * SECOND, ..PoolConfig::default() };
    let manager = with_pool(&Script::default(), pool).await;
    let held = leases(&manager, 2).await;
    sleep(59 * SECOND).await;
    assert_eq!(manager.pool("h1").unwrap().stats().long_held_leases, 0);
    sleep(2 * SECOND).await;
    assert_eq!(manager.pool("h1").unwrap().stats().long_held_leases, 2);
    drop(held);
    let stats = manager.pool("h1").unwrap().stats();
    assert_eq!((stats.long_held_leases, stats.use_time.count), (0, 2));
    assert!(stats.use_time.p50 >= 60 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_smaller_pool_drains_the_connections_in_use() {
    let script = Script::default();
    let pool = PoolConfig { max_uses_per_connection: 1, ..PoolConfig::default() };
    let manager = with_pool(&script, pool).await;
    let mut held = leases(&manager, 6).await;
    let pool = manager.pool("h1").unwrap();
    pool.resize(1, 2).unwrap();
    sleep(SECOND).await;
    let stats = pool.stats();
    assert_eq!((stats.active_connections, stats.draining), (2, 4), "{stats}");
    held.clear();
    sleep(SECOND).await;
    assert_eq!(total(&manager), 2);
    pool.resize(5, 10).unwrap();
    sleep(SECOND).await;
    assert_eq!(total(&manager), 5);
    assert_eq!(pool.resize(3, 2).unwrap_err().kind(), ErrorKind::InvalidConfig);
    assert_eq!(total(&manager), 5, "a refused size had an effect");
}

#[tokio::test(start_paused = true)]
async fn every_strategy_spreads_leases_over_the_connections() {
    for &strategy in SelectionStrategy::ALL {
        let pool =
            PoolConfig { selection_strategy: strategy, min_connections_per_host: 4, ..PoolConfig::default() };
        let manager = with_pool(&Script::default(), pool).await;
        sleep(SECOND).await;
        let held = leases(&manager, 16).await;
        let connections = manager.pool("h1").unwrap().connections();
        let uses: Vec<_> = connections.iter().map(|c| c.metrics().active_uses).collect();
        assert!(uses.iter().all(|uses| *uses == 4), "{strategy}: {uses:?}");
        drop(held);
    }
}

#[tokio::test(start_paused = true)]
async fn least_connections_takes_the_least_used_one() {
    let pool = PoolConfig {
        selection_strategy: SelectionStrategy::LeastConnections,
        min_connections_per_host: 3,
        ..PoolConfig::default()
    };
    let manager = with_pool(&Script::default(), pool).await;
    sleep(SECOND).await;
    let mut held = leases(&manager, 9).await;
    let emptied = held[0].connection_id();
    held.retain(|lease| lease.connection_id() != emptied);
    for lease in leases(&manager, 3).await {
        assert_eq!(lease.connection_id(), emptied);
        held.push(lease);
    }
}

#[tokio::test(start_paused = true)]
async fn hosts_lost_together_are_reconnected_one_after_another() {
    let script = Script::default();
    let config = TransportConfig {
        reconnect: ReconnectConfig {
            max_per_second: 10,
            initial_delay: Duration::from_millis(1),
            ..ReconnectConfig::default()
        },
        ..multiplexed()
    };
    let manager = TransportManager::with_connector(config, script.clone());
    for n in 0..50 {
        manager.add_host(HostInfo::new(format!("h{n}"), "192.0.2.1")).await.unwrap();
    }
    sleep(SECOND).await;
    assert_eq!(script.open_links(), 50, "new work does not wait for the reconnect rate");
    script.cut();
    let lost = Instant::now();
    sleep(10 * SECOND).await;
    assert_eq!(script.open_links(), 50);
    let last = *script.attempts_made().last().unwrap() - lost;
    assert!(
        last >= Duration::from_millis(4800) && last <= 6 * SECOND,
        "50 attempts at 10 a second took {last:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn results_are_streamed_and_the_number_of_parallel_hosts_is_limited() {
    let manager = TransportManager::with_connector(multiplexed(), Script::default());
    let ids: Vec<String> = (1..=6).map(|n| format!("h{n}")).collect();
    for id in &ids {
        manager.add_host(HostInfo::new(id.as_str(), "192.0.2.1")).await.unwrap();
    }
    sleep(SECOND).await;
    // The first takes longest: it would come last if results waited for one another.
    let work = |conn: PooledConnection<Script>| async move {
        let n: u32 = conn.host_id().as_str().trim_start_matches('h').parse().unwrap();
        sleep((10 - n) * SECOND).await;
        Ok::<_, TransportError>(n)
    };
    let started = Instant::now();
    let all: Vec<_> = manager.stream_on_hosts(&ids, ExecuteOptions::default(), work).collect().await;
    let order: Vec<_> = all.into_iter().map(|(_, n)| n.unwrap()).collect();
    assert_eq!(order, [6, 5, 4, 3, 2, 1]);
    assert_eq!(started.elapsed().as_secs(), 9);

    let started = Instant::now();
    let two_at_once = ExecuteOptions::default().with_concurrency(2);
    let results = manager.execute_on_hosts_with(&ids, two_at_once, work).await;
    assert!(results.iter().map(|(id, _)| id).eq(&ids), "not in the order of the given hosts");
    assert_eq!(started.elapsed().as_secs(), 9 + 7 + 5 - 1, "h1 and h2, h3 and h4, h5 and h6");
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_too_little_time_for_the_probe_gets_that_reason() {
    let script = Script::default();
    let manager = with_pool(&script, PoolConfig::default()).await;
    sleep(40 * SECOND).await;
    script.set_silent(true);
    let error = manager.pool("h1").unwrap().acquire(Instant::now() + 2 * SECOND).await.unwrap_err();
    let TransportError::AcquireTimeout { stage, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*stage, AcquireStage::Validating);
    assert_eq!((error.kind(), error.effect()), (ErrorKind::CallTimeout, Effect::None));
    assert!(error.is_retryable() && error.is_timeout());
    assert_eq!(error.to_string(), "host h1: connected, but no answer after 2.0s");
}

#[tokio::test(start_paused = true)]
async fn parallel_callers_of_one_idle_connection_validate_it_once() {
    let script = Script::attempts([Step::Opens(SECOND)]);
    let always =
        PoolConfig { max_connections_per_host: 1, validate_after: Duration::ZERO, ..PoolConfig::default() };
    let mut config = TransportConfig { pool: always, ..TransportConfig::default() };
    config.calls.max_per_connection = 1;
    let manager = one_host(&script, config).await;
    script.set_probe_time(SECOND);
    let pool = manager.pool("h1").unwrap();
    let asked = Instant::now();
    let leases = join_all((0..4).map(|_| pool.acquire(asked + 10 * SECOND))).await;
    assert!(leases.iter().all(Result::is_ok), "{leases:?}");
    assert_eq!((asked.elapsed().as_secs(), script.probes()), (2, 1), "an attempt and a probe");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_cannot_be_validated_for_lack_of_threads_is_kept() {
    let script = Script::default();
    let manager = with_pool(&script, PoolConfig::default()).await;
    script.set_no_threads(true);
    sleep(1000 * SECOND).await;
    let probes = script.probes();
    assert!((2..100).contains(&probes), "{probes} probes");
    // It is lent, and the work finds out itself.
    drop(leases(&manager, 1).await);
    assert_eq!(script.attempts_made().len(), 1, "the connection was opened again");
    assert_eq!(manager.pool("h1").unwrap().breaker().state, BreakerState::Closed);
}
