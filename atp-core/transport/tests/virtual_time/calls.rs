//! Calls that are answered, refused, lost, abandoned, and that never return; in virtual time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use atp_transport::{
    CallConfig, CallFailure, ConnectionState, Effect, ErrorKind, ExecuteOptions, InFlight, Lane, LaneKind,
    LibvirtError, PooledConnection, Result, TransportConfig, TransportError, TransportManager,
};
use futures_util::FutureExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::scripted::{SECOND, Script, Step, lease, multiplexed, one_host};

type Lease = PooledConnection<Script>;

/// Calls that hang until they are released, as C calls do, with or without a caller.
#[derive(Clone, Default)]
struct Hung {
    held: Arc<Mutex<Vec<InFlight>>>,
}

impl Hung {
    async fn call(&self, lease: &Lease, vm: u128) -> Result<()> {
        let held = self.held.clone();
        lease
            .call(
                "hangs",
                Some(Lane { target: vm, kind: LaneKind::Monitor }),
                |_link, in_flight| async move {
                    held.lock().unwrap().push(in_flight);
                    std::future::pending().await
                },
            )
            .await
    }

    fn let_go(&self) {
        self.held.lock().unwrap().clear();
    }
}

async fn answered(lease: &Lease, vm: u128) -> Result<u32> {
    lease
        .call("answers", Some(Lane { target: vm, kind: LaneKind::Monitor }), |_link, _in_flight| async {
            sleep(Duration::from_millis(5)).await;
            Ok(42)
        })
        .await
}

/// Runs work with a deadline of five seconds.
async fn within_five_seconds<T, Fut>(
    manager: &TransportManager<Script>,
    work: impl FnOnce(Lease) -> Fut,
) -> Result<T>
where
    Fut: Future<Output = Result<T>>,
{
    manager.execute_on_host_with("h1", ExecuteOptions::by(Instant::now() + 5 * SECOND), work).await
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_deadline_has_passed_is_not_sent() {
    let manager = one_host(&Script::default(), multiplexed()).await;
    let hung = Hung::default();
    let lease = within_five_seconds(&manager, |lease| async move { Ok(lease) }).await.unwrap();
    sleep(6 * SECOND).await;
    let error = hung.call(&lease, 1).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::CallTimeout, Effect::None));
    assert!(hung.held.lock().unwrap().is_empty());
    assert_eq!(manager.pool("h1").unwrap().stats().suspect, 0);
}

#[tokio::test(start_paused = true)]
async fn a_hung_call_takes_its_caller_the_deadline_and_the_host_one_connection() {
    let script = Script::default();
    let manager = one_host(&script, multiplexed()).await;
    let (hung, asked) = (Hung::default(), Instant::now());
    let neighbour = lease(&manager).await;
    let error = within_five_seconds(&manager, |lease| {
        let hung = hung.clone();
        async move { hung.call(&lease, 1).await }
    })
    .await
    .unwrap_err();
    assert_eq!(asked.elapsed(), 5 * SECOND);
    assert_eq!((error.kind(), error.effect()), (ErrorKind::CallTimeout, Effect::Unknown));

    // The other lease of the same connection continues to work, and new work gets a new connection.
    assert_eq!(answered(&neighbour, 2).await.unwrap(), 42);
    let fresh = lease(&manager).await;
    assert_eq!(answered(&fresh, 2).await.unwrap(), 42);
    let stats = manager.pool("h1").unwrap().stats();
    assert_eq!((stats.suspect, stats.active_connections, stats.stuck_calls), (1, 1, 1));

    // The suspect connection is closed after both its last lease and its last call.
    drop(neighbour);
    sleep(60 * SECOND).await;
    assert_eq!(script.open_links(), 2);
    hung.let_go();
    sleep(SECOND).await;
    let stats = manager.pool("h1").unwrap().stats();
    assert_eq!((stats.total_connections, stats.suspect, stats.stuck_calls), (1, 0, 0));
    assert_eq!(script.open_links(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hung_call_of_a_cancelled_caller_is_detected_at_its_deadline() {
    let script = Script::default();
    let manager = one_host(&script, multiplexed()).await;
    let (hung, lease) = (Hung::default(), lease(&manager).await);
    assert!(hung.call(&lease, 1).now_or_never().is_none(), "the call should hang");
    sleep(29 * SECOND).await;
    assert_eq!(manager.pool("h1").unwrap().stats().suspect, 0);
    sleep(2 * SECOND).await;
    let stats = manager.pool("h1").unwrap().stats();
    assert_eq!((stats.suspect, stats.stuck_calls), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_behind_a_hung_one_is_not_sent() {
    let manager = one_host(&Script::default(), multiplexed()).await;
    let (hung, first) = (Hung::default(), lease(&manager).await);
    assert!(hung.call(&first, 1).now_or_never().is_none());
    let error =
        within_five_seconds(&manager, |lease| async move { answered(&lease, 1).await }).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::CallTimeout, Effect::None));
    assert_eq!(
        within_five_seconds(&manager, |lease| async move { answered(&lease, 2).await }).await.unwrap(),
        42
    );
}

/// One call on a link, and links that open more slowly than leases wait before they share one.
#[tokio::test(start_paused = true)]
async fn work_that_shares_a_link_with_a_call_that_hangs_is_done_on_another_one() {
    let script = Script::default();
    let manager = one_host(&script, TransportConfig::default()).await;
    drop(lease(&manager).await);
    script.set_attempts(Step::Opens(3 * SECOND));
    let (hung, asked) = (Hung::default(), Instant::now());
    let mut running = JoinSet::new();
    let (managed, hangs) = (manager.clone(), hung.clone());
    running.spawn(async move {
        let error = within_five_seconds(&managed, |lease| async move { hangs.call(&lease, 0).await });
        assert_eq!(error.await.unwrap_err().kind(), ErrorKind::CallTimeout);
        5 * SECOND
    });
    for vm in 1..8 {
        let manager = manager.clone();
        running.spawn(async move {
            // The lease of a VM that answers has the same link for more than one call.
            let both = async |lease: Lease| Ok(answered(&lease, vm).await? + answered(&lease, vm).await?);
            let result = within_five_seconds(&manager, both).await;
            assert_eq!(result.unwrap(), 84, "VM {vm}");
            asked.elapsed()
        });
    }
    let took = running.join_all().await;
    assert!(
        took.into_iter().filter(|took| *took < 4 * SECOND).count() == 7,
        "a VM waited for the one that hangs"
    );
    hung.let_go();
}

/// A lease whose work makes calls now and then leaves its link free in between.
#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_place_takes_one_that_comes_free_on_a_link_with_a_lease() {
    let script = Script::default();
    let mut config = TransportConfig::default();
    config.pool.max_connections_per_host = 2;
    let manager = one_host(&script, config).await;
    let leases = [lease(&manager).await, lease(&manager).await];
    let hung = Hung::default();
    assert!(hung.call(&leases[0], 0).now_or_never().is_none());
    let busy = leases[1].call("lasts", None, |_link, in_flight| async move {
        sleep(SECOND).await;
        drop(in_flight);
        Ok(())
    });
    let waits = async {
        let asked = Instant::now();
        (answered(&leases[0], 1).await.unwrap(), asked.elapsed())
    };
    let (_, (answer, took)) = tokio::join!(busy, waits);
    assert_eq!((answer, took), (42, SECOND + Duration::from_millis(5)));
    hung.let_go();
}

#[tokio::test(start_paused = true)]
async fn the_maximum_of_hung_vms_does_not_affect_a_vm_that_answers() {
    let config = multiplexed();
    let limit = config.calls.max_unproven_per_host;
    let manager = one_host(&Script::default(), config).await;
    within_five_seconds(&manager, |lease| async move { answered(&lease, 99).await }).await.unwrap();
    let hung = Hung::default();
    let mut running = Vec::new();
    for vm in 0..20 {
        let (manager, hung) = (manager.clone(), hung.clone());
        running.push(tokio::spawn(async move {
            within_five_seconds(&manager, |lease| async move { hung.call(&lease, vm).await }).await
        }));
    }
    sleep(SECOND).await;
    assert_eq!(manager.pool("h1").unwrap().stats().calls_in_flight, limit);
    let asked = Instant::now();
    within_five_seconds(&manager, |lease| async move { answered(&lease, 99).await }).await.unwrap();
    assert!(asked.elapsed() < SECOND, "a VM that answers was delayed by hung ones");

    let mut sent = 0;
    for task in running {
        let error = task.await.unwrap().unwrap_err();
        sent += usize::from(error.effect() == Effect::Unknown);
    }
    assert_eq!(sent, limit, "calls beyond the limit were sent");
    assert_eq!(manager.pool("h1").unwrap().stats().stuck_calls, limit);
    let error =
        within_five_seconds(&manager, |lease| async move { answered(&lease, 7).await }).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::StuckCalls, Effect::None));
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_stay_within_the_limits() {
    let config = TransportConfig {
        calls: CallConfig { max_per_host: 6, max_unproven_per_host: 100, ..multiplexed().calls },
        ..multiplexed()
    };
    let manager = one_host(&Script::default(), config).await;
    let hung = Hung::default();
    for vm in 0..30 {
        let (manager, hung) = (manager.clone(), hung.clone());
        tokio::spawn(async move {
            within_five_seconds(&manager, |lease| async move { hung.call(&lease, vm).await }).await
        });
    }
    sleep(SECOND).await;
    assert_eq!(manager.pool("h1").unwrap().stats().calls_in_flight, 6);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_does_not_change_the_connection() {
    let script = Script::default();
    let manager = one_host(&script, multiplexed()).await;
    let lease = lease(&manager).await;
    let source = LibvirtError { code: 42, domain: 10, level: 2, message: "Domain not found".to_owned() };
    let refusal = CallFailure::Refused { kind: ErrorKind::VmNotFound, source };
    let error = lease.call::<(), _, _>("refused", None, |_, _| async { Err(refusal) }).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::VmNotFound, Effect::None));
    assert_eq!(answered(&lease, 1).await.unwrap(), 42);
    assert_eq!(script.attempts_made().len(), 1);
    assert_eq!((lease.metrics().requests, lease.metrics().errors), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lost_link_is_reopened_under_the_same_lease() {
    let script = Script::default();
    let manager = one_host(&script, multiplexed()).await;
    let lease = lease(&manager).await;
    script.then([Step::Fails(SECOND), Step::Opens(SECOND)]);
    let lost = CallFailure::Lost { sent: true, source: None };
    let error = lease.call::<(), _, _>("lost", None, |_, _| async { Err(lost) }).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::ConnectionLost, Effect::Unknown));
    assert_eq!(answered(&lease, 1).await.unwrap(), 42);
    assert_eq!((script.attempts_made().len(), script.open_links()), (3, 1));
    assert_eq!(lease.metrics().reconnects, 1);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_come_back_fails_work_with_the_last_reason() {
    let script = Script::default();
    let manager = one_host(&script, multiplexed()).await;
    let lease = lease(&manager).await;
    script.then(vec![Step::Fails(Duration::ZERO); 5]);
    let lost = CallFailure::Lost { sent: false, source: None };
    let error = lease.call::<(), _, _>("lost", None, |_, _| async { Err(lost) }).await.unwrap_err();
    assert_eq!(error.effect(), Effect::None);
    drop(lease);
    let asked = Instant::now();
    let options = ExecuteOptions::by(asked + 600 * SECOND);
    let result =
        manager.execute_on_host_with("h1", options, |lease| async move { answered(&lease, 1).await }).await;
    assert!(matches!(result, Err(TransportError::Connect { .. })), "{result:?}");
    assert!(asked.elapsed() <= 31 * SECOND, "five attempts take at most 1+2+4+8+16 s");
    assert_eq!(script.attempts_made().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn work_whose_connection_is_gone_for_good_may_be_tried_on_another() {
    for auto_reconnect in [true, false] {
        let script = Script::default();
        let mut config = TransportConfig { auto_reconnect, ..multiplexed() };
        config.pool.min_connections_per_host = 2;
        let manager = one_host(&script, config).await;
        sleep(SECOND).await;
        let held = [lease(&manager).await, lease(&manager).await];
        script.set_attempts(Step::Fails(SECOND));
        script.cut();
        sleep(SECOND / 10).await;
        // Without reconnects both are gone; with them, only the surplus one.
        manager.pool("h1").unwrap().resize(0, 1).unwrap();
        sleep(SECOND / 10).await;
        let mut gone = 0;
        for lease in held.iter().filter(|lease| lease.state() == ConnectionState::Closed) {
            let error = answered(lease, 1).await.unwrap_err();
            assert_eq!((error.kind(), error.effect()), (ErrorKind::ConnectionLost, Effect::None), "{error}");
            assert!(error.is_retryable());
            gone += 1;
        }
        assert_eq!(gone, if auto_reconnect { 1 } else { 2 });
        manager.close(Duration::ZERO).await;
        for lease in &held {
            assert_eq!(answered(lease, 1).await.unwrap_err().kind(), ErrorKind::Closed);
        }
    }
}
