//! Connections, pool and manager over a scripted connector, in virtual time.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atp_transport::{
    AcquireStage, ConnectionState, Effect, ErrorKind, ExecuteOptions, HostInfo, PoolConfig, Result,
    TransportConfig, TransportError, TransportManager,
};
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep, timeout};

use crate::scripted::{SECOND, Script, Step, lease, multiplexed, one_host};

fn config(pool: PoolConfig) -> TransportConfig {
    TransportConfig { pool, ..multiplexed() }
}

/// A pool that opens no connection without work and grants one lease per connection.
fn exclusive(max: usize) -> PoolConfig {
    PoolConfig {
        max_connections_per_host: max,
        min_connections_per_host: 0,
        max_uses_per_connection: 1,
        ..PoolConfig::default()
    }
}

async fn settle() {
    sleep(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_warms_up_to_its_minimum_and_no_further() {
    let script = Script::default();
    let pool = PoolConfig { min_connections_per_host: 3, ..PoolConfig::default() };
    let manager = one_host(&script, config(pool)).await;
    settle().await;
    let stats = manager.pool("h1").unwrap().stats();
    assert_eq!((stats.total_connections, stats.idle_connections), (3, 3));
    assert_eq!(script.most_attempts_at_once(), 1, "one attempt at a time");
}

#[tokio::test(start_paused = true)]
async fn with_a_minimum_of_zero_nothing_connects_without_work() {
    let script = Script::default();
    let manager = one_host(&script, config(exclusive(2))).await;
    sleep(600 * SECOND).await;
    assert!(script.attempts_made().is_empty());
    manager.execute_on_host("h1", |_| async { Ok::<_, TransportError>(()) }).await.unwrap();
    assert_eq!(script.attempts_made().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn leases_are_spread_over_the_connections() {
    let script = Script::default();
    let pool = PoolConfig { min_connections_per_host: 3, ..PoolConfig::default() };
    let manager = one_host(&script, config(pool)).await;
    settle().await;
    let pool = manager.pool("h1").unwrap();
    let mut leases = Vec::new();
    for _ in 0..6 {
        leases.push(pool.acquire(Instant::now() + SECOND).await.unwrap());
    }
    let uses: Vec<_> = pool.connections().iter().map(|c| c.metrics().active_uses).collect();
    assert_eq!(uses, [2, 2, 2]);
    drop(leases);
    assert_eq!(pool.stats().total_active_uses, 0);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_can_grow_grants_no_more_leases_on_a_connection_than_parallel_calls() {
    let script = Script::default();
    let manager = one_host(&script, multiplexed()).await;
    let pool = manager.pool("h1").unwrap();
    let mut leases = Vec::new();
    for _ in 0..40 {
        leases.push(pool.acquire(Instant::now() + SECOND).await.unwrap());
    }
    assert!(pool.connections().iter().all(|c| c.metrics().active_uses == 4), "{}", pool.stats());
    leases.push(pool.acquire(Instant::now() + SECOND).await.unwrap());
    assert_eq!((pool.stats().total_connections, pool.stats().total_active_uses), (10, 41));
}

#[tokio::test(start_paused = true)]
async fn work_shares_a_connection_while_the_next_opens_slowly() {
    let script = Script::attempts([Step::Opens(Duration::ZERO), Step::Hangs]);
    let manager = one_host(&script, multiplexed()).await;
    let pool = manager.pool("h1").unwrap();
    let asked = Instant::now();
    let mut leases = Vec::new();
    for _ in 0..16 {
        leases.push(pool.acquire(asked + 10 * SECOND).await.unwrap());
    }
    assert_eq!(asked.elapsed().as_secs(), 1, "not after grow_patience");
    assert_eq!(pool.stats().total_active_uses, 16);
}

#[tokio::test(start_paused = true)]
async fn a_full_pool_serves_callers_in_order() {
    let script = Script::default();
    let manager = one_host(&script, config(exclusive(1))).await;
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for n in 0..10 {
        let (manager, order) = (manager.clone(), order.clone());
        tasks.push(tokio::spawn(async move {
            sleep(n * Duration::from_millis(1)).await;
            manager
                .execute_on_host("h1", |lease| async move {
                    order.lock().unwrap().push(n);
                    sleep(SECOND).await;
                    drop(lease);
                    Ok::<_, TransportError>(())
                })
                .await
        }));
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(*order.lock().unwrap(), (0..10).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_full_pool_is_reported_at_the_deadline() {
    let script = Script::default();
    let manager = one_host(&script, config(exclusive(1))).await;
    let pool = manager.pool("h1").unwrap();
    let _held = pool.acquire(Instant::now() + SECOND).await.unwrap();
    let asked = Instant::now();
    let error = pool.acquire(asked + 5 * SECOND).await.unwrap_err();
    assert_eq!(asked.elapsed(), 5 * SECOND);
    assert_eq!(error.kind(), ErrorKind::PoolExhausted);
    assert_eq!(error.effect(), Effect::None);
    assert!(matches!(error, TransportError::AcquireTimeout { stage: AcquireStage::AllInUse, .. }));
    assert_eq!(pool.stats().waiting, 0, "a caller that gave up is still in the queue");
}

#[tokio::test(start_paused = true)]
async fn a_hung_connect_is_reported_at_the_deadline() {
    let script = Script::attempts([Step::Hangs]);
    let manager = one_host(&script, config(exclusive(1))).await;
    let asked = Instant::now();
    let error = manager.pool("h1").unwrap().acquire(asked + 5 * SECOND).await.unwrap_err();
    assert_eq!(asked.elapsed(), 5 * SECOND);
    assert!(matches!(error, TransportError::AcquireTimeout { stage: AcquireStage::Connecting, .. }));
    // The result says nothing about the host: the time may have been too short.
    assert!(error.hint().contains("allow more time"), "{}", error.hint());
    assert!(error.is_unreachable() && error.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn a_host_is_not_blamed_by_a_caller_with_hardly_any_time() {
    let script = Script::attempts([Step::IsSilent]);
    let manager = one_host(&script, config(exclusive(1))).await;
    let pool = manager.pool("h1").unwrap();
    for (time, is_blamed) in [(Duration::from_millis(5), false), (3 * SECOND, true)] {
        let error = pool.acquire(Instant::now() + time).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectTimeout);
        assert_eq!(error.source().is_some(), is_blamed, "{error:?}");
        assert_eq!(error.hint().contains("allow more time"), !is_blamed, "{}", error.hint());
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_refused_is_said_to_refuse_until_the_next_attempt_has_waited_for_long() {
    let script = Script::attempts([Step::Fails(Duration::ZERO), Step::IsSilent]);
    let mut config = config(exclusive(1));
    config.reconnect.max_attempts = 0;
    let longest = config.reconnect.initial_delay * 2;
    let manager = one_host(&script, config).await;
    let pool = manager.pool("h1").unwrap();
    let kind = async |time| pool.acquire(Instant::now() + time).await.unwrap_err().kind();
    let moment = Duration::from_millis(5);
    assert_eq!(kind(moment).await, ErrorKind::ConnectionRefused);
    let begins = async {
        while script.attempts_made().len() < 2 {
            sleep(moment).await;
        }
    };
    timeout(longest, begins).await.unwrap();
    assert_eq!(kind(moment).await, ErrorKind::ConnectionRefused);
    assert_eq!(kind(3 * SECOND).await, ErrorKind::ConnectTimeout);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_refuses_fails_its_callers_at_once_with_the_reason() {
    let script = Script::attempts(vec![Step::Fails(Duration::ZERO); 3]);
    let manager = one_host(&script, config(exclusive(1))).await;
    let pool = manager.pool("h1").unwrap();
    let asked = Instant::now();
    for _ in 0..3 {
        let error = pool.acquire(asked + 30 * SECOND).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
    assert!(asked.elapsed() < SECOND, "callers waited for a host that had failed");
    assert_eq!(script.attempts_made().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_host_is_tried_again_at_intervals_of_max_delay() {
    let script = Script::attempts(vec![Step::Fails(Duration::ZERO); 3]);
    let pool = PoolConfig { min_connections_per_host: 1, ..PoolConfig::default() };
    let manager = one_host(&script, config(pool)).await;
    settle().await;
    assert_eq!(manager.pool("h1").unwrap().stats().failed, 1);
    sleep(600 * SECOND).await;
    let made = script.attempts_made();
    assert_eq!(made.len(), 4, "three failures, then success");
    for pair in made.windows(2) {
        let wait = pair[1] - pair[0];
        assert!(wait >= 54 * SECOND && wait <= 66 * SECOND, "waited {wait:?}, not about max_delay");
    }
    assert_eq!(manager.pool("h1").unwrap().stats().idle_connections, 1);
}

#[tokio::test(start_paused = true)]
async fn a_further_connection_that_cannot_be_opened_delays_no_lost_one() {
    // The attempt has failed, or is under way, when the only connection is lost.
    for fails_after in [Duration::ZERO, 10 * SECOND] {
        let script = Script::attempts([Step::Opens(Duration::ZERO), Step::Fails(fails_after)]);
        let pool = PoolConfig { max_uses_per_connection: 1, ..PoolConfig::default() };
        let manager = one_host(&script, config(pool)).await;
        let _held = lease(&manager).await;
        let pool = manager.pool("h1").unwrap();
        let waiting = tokio::spawn(async move { pool.acquire(Instant::now() + 60 * SECOND).await });
        sleep(5 * SECOND).await;
        assert_eq!(script.attempts_made().len(), 2);
        script.cut();
        sleep(fails_after + 3 * SECOND).await;
        let states: Vec<_> =
            manager.pool("h1").unwrap().connections().iter().map(|connection| connection.state()).collect();
        assert_eq!(states, [ConnectionState::Connected; 2], "{fails_after:?}");
        assert!(waiting.await.unwrap().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_link_is_detected_by_the_heartbeat_and_reopened() {
    let script = Script::default();
    let manager = one_host(&script, multiplexed()).await;
    settle().await;
    script.set_silent(true);
    script.then([Step::Fails(20 * SECOND)]);
    sleep(67 * SECOND + multiplexed().heartbeat_timeout).await;
    let stats = manager.pool("h1").unwrap().stats();
    assert_eq!((stats.reconnecting, stats.total_connections), (1, 1));
    script.set_silent(false);
    sleep(60 * SECOND).await;
    let connections = manager.pool("h1").unwrap().connections();
    assert_eq!(connections[0].state(), ConnectionState::Connected);
    assert_eq!(connections[0].metrics().reconnects, 1);
    assert_eq!(script.open_links(), 1, "the lost link was not closed");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_notices_its_loss_is_reopened_at_once() {
    let script = Script::default();
    let manager = one_host(&script, multiplexed()).await;
    settle().await;
    script.cut();
    settle().await;
    settle().await;
    let connections = manager.pool("h1").unwrap().connections();
    assert_eq!(connections[0].state(), ConnectionState::Connected);
    assert_eq!((connections[0].metrics().reconnects, script.open_links()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn work_sent_while_reconnecting_waits_and_is_done() {
    let script = Script::default();
    let manager = one_host(&script, multiplexed()).await;
    settle().await;
    script.set_silent(true);
    script.then([Step::Opens(3 * SECOND)]);
    sleep(67 * SECOND + multiplexed().heartbeat_timeout).await;
    script.set_silent(false);
    let alive = manager.execute_on_host("h1", |conn| async move { conn.is_alive().await }).await;
    assert!(alive.unwrap());
}

#[tokio::test(start_paused = true)]
async fn without_auto_reconnect_a_lost_connection_is_replaced_only_for_work() {
    let script = Script::default();
    let config = TransportConfig {
        auto_reconnect: false,
        ..config(PoolConfig { min_connections_per_host: 0, ..PoolConfig::default() })
    };
    let manager = one_host(&script, config).await;
    let alive = |conn: atp_transport::PooledConnection<Script>| async move { conn.is_alive().await };
    assert!(manager.execute_on_host("h1", alive).await.unwrap());
    script.set_silent(true);
    assert!(!manager.execute_on_host("h1", alive).await.unwrap());
    settle().await;
    assert_eq!(manager.pool("h1").unwrap().stats().total_connections, 0);
    script.set_silent(false);
    assert!(manager.execute_on_host("h1", alive).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed_down_to_the_minimum() {
    let script = Script::default();
    let pool = PoolConfig { max_uses_per_connection: 1, ..PoolConfig::default() };
    let manager = one_host(&script, config(pool)).await;
    let pool = manager.pool("h1").unwrap();
    let mut leases = Vec::new();
    for _ in 0..5 {
        leases.push(pool.acquire(Instant::now() + SECOND).await.unwrap());
    }
    assert!(script.open_links() >= 5);
    drop(leases);
    sleep(400 * SECOND).await;
    assert_eq!((pool.stats().total_connections, script.open_links()), (1, 1));
    assert!(script.probes() > 0, "the remaining connection was not probed");
}

#[tokio::test(start_paused = true)]
async fn work_on_several_hosts_is_parallel_with_a_result_for_each() {
    let manager = TransportManager::with_connector(multiplexed(), Script::default());
    for id in ["h1", "h2", "h3"] {
        manager.add_host(HostInfo::new(id, "192.0.2.1")).await.unwrap();
    }
    // A barrier of all three: work on one host after the other would never end.
    let together = Arc::new(Barrier::new(3));
    let work = move |conn: atp_transport::PooledConnection<Script>| {
        let together = together.clone();
        async move {
            together.wait().await;
            assert_ne!(conn.host_id().as_str(), "h2", "a bug in the work");
            Ok::<_, TransportError>(conn.host_id().to_string())
        }
    };
    let results =
        timeout(60 * SECOND, manager.execute_on_hosts(&["h3", "nope", "h1", "h2"], work)).await.unwrap();
    let kinds: Vec<_> =
        results.iter().map(|(id, r)| (id.as_str(), r.as_ref().map_err(|e| e.kind()))).collect();
    assert_eq!(
        kinds,
        [
            ("h3", Ok(&"h3".to_owned())),
            ("nope", Err(ErrorKind::UnknownHost)),
            ("h1", Ok(&"h1".to_owned())),
            ("h2", Err(ErrorKind::Panicked)),
        ]
    );
    assert!(results[3].1.as_ref().unwrap_err().to_string().contains("a bug in the work"));
    assert!(manager.stats().await.iter().all(|(_, stats)| stats.total_active_uses == 0), "a lease was lost");
}

#[tokio::test(start_paused = true)]
async fn endless_work_ends_at_its_deadline() {
    let manager = one_host(&Script::default(), multiplexed()).await;
    let asked = Instant::now();
    let options = ExecuteOptions::by(asked + 5 * SECOND);
    let result: Result<()> = manager
        .execute_on_host_with("h1", options, |lease| async move {
            std::future::pending::<()>().await;
            drop(lease);
            Ok(())
        })
        .await;
    assert_eq!(asked.elapsed(), 5 * SECOND);
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::CallTimeout, Effect::Unknown));
    assert_eq!(manager.pool("h1").unwrap().stats().total_active_uses, 0);
}

#[tokio::test(start_paused = true)]
async fn a_removed_host_completes_its_work_and_accepts_no_more() {
    let script = Script::default();
    let manager = one_host(&script, multiplexed()).await;
    let pool = manager.pool("h1").unwrap();
    let finished = Arc::new(AtomicUsize::new(0));
    let (worker, count) = (manager.clone(), finished.clone());
    let work = tokio::spawn(async move {
        worker
            .execute_on_host("h1", |lease| async move {
                sleep(3 * SECOND).await;
                count.fetch_add(1, Ordering::SeqCst);
                drop(lease);
                Ok::<_, TransportError>(())
            })
            .await
    });
    settle().await;
    manager.remove_host("h1").await.unwrap();
    assert_eq!(finished.load(Ordering::SeqCst), 1, "the host was closed under its work");
    work.await.unwrap().unwrap();
    assert_eq!(script.open_links(), 0);
    assert_eq!(pool.acquire(Instant::now() + SECOND).await.unwrap_err().kind(), ErrorKind::Closed);
    let gone: Result<()> = manager.execute_on_host("h1", |_| async { Ok(()) }).await;
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::UnknownHost);
}

#[tokio::test(start_paused = true)]
async fn bad_hosts_are_refused_when_they_are_added() {
    let manager = one_host(&Script::default(), multiplexed()).await;
    let kind = |result: Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(manager.add_host(HostInfo::new("h1", "x")).await), ErrorKind::DuplicateHost);
    assert_eq!(kind(manager.add_host(HostInfo::new("a b", "x")).await), ErrorKind::InvalidHostId);
    let config = config(PoolConfig { max_connections_per_host: 0, ..PoolConfig::default() });
    let invalid = TransportManager::with_connector(config, Script::default());
    assert_eq!(kind(invalid.add_host(HostInfo::new("h1", "x")).await), ErrorKind::InvalidConfig);
}

#[tokio::test(start_paused = true)]
async fn hung_attempts_are_limited() {
    let script = Script::attempts(vec![Step::Hangs; 50]);
    let config = TransportConfig {
        reconnect: atp_transport::ReconnectConfig { max_delay: SECOND, ..Default::default() },
        ..multiplexed()
    };
    let max = config.reconnect.max_hung_attempts;
    let manager = one_host(&script, config).await;
    sleep(3600 * SECOND).await;
    assert_eq!(script.attempts_made().len(), max);
    assert_eq!(manager.pool("h1").unwrap().stats().stuck_attempts, max);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_manager_closes_everything() {
    let script = Script::default();
    let manager = one_host(&script, multiplexed()).await;
    settle().await;
    assert_eq!(script.open_links(), 1);
    drop(manager);
    settle().await;
    assert_eq!(script.open_links(), 0);
}
