//! A connector that panics: its host counts as down, and nothing else is affected.

use atp_transport::{ConnectionState, ErrorKind};
use tokio::time::{Instant, sleep};

use crate::scripted::{SECOND, Script, Step, multiplexed, one_host};

#[tokio::test(start_paused = true)]
async fn an_attempt_that_panics_is_a_failed_one_and_others_follow() {
    let script = Script::attempts([Step::Panics, Step::Panics]);
    let manager = one_host(&script, multiplexed()).await;
    let pool = manager.pool("h1").unwrap();
    let error = pool.acquire(Instant::now() + 5 * SECOND).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectFailed, "{error:?}");
    let cause = pool.connections()[0].last_connect_error().unwrap();
    assert!(cause.reason.contains("scripted"), "{cause}");
    assert_eq!(pool.stats().failed, 1, "{}", pool.stats());
    // At the interval of a failed host, and not without a pause.
    sleep(140 * SECOND).await;
    assert_eq!(script.attempts_made().len(), 3);
    drop(pool.acquire(Instant::now() + SECOND).await.unwrap());
    assert!(manager.close(SECOND).await);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_panics_is_a_lost_link() {
    let script = Script::default();
    let manager = one_host(&script, multiplexed()).await;
    sleep(SECOND).await;
    script.set_probes_panic(true);
    sleep(70 * SECOND).await;
    script.set_probes_panic(false);
    sleep(10 * SECOND).await;
    let connections = manager.pool("h1").unwrap().connections();
    assert_eq!(connections[0].state(), ConnectionState::Connected);
    assert_eq!((connections[0].metrics().reconnects, script.open_links()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_probe_before_a_lease_that_panics_is_a_dead_connection() {
    let script = Script::default();
    let manager = one_host(&script, multiplexed()).await;
    sleep(40 * SECOND).await;
    script.set_probes_panic(true);
    let pool = manager.pool("h1").unwrap();
    let lease = pool.acquire(Instant::now() + 10 * SECOND).await.unwrap();
    assert_eq!(lease.metrics().reconnects, 1, "lent without a new link");
}
