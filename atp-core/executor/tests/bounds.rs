//! Work that is refused, or cannot go on: its outcome comes at once or by its deadline, and costs few calls.
#![cfg(feature = "native")]
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::borrow::Cow;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atp_executor::{
    Data, Executor, Operation, Outcome, Policy, RawCommand, RunControl, Selection, SnapshotSpec, Status,
};
use atp_fleet::{Fleet, FleetOptions, HostFault, VmFault};
use atp_transport::{CallDecision, CallInfo, Effect, Interceptor, TransportManager};
use tokio::time::{Instant, sleep, timeout};

#[path = "common/simulated.rs"]
mod simulated;

use simulated::simulated;

const AGENT: &str = "virDomainQemuAgentCommand";

/// Counts calls, and does this before each.
struct Calls<F>(Arc<AtomicUsize>, F);

impl<F: Fn(&str) + Send + Sync + 'static> Interceptor for Calls<F> {
    fn name(&self) -> Cow<'_, str> {
        "calls".into()
    }

    fn before(&self, call: &CallInfo<'_>) -> CallDecision {
        self.0.fetch_add(1, Ordering::Relaxed);
        (self.1)(call.operation);
        CallDecision::Proceed
    }
}

/// One host with one VM. Calls take time, so that a loop of them comes to its deadline.
async fn bed() -> (Arc<Fleet>, TransportManager) {
    simulated(FleetOptions { rtt: Duration::from_millis(1), ..FleetOptions::default() }).await
}

async fn run(manager: &TransportManager, operation: Operation, policy: Policy) -> Outcome {
    let executor = Executor::new(manager.clone());
    let plan = executor.plan(&Selection::all(), operation, policy).await.unwrap();
    executor.run(plan, &RunControl::default()).outcomes().await.remove(0)
}

/// `status effect kind` of a failure.
fn outline(outcome: &Outcome) -> String {
    let kind = outcome.error.as_ref().map(|error| error.kind);
    format!("{} {} {}", outcome.status, outcome.effect, kind.unwrap())
}

/// As little time as shows that it was not used up.
fn short() -> Policy {
    Policy { timeout: Duration::from_secs(3), ..Policy::default() }
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_cannot_be_quiesced_is_refused_at_once() {
    let (fleet, manager) = bed().await;
    fleet.host(1).unwrap().vm(1).unwrap().set_fault(VmFault::ShutOff);
    let calls = Arc::default();
    manager.add_interceptor(Calls(Arc::clone(&calls), |_: &str| ()));
    let spec = SnapshotSpec { disk_only: true, quiesce: true, ..SnapshotSpec::new("nightly") };
    let outcome = run(&manager, Operation::SnapshotCreate(spec), short()).await;
    assert_eq!(outline(&outcome), "failed none vm-not-running");
    assert!(calls.load(Ordering::Relaxed) < 20, "{calls:?} calls");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_is_repeated_is_the_outcome() {
    let (fleet, manager) = bed().await;
    let asked = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&asked);
    // It runs whenever it is looked at, and not when its agent is asked.
    let flicker = move |operation: &str| {
        let fault = (operation == AGENT).then_some(VmFault::ShutOff);
        fleet.host(1).unwrap().vm(1).unwrap().set_fault(fault);
        *counted.lock().unwrap() += usize::from(operation == AGENT);
    };
    manager.add_interceptor(Calls(Arc::default(), flicker));
    let ping = RawCommand::from_words(vec!["guest-ping".to_owned()]).unwrap();
    let outcome = run(&manager, Operation::Qga(ping), short()).await;
    assert_eq!(outline(&outcome), "failed none vm-not-running");
    let asked = *asked.lock().unwrap();
    assert!((1..=2).contains(&asked), "{asked} commands");
}

#[tokio::test]
async fn pauses_of_nothing_are_refused_by_name() {
    let (_fleet, manager) = bed().await;
    let executor = Executor::new(manager);
    let none = Duration::ZERO;
    for (field, policy) in [
        ("poll_initial", Policy { poll_initial: none, ..Policy::default() }),
        ("poll_max", Policy { poll_max: none, ..Policy::default() }),
    ] {
        let error = executor.plan(&Selection::all(), Operation::VmList, policy).await.unwrap_err();
        assert_eq!(error.kind(), "invalid-request");
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_pauses_between_looks_whatever_its_policy_says() {
    let (_fleet, manager) = bed().await;
    let calls = Arc::default();
    manager.add_interceptor(Calls(Arc::clone(&calls), |_: &str| ()));
    let executor = Executor::new(manager);
    let wait = Operation::Wait(atp_executor::Condition::State(atp_transport::domain::DomainState::Paused));
    let mut plan = executor.plan(&Selection::all(), wait, short()).await.unwrap();
    (plan.policy.poll_initial, plan.policy.poll_max) = (Duration::ZERO, Duration::ZERO);
    let outcome = executor.run(plan, &RunControl::default()).outcomes().await.remove(0);
    assert_eq!(outcome.status, Status::Timeout);
    // A round trip, and a pause of a millisecond.
    assert!(calls.load(Ordering::Relaxed) < 1_700, "{calls:?} calls");
}

/// A FIFO on which readers wait: they go on when this is dropped, so that a test that fails ends.
struct Released(PathBuf);

impl Drop for Released {
    fn drop(&mut self) {
        let _ = File::options().read(true).write(true).open(&self.0);
    }
}

#[tokio::test]
async fn a_step_whose_file_cannot_be_read_ends_by_its_own_deadline() {
    let (_fleet, manager) = bed().await;
    let folder = tempfile::tempdir().unwrap();
    // What opens it waits until it is opened for writing too.
    let hanging = folder.path().join("screen.png");
    assert!(Command::new("mkfifo").arg(&hanging).status().unwrap().success());
    let step = format!(
        "{{assert: {{screen: {{image: '{}'}}}}, timeout: 1s, retry: {{times: 2, every: 1ms}}}}",
        hanging.display()
    );
    let text = format!("name: n\ntargets: '*'\nsteps:\n  - {step}\nteardown:\n  - vm: suspend\n");
    let scenario = Operation::Scenario(Arc::new(text.parse().unwrap()));
    let released = Released(hanging);
    let outcome =
        timeout(Duration::from_secs(120), run(&manager, scenario, Policy::default())).await.unwrap();
    drop(released);
    let Some(Data::Scenario(report)) = &outcome.data else { panic!("{outcome:?}") };
    let [step, undone] = [&report.steps[0], &report.teardown[0]];
    assert_eq!((step.status, step.effect), (Status::Timeout, Effect::None));
    assert!(step.error.as_ref().unwrap().message.contains("files"), "{step:?}");
    assert_eq!(step.attempts, 1, "each repetition would leave a thread: {step:?}");
    assert_eq!(undone.status, Status::Ok, "the teardown is carried out: {undone:?}");
}

#[tokio::test(start_paused = true)]
async fn a_planning_that_is_aborted_does_not_wait_for_hosts_that_are_silent() {
    let (fleet, manager) = bed().await;
    fleet.host(1).unwrap().set_fault(HostFault::Dead);
    let control = RunControl::default();
    let began = Instant::now();
    let abort = control.abort.clone();
    tokio::spawn(async move {
        sleep(Duration::from_secs(1)).await;
        abort.cancel();
    });
    let (executor, all) = (Executor::new(manager), Selection::all());
    let planning = executor.plan_until_stopped(&all, Operation::VmList, Policy::default(), &control);
    let plan = planning.await.unwrap();
    assert_eq!(outline(&plan.settled[0]).rsplit(' ').next(), Some("stopped"));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}
