//! Several calls on one link: what a call that hangs takes from the others, and when the link takes no new work.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use atp_transport::{
    ErrorKind, ExecuteOptions, InFlight, Lane, LaneKind, PooledConnection, SelectionStrategy,
    TransportConfig, TransportManager, Unanswered,
};
use futures_util::FutureExt;
use tokio::time::{Instant, sleep};

use crate::scripted::{SECOND, Script, lease, multiplexed, one_host};

/// Four calls on a link, which allows one that overran, and at most so many links.
fn config(links: usize) -> TransportConfig {
    let mut config = multiplexed();
    config.calls.suspect_after = 2;
    config.pool.max_connections_per_host = links;
    // None is shared beyond its places, also where there are no more.
    config.pool.max_uses_per_connection = 4;
    config
}

/// The tokens of calls whose callers have left.
type Held = Arc<Mutex<Vec<InFlight>>>;

/// A call that overruns its deadline, a second from now, and returns when the token is released.
async fn overruns(manager: &TransportManager<Script>, held: &Held) {
    let options = ExecuteOptions::by(Instant::now() + SECOND);
    let work = |lease: PooledConnection<Script>| {
        let held = held.clone();
        async move {
            let hangs = lease.call("hangs", None, |_link, in_flight| async move {
                held.lock().unwrap().push(in_flight);
                std::future::pending::<Result<(), _>>().await
            });
            hangs.await
        }
    };
    let error = manager.execute_on_host_with("h1", options, work).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CallTimeout, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_link_with_one_call_that_overran_goes_on_with_a_place_less() {
    let script = Script::default();
    let manager = one_host(&script, config(1)).await;
    let held = Held::default();
    overruns(&manager, &held).await;
    let stats = manager.pool("h1").unwrap().stats();
    assert_eq!((stats.suspect, stats.stuck_calls), (0, 1));

    let leases = [lease(&manager).await, lease(&manager).await, lease(&manager).await];
    for lease in &leases {
        let answer = lease.call("answers", None, |_, _| async { Ok(1) });
        assert_eq!(answer.now_or_never().unwrap().unwrap(), 1, "a lease has no place of its own");
    }
    let mut further = Box::pin(lease(&manager));
    assert!(further.as_mut().now_or_never().is_none(), "a lease for the place of the call that hangs");
    // Nothing else happens that the pool could notice.
    held.lock().unwrap().clear();
    let asked = Instant::now();
    further.await;
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert_eq!((script.open_links(), script.closed_links()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_link_with_two_calls_that_overran_is_replaced() {
    let script = Script::default();
    let manager = one_host(&script, config(1)).await;
    let (held, kept) = (Held::default(), lease(&manager).await);
    overruns(&manager, &held).await;
    overruns(&manager, &held).await;
    sleep(Duration::from_millis(1)).await;
    let stats = manager.pool("h1").unwrap().stats();
    assert_eq!((stats.suspect, stats.stuck_calls), (1, 2));
    let fresh = lease(&manager).await;
    assert_ne!(fresh.connection_id(), kept.connection_id());
    assert_eq!(kept.call("answers", None, |_, _| async { Ok(1) }).await.unwrap(), 1);
    drop(kept);
    held.lock().unwrap().clear();
    sleep(SECOND).await;
    assert_eq!((script.open_links(), script.closed_links()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn abandoned_calls_that_overrun_count_as_well() {
    let script = Script::default();
    let manager = one_host(&script, config(1)).await;
    let held = Held::default();
    drop(lease(&manager).await);
    for suspect in [0, 1] {
        let options = ExecuteOptions::by(Instant::now() + SECOND);
        let work = |lease: PooledConnection<Script>| {
            let held = held.clone();
            async move {
                let hangs = lease.call("hangs", None, |_link, in_flight| async move {
                    held.lock().unwrap().push(in_flight);
                    std::future::pending::<Result<(), _>>().await
                });
                hangs.await
            }
        };
        assert!(manager.execute_on_host_with("h1", options, work).now_or_never().is_none());
        sleep(2 * SECOND).await;
        assert_eq!(manager.pool("h1").unwrap().stats().suspect, suspect);
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_has_as_many_leases_as_it_allows_calls() {
    let script = Script::default();
    let manager = one_host(&script, config(8)).await;
    let many = [lease(&manager).await, lease(&manager).await];
    assert_eq!(many[0].connection_id(), many[1].connection_id(), "a further link beside free places");
    drop(many);

    // The daemon comes back with another limit.
    script.allow_in_flight(1);
    script.cut();
    sleep(60 * SECOND).await;
    let one = [lease(&manager).await, lease(&manager).await, lease(&manager).await];
    let mut links: Vec<_> = one.iter().map(|lease| lease.connection_id()).collect();
    links.sort_unstable();
    links.dedup();
    assert_eq!(links.len(), 3, "several leases on one link");

    // A lower setting holds, a higher one does not.
    for (max_in_flight, set, most) in [(3, 2, 2), (3, 8, 3)] {
        let script = Script::default();
        script.allow_in_flight(max_in_flight);
        let mut config = config(8);
        config.calls.max_per_connection = set;
        let manager = one_host(&script, config).await;
        let first = lease(&manager).await;
        let many = futures_util::future::join_all([(); 9].map(|()| lease(&manager))).await;
        let beside = many.iter().filter(|lease| lease.connection_id() == first.connection_id()).count();
        assert_eq!(beside + 1, most, "with {set}");
    }
}

/// The daemon came back with another limit between two connections.
#[tokio::test(start_paused = true)]
async fn weighted_round_robin_lends_each_link_as_often_as_the_calls_that_it_allows() {
    let script = Script::default();
    script.allow_in_flight(1);
    let mut config = config(2);
    config.pool.selection_strategy = SelectionStrategy::WeightedRoundRobin;
    let manager = one_host(&script, config).await;
    let narrow = lease(&manager).await;
    script.allow_in_flight(4);
    let wide = lease(&manager).await;
    let links = [narrow.connection_id(), wide.connection_id()];
    drop((narrow, wide));
    let mut lent = [0, 0];
    for _ in 0..50 {
        let id = lease(&manager).await.connection_id();
        lent[usize::from(id == links[1])] += 1;
    }
    assert_eq!(lent, [10, 40]);
}

#[tokio::test(start_paused = true)]
async fn what_a_link_allows_is_found_out_when_a_second_lease_is_wanted_and_before_another_link_is_opened() {
    let script = Script::default();
    script.allow_in_flight(3);
    script.measure_in(SECOND / 10);
    let manager = one_host(&script, config(8)).await;
    for _ in 0..3 {
        drop(lease(&manager).await);
    }
    assert_eq!(script.measured(), 0, "for one lease at a time");
    let first = lease(&manager).await;
    let asked = Instant::now();
    let more = [lease(&manager).await, lease(&manager).await];
    assert_eq!((script.measured(), asked.elapsed()), (1, SECOND / 10));
    assert!(more.iter().all(|lease| lease.connection_id() == first.connection_id()), "a further link");
    let fourth = lease(&manager).await;
    assert_ne!(fourth.connection_id(), first.connection_id());
}

#[tokio::test(start_paused = true)]
async fn calls_at_once_on_one_lease_get_a_further_link_only_if_they_wait_for_long() {
    for (takes, links) in [(SECOND / 10, 1), (4 * SECOND, 3)] {
        let script = Script::default();
        let manager = one_host(&script, config(8)).await;
        let lease = lease(&manager).await;
        let call = |_: usize| {
            lease.call("answers", None, |_link, in_flight| async move {
                sleep(takes).await;
                drop(in_flight);
                Ok(())
            })
        };
        let answers = futures_util::future::join_all((0..12).map(call)).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(script.open_links(), links, "calls of {takes:?}");
    }
}

/// As it may be that never reads on beside a call.
#[tokio::test(start_paused = true)]
async fn a_link_that_does_not_tell_what_it_allows_gets_another_beside_it() {
    let script = Script::default();
    script.allow_in_flight(3);
    script.measure_in(1_000 * SECOND);
    let manager = one_host(&script, config(8)).await;
    let (first, asked) = (lease(&manager).await, Instant::now());
    let second = lease(&manager).await;
    assert_ne!(second.connection_id(), first.connection_id());
    assert!(asked.elapsed() < SECOND, "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn only_a_call_that_was_sent_is_unanswered_and_not_one_that_waits_for_its_turn() {
    let manager = one_host(&Script::default(), config(1)).await;
    let lane = Lane { target: 1, kind: LaneKind::Monitor };
    let work = |watched: &Unanswered| {
        let (manager, options) = (manager.clone(), ExecuteOptions::default().watched_by(watched));
        tokio::spawn(async move {
            let call = |lease: PooledConnection<Script>| async move {
                let takes = |_, in_flight: InFlight| async move {
                    sleep(3 * SECOND).await;
                    drop(in_flight);
                    Ok(())
                };
                lease.call("takes three seconds", Some(lane), takes).await
            };
            manager.execute_on_host_with("h1", options, call).await
        })
    };
    let (sent, waits) = (Unanswered::default(), Unanswered::default());
    let (first, second) = (work(&sent), work(&waits));
    sleep(2 * SECOND).await;
    assert!(sent.for_time() >= 2 * SECOND - Duration::from_millis(100), "{:?}", sent.for_time());
    assert_eq!(waits.for_time(), Duration::ZERO);
    first.await.unwrap().unwrap();
    sleep(SECOND).await;
    assert_eq!(sent.for_time(), Duration::ZERO);
    assert!(waits.for_time() >= SECOND - Duration::from_millis(100), "{:?}", waits.for_time());
    second.await.unwrap().unwrap();
}
