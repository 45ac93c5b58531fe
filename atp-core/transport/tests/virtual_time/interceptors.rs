//! Interceptors: what they see, in which order, and what they may do to a call.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atp_transport::{
    CallDecision, CallInfo, Effect, ErrorKind, HostInfo, Interceptor, Result, TransportConfig,
    TransportError, TransportManager,
};
use futures_util::FutureExt;
use tokio::time::{Instant, timeout};

use crate::answers::{Answer, work};
use crate::scripted::{SECOND, Script};

type Log = Arc<Mutex<Vec<String>>>;

/// Records its hooks, and gives the decision that the test selects.
struct Recorder {
    name: &'static str,
    log: Log,
    decision: Box<dyn Fn(&CallInfo<'_>) -> CallDecision + Send + Sync>,
}

impl Recorder {
    fn new(name: &'static str, log: &Log) -> Self {
        Recorder { name, log: log.clone(), decision: Box::new(|_| CallDecision::Proceed) }
    }

    fn with_decision(self, decision: impl Fn(&CallInfo<'_>) -> CallDecision + Send + Sync + 'static) -> Self {
        Recorder { decision: Box::new(decision), ..self }
    }

    fn write(&self, hook: &str, call: &CallInfo<'_>, more: &str) {
        let line = format!("{} {hook} {}{more}", self.name, call.operation);
        self.log.lock().unwrap().push(line);
    }
}

impl Interceptor for Recorder {
    fn name(&self) -> Cow<'_, str> {
        self.name.into()
    }

    fn before(&self, call: &CallInfo<'_>) -> CallDecision {
        self.write("before", call, "");
        (self.decision)(call)
    }

    fn after(&self, call: &CallInfo<'_>, took: Duration) {
        self.write("after", call, &format!(" {}s", took.as_secs()));
    }

    fn on_error(&self, call: &CallInfo<'_>, took: Duration, error: &TransportError) {
        self.write("error", call, &format!(" {} {}s", error.kind(), took.as_secs()));
    }

    fn on_abandon(&self, call: &CallInfo<'_>, _: Duration) {
        self.write("abandon", call, "");
    }
}

/// Panics in each hook.
struct Panics;

impl Interceptor for Panics {
    fn name(&self) -> Cow<'_, str> {
        panic!("in its name")
    }

    fn before(&self, _: &CallInfo<'_>) -> CallDecision {
        panic!("before")
    }

    fn after(&self, _: &CallInfo<'_>, _: Duration) {
        panic!("after")
    }

    fn on_error(&self, _: &CallInfo<'_>, _: Duration, _: &TransportError) {
        panic!("on error")
    }
}

async fn one_host(manager: TransportManager<Script>) -> TransportManager<Script> {
    manager.add_host(HostInfo::new("h1", "192.0.2.1")).await.unwrap();
    manager
}

fn manager() -> TransportManager<Script> {
    TransportManager::with_connector(TransportConfig::default(), Script::default())
}

fn taken(log: &Log) -> Vec<String> {
    std::mem::take(&mut *log.lock().unwrap())
}

async fn call(manager: &TransportManager<Script>, answer: Answer) -> Result<()> {
    work(manager, "h1", 5 * SECOND, Some(7), answer).await
}

#[tokio::test(start_paused = true)]
async fn they_are_called_in_order_and_in_reverse_at_the_end() {
    let log = Log::default();
    let manager =
        manager().with_interceptor(Recorder::new("a", &log)).with_interceptor(Recorder::new("b", &log));
    let manager = one_host(manager).await;
    call(&manager, Answer::Done).await.unwrap();
    assert_eq!(taken(&log), ["a before asks", "b before asks", "b after asks 0s", "a after asks 0s"]);
    call(&manager, Answer::Refused).await.unwrap_err();
    assert_eq!(taken(&log)[2..], ["b error asks vm-not-found 0s", "a error asks vm-not-found 0s"]);
    call(&manager, Answer::Never).await.unwrap_err();
    assert_eq!(taken(&log)[2..], ["b error asks call-timeout 5s", "a error asks call-timeout 5s"]);
    timeout(SECOND, call(&manager, Answer::Never)).await.unwrap_err();
    assert_eq!(taken(&log)[2..], ["b abandon asks", "a abandon asks"]);
}

#[tokio::test(start_paused = true)]
async fn they_see_the_properties_of_the_call() {
    let log = Log::default();
    let recorder = Recorder::new("a", &log).with_decision(|call| {
        assert_eq!(call.host.as_str(), "h1");
        assert_eq!(call.lane.map(|lane| lane.target), Some(7));
        assert_eq!((call.attempt, call.deadline - call.asked), (1, 5 * SECOND));
        assert!(call.connection > 0);
        CallDecision::Proceed
    });
    let manager = one_host(manager().with_interceptor(recorder)).await;
    call(&manager, Answer::Done).await.unwrap();
    assert_eq!(manager.interceptor_panics(), 0, "an assertion above");
    assert_eq!(taken(&log).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_not_sent() {
    let log = Log::default();
    let refuses = Recorder::new("b", &log).with_decision(|_| CallDecision::Refuse("not today".to_owned()));
    let manager = manager().with_interceptor(Recorder::new("a", &log)).with_interceptor(refuses);
    manager.add_interceptor(Recorder::new("c", &log));
    let manager = one_host(manager).await;
    let error = call(&manager, Answer::Done).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::CallRefused, Effect::None));
    assert!(error.to_string().contains("refused by b: not today") && !error.is_retryable(), "{error}");
    // Those behind it do not see the call. Its own later hooks are not called either, since it did not let the call pass.
    assert_eq!(taken(&log), ["a before asks", "b before asks", "a error asks call-refused 0s"]);
    assert_eq!(manager.pool("h1").unwrap().stats().calls_in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn one_may_delay_a_call_but_not_past_its_deadline() {
    let log = Log::default();
    let delays = |by| {
        Recorder::new("b", &Log::default())
            .with_decision(move |call| CallDecision::DelayUntil(call.asked + by))
    };
    let manager =
        one_host(manager().with_interceptor(Recorder::new("a", &log)).with_interceptor(delays(3 * SECOND)))
            .await;
    let asked = Instant::now();
    call(&manager, Answer::Done).await.unwrap();
    assert_eq!(asked.elapsed(), 3 * SECOND);
    manager.add_interceptor(delays(6 * SECOND));
    let error = call(&manager, Answer::Done).await.unwrap_err();
    assert_eq!(asked.elapsed(), 6 * SECOND, "it fails as soon as the delay is known");
    assert_eq!(
        (error.kind(), error.effect(), error.is_retryable()),
        (ErrorKind::RateLimited, Effect::None, true)
    );
    assert!(error.to_string().contains("b delays it by 3.0s"), "{error}");

    // A caller that is cancelled in the meantime is noticed.
    taken(&log);
    assert!(call(&manager, Answer::Done).now_or_never().is_none());
    assert_eq!(taken(&log), ["a before asks", "a abandon asks"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_panics_is_skipped_and_counted() {
    let log = Log::default();
    let manager = manager().with_interceptor(Panics).with_interceptor(Recorder::new("b", &log));
    let manager = one_host(manager).await;
    call(&manager, Answer::Done).await.unwrap();
    assert_eq!(manager.interceptor_panics(), 2);
    assert_eq!(call(&manager, Answer::Refused).await.unwrap_err().kind(), ErrorKind::VmNotFound);
    assert_eq!(manager.interceptor_panics(), 4);
    assert_eq!(taken(&log).len(), 4, "the others are called as before");
}
