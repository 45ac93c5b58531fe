//! Repeatable work: what is retried, when, and how often.

use std::cell::RefCell;
use std::time::Duration;

use atp_transport::{
    BreakerConfig, Effect, ErrorKind, ExecuteOptions, HostInfo, PooledConnection, Result, RetryConfig,
    TransportConfig, TransportError, TransportEvent, TransportManager,
};
use tokio::time::Instant;

use crate::answers::{Answer, ask};
use crate::scripted::{SECOND, Script};

const LOST_BEFORE: Answer = Answer::Lost { sent: false };
const LOST_AFTER: Answer = Answer::Lost { sent: true };

async fn one_host(retry: RetryConfig) -> TransportManager<Script> {
    let breaker = BreakerConfig { enabled: false, ..BreakerConfig::default() };
    let config = TransportConfig { retry, breaker, ..TransportConfig::default() };
    let manager = TransportManager::with_connector(config, Script::default());
    manager.add_host(HostInfo::new("h1", "192.0.2.1")).await.unwrap();
    manager
}

/// Work whose tries end as listed, one after the other, and then succeed. Returns the times of the tries.
async fn tries(
    manager: &TransportManager<Script>,
    options: ExecuteOptions,
    answers: &[Answer],
) -> (Result<()>, Vec<Instant>) {
    let made = RefCell::new(Vec::new());
    let work = |lease: PooledConnection<Script>| {
        let answer = answers.get(made.borrow().len()).copied().unwrap_or(Answer::Done);
        made.borrow_mut().push(Instant::now());
        async move { ask(&lease, None, answer).await }
    };
    let result = manager.execute_repeatable_on_host("h1", options, work).await;
    (result, made.into_inner())
}

fn by(time: Duration) -> ExecuteOptions {
    ExecuteOptions::by(Instant::now() + time)
}

#[tokio::test(start_paused = true)]
async fn transient_failures_without_effect_are_retried() {
    let manager = one_host(RetryConfig::default()).await;
    let (result, made) = tries(&manager, by(60 * SECOND), &[LOST_BEFORE, Answer::NoThread]).await;
    result.unwrap();
    assert_eq!(made.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn failures_with_a_possible_effect_or_permanent_ones_are_not_retried() {
    let manager = one_host(RetryConfig::default()).await;
    for (answer, effect) in
        [(LOST_AFTER, Effect::Unknown), (Answer::Never, Effect::Unknown), (Answer::Refused, Effect::None)]
    {
        let (result, made) = tries(&manager, by(5 * SECOND), &[answer]).await;
        assert_eq!((result.unwrap_err().effect(), made.len()), (effect, 1), "{answer:?}");
    }
    let panics = manager.execute_repeatable_on_host("h1", by(SECOND), |_| async { panic!("half-way") });
    let panicked: Result<()> = panics.await;
    assert_eq!(panicked.unwrap_err().kind(), ErrorKind::Panicked);
}

#[tokio::test(start_paused = true)]
async fn tries_are_limited_and_the_last_error_is_returned() {
    let manager = one_host(RetryConfig::default()).await;
    let failing = [LOST_BEFORE, LOST_BEFORE, Answer::NoThread, Answer::NoThread, Answer::NoThread];
    let (result, made) = tries(&manager, by(60 * SECOND), &failing).await;
    assert_eq!((result.unwrap_err().kind(), made.len()), (ErrorKind::ThreadsExhausted, 3));
    let (result, made) = tries(&manager, by(60 * SECOND).with_max_tries(2), &failing).await;
    assert_eq!((result.unwrap_err().kind(), made.len()), (ErrorKind::ConnectionLost, 2));
    let (_, made) = tries(&manager, by(60 * SECOND).with_max_tries(0), &failing).await;
    assert_eq!(made.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_wait_grows_with_jitter_and_ends_before_the_deadline() {
    let retry = RetryConfig {
        max_tries: 100,
        initial_delay: SECOND,
        max_delay: 8 * SECOND,
        budget_floor: 1000,
        ..RetryConfig::default()
    };
    let manager = one_host(retry).await;
    let asked = Instant::now();
    let (result, made) = tries(&manager, by(60 * SECOND), &[Answer::NoThread; 100]).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::ThreadsExhausted);
    assert!(asked.elapsed() < 60 * SECOND, "it does not wait for a try after the deadline");
    let waits: Vec<_> = made.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (n, wait) in waits.iter().enumerate() {
        let ceiling = SECOND * 2u32.pow((n as u32).min(3));
        // The timer of the runtime rounds up to a millisecond.
        assert!(*wait <= ceiling + Duration::from_millis(1), "{wait:?} before try {}", n + 2);
    }
    assert!(waits.len() > 5 && waits.iter().any(|wait| *wait > 2 * SECOND), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_ends_the_tries_and_is_reported_once() {
    let retry = RetryConfig { budget_floor: 2, budget_share: 0.25, ..RetryConfig::default() };
    let manager = one_host(retry).await;
    let mut events = manager.events();
    let mut made = 0;
    for _ in 0..8 {
        made += tries(&manager, by(60 * SECOND), &[Answer::NoThread; 3]).await.1.len();
    }
    assert_eq!(made, 8 + 2 + 2, "8 pieces of work, a floor of 2 retries and a quarter of 8");
    let reported: Vec<_> = std::iter::from_fn(|| events.try_recv())
        .filter(|event| matches!(event.what, TransportEvent::RetryBudgetSpent { .. }))
        .collect();
    assert_eq!(reported.len(), 1, "{reported:?}");
    tokio::time::sleep(11 * SECOND).await;
    assert_eq!(tries(&manager, by(60 * SECOND), &[Answer::NoThread; 3]).await.1.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_waited_for_if_there_is_time() {
    let config = TransportConfig {
        breaker: BreakerConfig { consecutive_failures: 1, ..BreakerConfig::default() },
        ..TransportConfig::default()
    };
    let manager = TransportManager::with_connector(config, Script::default());
    manager.add_host(HostInfo::new("h1", "192.0.2.1")).await.unwrap();
    let (failed, _) = tries(&manager, by(2 * SECOND), &[Answer::Never]).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::CallTimeout);
    let asked = Instant::now();
    let (refused, made) = tries(&manager, by(SECOND), &[]).await;
    assert_eq!((refused.unwrap_err().kind(), made.len()), (ErrorKind::CircuitOpen, 0));
    assert_eq!(asked.elapsed(), Duration::ZERO, "the next probe is too late for it");
    let (result, made) = tries(&manager, by(60 * SECOND), &[]).await;
    result.unwrap();
    assert_eq!(made.len(), 1);
    assert!((4 * SECOND..7 * SECOND).contains(&asked.elapsed()), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn calls_have_the_number_of_their_try() {
    use std::borrow::Cow;
    use std::sync::{Arc, Mutex};

    use atp_transport::{CallDecision, CallInfo, Interceptor};

    #[derive(Clone, Default)]
    struct Attempts(Arc<Mutex<Vec<u32>>>);

    impl Interceptor for Attempts {
        fn name(&self) -> Cow<'_, str> {
            "attempts".into()
        }

        fn before(&self, call: &CallInfo<'_>) -> CallDecision {
            self.0.lock().unwrap().push(call.attempt);
            CallDecision::Proceed
        }
    }

    let attempts = Attempts::default();
    let manager = one_host(RetryConfig::default()).await.with_interceptor(attempts.clone());
    tries(&manager, by(60 * SECOND), &[Answer::NoThread, Answer::NoThread]).await.0.unwrap();
    assert_eq!(*attempts.0.lock().unwrap(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn errors_of_other_types_can_be_retried() {
    #[derive(Debug)]
    struct Mine(Effect);

    impl From<TransportError> for Mine {
        fn from(error: TransportError) -> Self {
            Mine(error.effect())
        }
    }

    impl atp_transport::Failure for Mine {
        fn effect(&self) -> Effect {
            self.0
        }

        fn is_retryable(&self) -> bool {
            true
        }
    }

    let manager = one_host(RetryConfig::default()).await;
    for (effect, expected) in [(Effect::None, 3), (Effect::Unknown, 1), (Effect::Done, 1)] {
        let made = RefCell::new(0);
        let work = |_| {
            *made.borrow_mut() += 1;
            async move { Err::<(), _>(Mine(effect)) }
        };
        manager.execute_repeatable_on_host("h1", by(60 * SECOND), work).await.unwrap_err();
        assert_eq!(made.into_inner(), expected, "{effect}");
    }
}
