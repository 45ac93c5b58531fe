//! The circuit breaker: what opens it, what does not, how it is probed and how it closes.

use std::error::Error as _;
use std::time::Duration;

use atp_transport::{
    BreakerConfig, BreakerState, Effect, ErrorKind, ExecuteOptions, HostInfo, Result, TransportConfig,
    TransportError, TransportEvent, TransportManager,
};
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::answers::{Answer, work};
use crate::scripted::{SECOND, Script, Step};

async fn hosts(script: &Script, count: usize, breaker: BreakerConfig) -> TransportManager<Script> {
    let config = TransportConfig { breaker, ..TransportConfig::default() };
    let manager = TransportManager::with_connector(config, script.clone());
    for n in 1..=count {
        manager.add_host(HostInfo::new(format!("h{n}"), "192.0.2.1")).await.unwrap();
    }
    manager
}

async fn one_host(script: &Script) -> TransportManager<Script> {
    hosts(script, 1, BreakerConfig::default()).await
}

fn state_of(manager: &TransportManager<Script>, host: &str) -> BreakerState {
    manager.pool(host).unwrap().breaker().state
}

fn state(manager: &TransportManager<Script>) -> BreakerState {
    state_of(manager, "h1")
}

async fn call(manager: &TransportManager<Script>, answer: Answer) -> Result<()> {
    work(manager, "h1", 2 * SECOND, None, answer).await
}

/// Fails as many calls to the host in a row as open the breaker, and checks that it opens with the last one.
async fn open(manager: &TransportManager<Script>, host: &str) {
    for n in 0..5 {
        assert_eq!(state_of(manager, host), BreakerState::Closed, "after {n} failures");
        work(manager, host, 2 * SECOND, None, Answer::Never).await.unwrap_err();
    }
    assert_eq!(state_of(manager, host), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_open_it_and_work_is_refused_at_once() {
    let manager = one_host(&Script::default()).await;
    open(&manager, "h1").await;
    let asked = Instant::now();
    let error = call(&manager, Answer::Done).await.unwrap_err();
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert_eq!((error.kind(), error.effect()), (ErrorKind::CircuitOpen, Effect::None));
    assert!(error.is_retryable());
    let TransportError::CircuitOpen { next_probe_in, last_failure: Some(_), .. } = &error else {
        panic!("{error:?}")
    };
    assert!((4.0..=5.5).contains(&next_probe_in.as_secs_f64()), "{next_probe_in:?}");
    assert!(error.to_string().contains("next probe in"), "{error}");
    assert!(error.source().unwrap().to_string().contains("asks: no answer"), "{error:?}");
    assert_eq!(manager.pool("h1").unwrap().breaker().refused, 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_between_failures_starts_the_count_anew() {
    for answer in [Answer::Done, Answer::Refused, Answer::Busy] {
        let manager = one_host(&Script::default()).await;
        for _ in 0..3 {
            for _ in 0..4 {
                call(&manager, Answer::Never).await.unwrap_err();
            }
            let _ended = call(&manager, answer).await;
        }
        assert_eq!(state(&manager), BreakerState::Closed, "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_together_count_as_one_in_a_row() {
    let manager = one_host(&Script::default()).await;
    for generation in 1..=5 {
        assert_eq!(state(&manager), BreakerState::Closed, "before the failures number {generation}");
        join_all((0..3).map(|_| call(&manager, Answer::Never))).await;
    }
    assert_eq!(state(&manager), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn failures_that_are_not_the_hosts_do_not_count() {
    let rate = BreakerConfig {
        consecutive_failures: 1,
        failure_rate: 0.01,
        min_calls: 1,
        ..BreakerConfig::default()
    };
    let manager = hosts(&Script::default(), 1, rate).await;
    for (vm, patience, answer) in [
        (Some(1), 5 * SECOND, Answer::Never),
        (None, SECOND / 2, Answer::Never),
        (None, SECOND, Answer::NoThread),
        (None, SECOND, Answer::Refused),
        (Some(2), SECOND, Answer::Busy),
    ] {
        work(&manager, "h1", patience, vm, answer).await.unwrap_err();
        assert_eq!(state(&manager), BreakerState::Closed, "{answer:?}");
    }
    let panics = manager.execute_on_host("h1", |_| async { panic!("the closure's own") });
    let panicked: Result<()> = panics.await;
    assert_eq!(panicked.unwrap_err().kind(), ErrorKind::Panicked);
    assert_eq!(state(&manager), BreakerState::Closed);
    call(&manager, Answer::Never).await.unwrap_err();
    assert_eq!(state(&manager), BreakerState::Open, "this failure counts");
}

#[tokio::test(start_paused = true)]
async fn a_full_pool_does_not_count() {
    let mut config = TransportConfig::default();
    config.pool.max_connections_per_host = 1;
    config.pool.max_uses_per_connection = 1;
    config.breaker.consecutive_failures = 1;
    let manager = TransportManager::with_connector(config, Script::default());
    manager.add_host(HostInfo::new("h1", "192.0.2.1")).await.unwrap();
    let _lease = manager.pool("h1").unwrap().acquire(Instant::now() + SECOND).await.unwrap();
    let error = call(&manager, Answer::Done).await.unwrap_err();
    assert_eq!((error.kind(), state(&manager)), (ErrorKind::PoolExhausted, BreakerState::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_share_of_failures_opens_it_and_only_of_enough_calls() {
    let rate = BreakerConfig { consecutive_failures: 0, min_calls: 10, ..BreakerConfig::default() };
    let manager = hosts(&Script::default(), 1, rate).await;
    for n in 1..=9 {
        let _ended =
            call(&manager, if n % 2 == 0 { Answer::Done } else { Answer::Lost { sent: true } }).await;
        sleep(SECOND).await;
        assert_eq!(state(&manager), BreakerState::Closed, "after {n} calls");
    }
    call(&manager, Answer::Lost { sent: false }).await.unwrap_err();
    assert_ne!(state(&manager), BreakerState::Closed, "6 of 10 failed");
}

#[tokio::test(start_paused = true)]
async fn old_failures_are_not_in_the_window() {
    let rate = BreakerConfig {
        consecutive_failures: 0,
        min_calls: 4,
        window: 10 * SECOND,
        ..BreakerConfig::default()
    };
    let manager = hosts(&Script::default(), 1, rate).await;
    for _ in 0..20 {
        call(&manager, Answer::Never).await.unwrap_err();
        sleep(10 * SECOND).await;
    }
    assert_eq!(state(&manager), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn after_the_cool_down_one_probe_decides() {
    let script = Script::default();
    let manager = one_host(&script).await;
    open(&manager, "h1").await;
    sleep(6 * SECOND).await;
    assert_eq!(state(&manager), BreakerState::Open, "until the next call");
    script.set_probe_time(3 * SECOND);
    let (first, others) = tokio::join!(work(&manager, "h1", 5 * SECOND, None, Answer::Done), async {
        sleep(SECOND).await;
        assert_eq!(state(&manager), BreakerState::HalfOpen);
        join_all((0..5).map(|_| call(&manager, Answer::Done))).await
    });
    first.unwrap();
    assert!(others.iter().all(|result| result.as_ref().unwrap_err().kind() == ErrorKind::CircuitOpen));
    assert_eq!(state(&manager), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn its_changes_are_events() {
    let manager = one_host(&Script::default()).await;
    let mut events = manager.events();
    open(&manager, "h1").await;
    sleep(6 * SECOND).await;
    call(&manager, Answer::Done).await.unwrap();
    let mut changes = Vec::new();
    while let Some(event) = events.try_recv() {
        match &event.what {
            TransportEvent::BreakerOpened { reason, cool_down } => {
                assert!(
                    reason.contains("asks: no answer") && *cool_down >= 4 * SECOND,
                    "{reason}, {cool_down:?}"
                );
                changes.push("opened");
            }
            TransportEvent::BreakerHalfOpen => changes.push("half open"),
            TransportEvent::BreakerClosed { open_for } => {
                assert_eq!(*open_for, 6 * SECOND);
                changes.push("closed");
            }
            _ => {}
        }
    }
    assert_eq!(changes, ["opened", "half open", "closed"]);
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_probe_opens_it_again_and_the_work_is_not_started() {
    let script = Script::default();
    let manager = one_host(&script).await;
    open(&manager, "h1").await;
    sleep(6 * SECOND).await;
    script.set_silent(true);
    let began = std::cell::Cell::new(false);
    let options = ExecuteOptions::by(Instant::now() + 5 * SECOND);
    let work = manager.execute_on_host_with("h1", options, |_| {
        began.set(true);
        async { Ok::<_, TransportError>(()) }
    });
    let error = work.await.unwrap_err();
    assert_eq!((error.kind(), error.effect(), began.get()), (ErrorKind::CircuitOpen, Effect::None, false));
    assert_eq!(state(&manager), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_cancelled_gives_its_place_back() {
    let script = Script::default();
    let manager = one_host(&script).await;
    open(&manager, "h1").await;
    sleep(6 * SECOND).await;
    script.set_probe_time(SECOND);
    for _ in 0..3 {
        assert!(call(&manager, Answer::Done).now_or_never().is_none(), "the probe takes a second");
        assert_eq!(state(&manager), BreakerState::HalfOpen);
    }
    call(&manager, Answer::Done).await.unwrap();
    assert_eq!(state(&manager), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_host_opens_it_and_a_reconnect_starts_a_probe_at_once() {
    let script = Script::default();
    let manager = one_host(&script).await;
    call(&manager, Answer::Done).await.unwrap();
    script.set_attempts(Step::Fails(SECOND));
    script.cut();
    while state(&manager) == BreakerState::Closed {
        sleep(SECOND).await;
    }
    // The pool has failed as well by now, or soon will, and its reason is more specific.
    sleep(60 * SECOND).await;
    let error = call(&manager, Answer::Done).await.unwrap_err();
    assert_eq!((error.kind(), state(&manager)), (ErrorKind::ConnectionRefused, BreakerState::Open));

    script.set_attempts(Step::default());
    let asked = Instant::now();
    while state(&manager) == BreakerState::Open {
        sleep(SECOND).await;
        assert!(asked.elapsed() < 70 * SECOND, "still open although the host is back");
    }
    assert_eq!(state(&manager), BreakerState::HalfOpen);
    call(&manager, Answer::Done).await.unwrap();
    assert_eq!(state(&manager), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_counts_once_for_any_number_of_waiting_callers() {
    let script = Script::default();
    script.set_attempts(Step::Fails(SECOND));
    let manager = one_host(&script).await;
    for _ in 0..3 {
        let results = join_all((0..20).map(|_| call(&manager, Answer::Done))).await;
        assert!(
            results.iter().all(|result| result.as_ref().unwrap_err().kind() == ErrorKind::ConnectionRefused)
        );
    }
    assert_eq!(state(&manager), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn work_that_gets_no_connection_counts() {
    let script = Script::default();
    script.set_attempts(Step::Hangs);
    let manager = one_host(&script).await;
    for _ in 0..5 {
        assert_eq!(state(&manager), BreakerState::Closed);
        assert_eq!(call(&manager, Answer::Done).await.unwrap_err().kind(), ErrorKind::ConnectTimeout);
    }
    assert_eq!(state(&manager), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn leases_taken_from_the_pool_itself_are_not_refused() {
    let manager = one_host(&Script::default()).await;
    open(&manager, "h1").await;
    let lease = manager.pool("h1").unwrap().acquire(Instant::now() + SECOND).await.unwrap();
    sleep(SECOND).await;
    crate::answers::ask(&lease, None, Answer::Done).await.unwrap();
    assert_eq!(state(&manager), BreakerState::HalfOpen, "it answers, so it may be probed");
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_share_of_the_fleet_is_open_at_once() {
    let share = BreakerConfig { max_open_share: 0.3, ..BreakerConfig::default() };
    let manager = hosts(&Script::default(), 10, share).await;
    let fail = |n: usize| {
        let manager = manager.clone();
        async move {
            for _ in 0..8 {
                work(&manager, &format!("h{n}"), 2 * SECOND, None, Answer::Never).await.unwrap_err();
            }
        }
    };
    join_all((1..=10).map(fail)).await;
    let open: Vec<_> =
        (1..=10).filter(|n| state_of(&manager, &format!("h{n}")) != BreakerState::Closed).collect();
    assert_eq!(open.len(), 3, "{open:?}");

    // One that closes makes room for another that fails.
    sleep(6 * SECOND).await;
    work(&manager, &format!("h{}", open[0]), 2 * SECOND, None, Answer::Done).await.unwrap();
    let other = (1..=10).find(|n| !open.contains(n)).unwrap();
    work(&manager, &format!("h{other}"), 2 * SECOND, None, Answer::Never).await.unwrap_err();
    assert_eq!(state_of(&manager, &format!("h{other}")), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn disabled_it_refuses_nothing_and_disabling_it_closes_it() {
    let off = BreakerConfig { enabled: false, ..BreakerConfig::default() };
    let manager = hosts(&Script::default(), 1, off.clone()).await;
    for _ in 0..20 {
        assert_eq!(call(&manager, Answer::Never).await.unwrap_err().kind(), ErrorKind::CallTimeout);
    }

    let manager = one_host(&Script::default()).await;
    open(&manager, "h1").await;
    let config = TransportConfig { breaker: off, ..TransportConfig::default() };
    manager.apply(atp_transport::Fleet { config, hosts: manager.hosts() }).unwrap();
    assert_eq!(state(&manager), BreakerState::Closed, "it changes with the next call");
    call(&manager, Answer::Done).await.unwrap();
}
