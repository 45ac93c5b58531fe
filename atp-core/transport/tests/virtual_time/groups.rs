//! Work on any host of a group: which host gets it first, and which gets it next.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use atp_transport::{
    BreakerConfig, BreakerState, Effect, ErrorKind, ExecuteOptions, HostInfo, Pick, PooledConnection, Result,
    RetryConfig, TransportConfig, TransportManager,
};
use tokio::time::{Instant, sleep};

use crate::answers::{Answer, ask, work};
use crate::scripted::{SECOND, Script, Step};

async fn group(script: &Script, config: TransportConfig, weights: &[u32]) -> TransportManager<Script> {
    let manager = TransportManager::with_connector(config, script.clone());
    for (n, &weight) in weights.iter().enumerate() {
        let host = HostInfo::new(format!("h{n}"), "192.0.2.1").with_group("g").with_weight(weight);
        manager.add_host(host).await.unwrap();
    }
    manager.add_host(HostInfo::new("other", "192.0.2.1").with_group("not-g")).await.unwrap();
    manager
}

fn by(time: Duration) -> ExecuteOptions {
    ExecuteOptions::by(Instant::now() + time)
}

/// Runs work on any host of the group; `answer` gives its result by host. Returns the hosts on which it was tried.
async fn tried(
    manager: &TransportManager<Script>,
    pick: Pick,
    options: ExecuteOptions,
    answer: impl Fn(&str) -> Answer,
) -> (Result<()>, Vec<String>) {
    let tried = RefCell::new(Vec::new());
    let work = |lease: PooledConnection<Script>| {
        let host = lease.host_id().to_string();
        let answer = answer(&host);
        tried.borrow_mut().push(host);
        async move { ask(&lease, None, answer).await }
    };
    let result = manager.execute_on_any("g", pick, options, work).await;
    (result, tried.into_inner())
}

async fn spread(manager: &TransportManager<Script>, pick: Pick, count: usize) -> BTreeMap<String, usize> {
    let mut spread = BTreeMap::new();
    for _ in 0..count {
        let (result, tried) = tried(manager, pick, by(SECOND), |_| Answer::Done).await;
        result.unwrap();
        *spread.entry(tried[0].clone()).or_default() += 1;
    }
    spread
}

#[tokio::test(start_paused = true)]
async fn work_is_spread_by_the_pick() {
    fastrand::seed(1);
    let manager = group(&Script::default(), TransportConfig::default(), &[1, 2, 3]).await;
    for (pick, expected) in [
        (Pick::RoundRobin, Some([20, 20, 20])),
        (Pick::WeightedRoundRobin, Some([10, 20, 30])),
        (Pick::LeastInFlight, Some([20, 20, 20])),
        (Pick::WeightedRandom, None),
        (Pick::Random, None),
    ] {
        let spread: Vec<_> = spread(&manager, pick, 60).await.into_values().collect();
        assert_eq!((spread.len(), spread.iter().sum::<usize>()), (3, 60), "{pick}: {spread:?}");
        assert!(expected.is_none_or(|expected| spread == expected), "{pick}: {spread:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn least_in_flight_is_the_host_with_the_fewest_leases() {
    let manager = group(&Script::default(), TransportConfig::default(), &[1, 1]).await;
    let _lease = manager.pool("h0").unwrap().acquire(Instant::now() + SECOND).await.unwrap();
    assert_eq!(spread(&manager, Pick::LeastInFlight, 5).await, BTreeMap::from([("h1".to_owned(), 5)]));
}

#[tokio::test(start_paused = true)]
async fn only_failures_without_effect_go_to_the_next_host() {
    let manager = group(&Script::default(), TransportConfig::default(), &[1, 1, 1]).await;
    for (answer, hosts, ends) in [
        (Answer::Lost { sent: false }, 3, Err((ErrorKind::ConnectionLost, Effect::None))),
        (Answer::Lost { sent: true }, 1, Err((ErrorKind::ConnectionLost, Effect::Unknown))),
        (Answer::Never, 1, Err((ErrorKind::CallTimeout, Effect::Unknown))),
        (Answer::Refused, 1, Err((ErrorKind::VmNotFound, Effect::None))),
        (Answer::Done, 1, Ok(())),
    ] {
        let (result, tried) = tried(&manager, Pick::RoundRobin, by(5 * SECOND), |_| answer).await;
        assert_eq!(result.map_err(|error| (error.kind(), error.effect())), ends, "{answer:?}");
        let different: std::collections::BTreeSet<_> = tried.iter().collect();
        assert_eq!((tried.len(), different.len()), (hosts, hosts), "{answer:?}: {tried:?}");
    }
    let fails_on_first = |host: &str| if host == "h0" { Answer::NoThread } else { Answer::Done };
    for _ in 0..3 {
        let (result, tried) = tried(&manager, Pick::RoundRobin, by(5 * SECOND), fails_on_first).await;
        result.unwrap();
        assert!(tried.last().is_some_and(|host| host != "h0"), "{tried:?}");
    }
    let (result, tried) =
        tried(&manager, Pick::RoundRobin, by(5 * SECOND).with_max_tries(2), |_| Answer::NoThread).await;
    assert_eq!((result.unwrap_err().kind(), tried.len()), (ErrorKind::ThreadsExhausted, 2));
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_host_leaves_the_others_their_share_of_the_time() {
    // One script for all hosts: the first to connect is h0, and hangs.
    let script = Script::attempts([Step::Hangs]);
    let manager = group(&script, TransportConfig::default(), &[1, 1, 1]).await;
    sleep(SECOND).await;
    let asked = Instant::now();
    let (result, tried) = tried(&manager, Pick::RoundRobin, by(9 * SECOND), |_| Answer::Done).await;
    result.unwrap();
    assert_eq!((tried, asked.elapsed()), (vec!["h1".to_owned()], 3 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn time_is_reserved_only_for_the_hosts_that_may_be_tried() {
    let script = Script::attempts([Step::Hangs]);
    let manager = group(&script, TransportConfig::default(), &[1, 1, 1, 1]).await;
    sleep(SECOND).await;
    let asked = Instant::now();
    let two = by(8 * SECOND).with_max_tries(2);
    let (result, tried) = tried(&manager, Pick::RoundRobin, two, |_| Answer::Done).await;
    result.unwrap();
    assert_eq!((tried, asked.elapsed()), (vec!["h1".to_owned()], 4 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_host_with_hardly_any_time_is_not_counted_as_full() {
    let mut config = TransportConfig::default();
    (config.pool.max_connections_per_host, config.pool.max_uses_per_connection) = (1, 1);
    let manager = group(&Script::default(), config, &[1; 20]).await;
    sleep(SECOND).await;
    let pool = manager.pool("h0").unwrap();
    let held = pool.acquire(Instant::now() + SECOND).await.unwrap();
    let rejected = || pool.health().vitals.rejected;
    for _ in 0..20 {
        // A twentieth of a second for each host.
        tried(&manager, Pick::RoundRobin, by(SECOND), |_| Answer::Done).await.0.unwrap();
    }
    assert!(pool.stats().acquire_timeouts > 0, "it was not tried");
    sleep(6 * SECOND).await;
    assert_eq!(rejected(), 0);
    pool.acquire(Instant::now() + 2 * SECOND).await.unwrap_err();
    sleep(6 * SECOND).await;
    assert_eq!(rejected(), 1, "a caller with enough time");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn hosts_that_would_refuse_come_last_except_those_due_for_a_probe() {
    let breaker = BreakerConfig { consecutive_failures: 1, ..BreakerConfig::default() };
    let config = TransportConfig { breaker, ..TransportConfig::default() };
    let manager = group(&Script::default(), config, &[1, 1]).await;
    work(&manager, "h0", 2 * SECOND, None, Answer::Never).await.unwrap_err();
    assert_eq!(manager.pool("h0").unwrap().breaker().state, BreakerState::Open);
    assert_eq!(spread(&manager, Pick::RoundRobin, 4).await, BTreeMap::from([("h1".to_owned(), 4)]));
    sleep(6 * SECOND).await;
    let both = BTreeMap::from([("h0".to_owned(), 2), ("h1".to_owned(), 2)]);
    assert_eq!(spread(&manager, Pick::RoundRobin, 4).await, both);
    assert_eq!(manager.pool("h0").unwrap().breaker().state, BreakerState::Closed);

    // When all would refuse, the error is theirs.
    for host in ["h0", "h1"] {
        work(&manager, host, 2 * SECOND, None, Answer::Never).await.unwrap_err();
    }
    let (result, tried) = tried(&manager, Pick::RoundRobin, by(SECOND), |_| Answer::Done).await;
    assert_eq!((result.unwrap_err().kind(), tried.len()), (ErrorKind::CircuitOpen, 0));
}

#[tokio::test(start_paused = true)]
async fn tries_on_further_hosts_are_charged_to_their_budgets() {
    let retry = RetryConfig { budget_floor: 1, budget_share: 0.0, ..RetryConfig::default() };
    let config = TransportConfig { retry, ..TransportConfig::default() };
    let manager = group(&Script::default(), config, &[1, 1, 1]).await;
    let mut tries = 0;
    for _ in 0..10 {
        tries += tried(&manager, Pick::Random, by(SECOND), |_| Answer::NoThread).await.1.len();
    }
    assert_eq!(tries, 10 + 3, "one retry on each of three hosts");
}

#[tokio::test(start_paused = true)]
async fn an_empty_group_is_an_error_that_names_the_existing_ones() {
    let manager = group(&Script::default(), TransportConfig::default(), &[1]).await;
    let work = |_| async { Ok::<_, atp_transport::TransportError>(()) };
    let error =
        manager.execute_on_any("gee", Pick::Random, ExecuteOptions::default(), work).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.effect(), error.is_retryable()),
        (ErrorKind::UnknownGroup, Effect::None, false)
    );
    assert_eq!(error.to_string(), "no host is in a group \"gee\"; there are g, not-g");
}

/// For any behaviour of the hosts: work that may have had an effect is not repeated, none is tried twice on a host,
/// and retries stay within the budgets.
#[tokio::test(start_paused = true)]
async fn work_with_an_effect_is_never_repeated() {
    const HOSTS: usize = 4;
    let answers = [
        Answer::Done,
        Answer::Done,
        Answer::Refused,
        Answer::Busy,
        Answer::Lost { sent: true },
        Answer::Lost { sent: false },
        Answer::NoThread,
        Answer::Never,
    ];
    for seed in 0..60 {
        fastrand::seed(seed);
        let retry = RetryConfig { budget_floor: 2, budget_share: 0.2, ..RetryConfig::default() };
        let config = TransportConfig { retry: retry.clone(), ..TransportConfig::default() };
        let script = Script::default();
        let manager = group(&script, config, &[1; HOSTS]).await;
        let began = Instant::now();
        let (mut runs, mut retries) = (0, 0);
        for _ in 0..40 {
            match fastrand::u8(..10) {
                0 => script.cut(),
                1 => script.set_attempts(Step::Fails(SECOND)),
                2 => script.set_attempts(Step::default()),
                3 => sleep(Duration::from_millis(fastrand::u64(..8_000))).await,
                _ => {
                    let log = RefCell::new(Vec::new());
                    let work = |lease: PooledConnection<Script>| {
                        let answer = answers[fastrand::usize(..answers.len())];
                        log.borrow_mut().push((lease.host_id().clone(), answer));
                        async move { ask(&lease, None, answer).await }
                    };
                    let pick = Pick::ALL[fastrand::usize(..Pick::ALL.len())];
                    let any = fastrand::bool();
                    let result = match any {
                        true => manager.execute_on_any("g", pick, by(3 * SECOND), work).await,
                        false => manager.execute_repeatable_on_host("h0", by(3 * SECOND), work).await,
                    };
                    let log = log.into_inner();
                    runs += 1;
                    retries += log.len().saturating_sub(1);
                    let repeated = &log[..log.len().saturating_sub(1)];
                    let harmless = |answer: &Answer| {
                        matches!(answer, Answer::Lost { sent: false } | Answer::NoThread | Answer::Busy)
                    };
                    assert!(repeated.iter().all(|(_, answer)| harmless(answer)), "seed {seed}: {log:?}");
                    assert_eq!(
                        log.last().is_some_and(|(_, last)| *last == Answer::Done),
                        result.is_ok(),
                        "{log:?}"
                    );
                    let mut hosts: Vec<_> = log.iter().map(|(host, _)| host).collect();
                    hosts.sort();
                    hosts.dedup();
                    assert!(!any || hosts.len() == log.len(), "seed {seed}: a host was tried twice: {log:?}");
                }
            }
        }
        let windows = began.elapsed().div_duration_f64(retry.budget_window).ceil() as usize + 1;
        let most = windows * HOSTS * retry.budget_floor + (runs as f64 * retry.budget_share) as usize;
        assert!(retries <= most, "seed {seed}: {retries} retries, and the budgets are {most}");
    }
}
