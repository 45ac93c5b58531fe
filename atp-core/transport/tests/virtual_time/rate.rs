//! The rate limit on calls to a host.

use std::time::Duration;

use atp_transport::{
    Effect, ErrorKind, ExecuteOptions, Fleet, HostInfo, Lane, LaneKind, RateLimitConfig, Result,
    TransportConfig, TransportManager,
};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::answers::{Answer, ask_in, work};
use crate::scripted::{SECOND, Script};

fn limited(calls_per_second: f64, burst: u32) -> TransportConfig {
    TransportConfig { rate_limit: RateLimitConfig { calls_per_second, burst }, ..TransportConfig::default() }
}

async fn two_hosts(config: TransportConfig) -> TransportManager<Script> {
    let manager = TransportManager::with_connector(config, Script::default());
    for id in ["h1", "h2"] {
        manager.add_host(HostInfo::new(id, "192.0.2.1")).await.unwrap();
    }
    manager
}

async fn calls(
    manager: &TransportManager<Script>,
    host: &str,
    count: usize,
    patience: Duration,
) -> Vec<Result<()>> {
    join_all((0..count).map(|_| work(manager, host, patience, None, Answer::Done))).await
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_sent_at_once_and_the_rest_at_the_rate() {
    let manager = two_hosts(limited(5.0, 10)).await;
    for _ in 0..2 {
        let asked = Instant::now();
        assert!(calls(&manager, "h1", 10, 60 * SECOND).await.iter().all(Result::is_ok));
        assert_eq!(asked.elapsed(), Duration::ZERO);
        assert!(calls(&manager, "h1", 20, 60 * SECOND).await.iter().all(Result::is_ok));
        assert_eq!(asked.elapsed(), 4 * SECOND);
        sleep(2 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_host_has_its_own_limit() {
    let manager = two_hosts(limited(1.0, 1)).await;
    let asked = Instant::now();
    tokio::join!(calls(&manager, "h1", 3, 9 * SECOND), calls(&manager, "h2", 3, 9 * SECOND));
    assert_eq!(asked.elapsed(), 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_would_wait_past_its_deadline_fails_at_once_without_a_turn() {
    let manager = two_hosts(limited(1.0, 1)).await;
    let asked = Instant::now();
    let results = calls(&manager, "h1", 10, SECOND + SECOND / 2).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2);
    assert_eq!(asked.elapsed(), SECOND);
    let error = results.into_iter().find_map(Result::err).unwrap();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::RateLimited, Effect::None));
    assert!(error.to_string().contains("`rate_limit.calls_per_second`"), "{error}");
    work(&manager, "h1", SECOND, None, Answer::Done).await.unwrap();
    assert_eq!(asked.elapsed(), 2 * SECOND, "those that failed took no turns");
}

#[tokio::test(start_paused = true)]
async fn it_can_be_changed_while_calls_are_made() {
    let manager = two_hosts(limited(0.0, 1)).await;
    let asked = Instant::now();
    calls(&manager, "h1", 100, SECOND).await;
    assert_eq!(asked.elapsed(), Duration::ZERO, "no limit unless one is set");
    manager.apply(Fleet { config: limited(2.0, 1), hosts: manager.hosts() }).unwrap();
    calls(&manager, "h1", 5, 60 * SECOND).await;
    assert_eq!(asked.elapsed(), 2 * SECOND);
}

/// Asks about the long jobs of twenty VMs at once; returns how many of the questions were sent.
async fn job_questions(manager: &TransportManager<Script>) -> usize {
    let asked = Instant::now();
    let question = |target| {
        let lane = Lane { target, kind: LaneKind::Job };
        let options = ExecuteOptions::by(asked + 5 * SECOND);
        manager.execute_on_host_with("h1", options, move |lease| async move {
            ask_in(&lease, Some(lane), Answer::Done).await
        })
    };
    let results = join_all((0..20).map(question)).await;
    assert_eq!(asked.elapsed(), Duration::ZERO, "a question stood in line");
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::CallRefused, Effect::None), "{error}");
    }
    results.iter().filter(|result| result.is_ok()).count()
}

#[tokio::test(start_paused = true)]
async fn questions_about_jobs_take_no_turns_that_work_could_want() {
    let manager = two_hosts(limited(5.0, 10)).await;
    assert_eq!(job_questions(&manager).await, 1);
    let asked = Instant::now();
    let work = async {
        assert!(calls(&manager, "h1", 34, 60 * SECOND).await.iter().all(Result::is_ok));
        asked.elapsed()
    };
    let questions = async {
        let mut sent = 0;
        for _ in 0..8 {
            sent += job_questions(&manager).await;
            sleep(SECOND).await;
        }
        sent
    };
    // Nine of the burst are left.
    assert_eq!(
        tokio::join!(work, questions),
        (5 * SECOND, 1),
        "one when the burst is full again, after seven seconds"
    );
    sleep(60 * SECOND).await;
    assert_eq!(job_questions(&manager).await, 1);
}
