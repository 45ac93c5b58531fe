//! Operations that look before they send anything: a look that fails is without effect.

use std::sync::Arc;
use std::time::Duration;

use atp_e2e::{Bed, becomes, bed, within};
use atp_executor::{
    Condition, Data, Executor, LifecycleSpec, Operation, Outcome, Plan, Policy, RunControl, Selection, Status,
};
use atp_protocol::ExecSpec;
use atp_testbed::Host;
use atp_transport::domain::Lifecycle;
use atp_transport::{Effect, TransportManager};

use crate::support::{manager, quick};

/// Time limit of each test.
const LIMIT: Duration = Duration::from_secs(300);
/// Time limit until a call is under way.
const SOON: Duration = Duration::from_secs(60);
/// The time limit of a target whose host does not answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// A VM that is shut off, so that a command for its guest looks first as well.
const VM: &str = "h1/off";

/// The operations that look at the VM before they send anything.
fn operations() -> [Operation; 4] {
    [
        Operation::Lifecycle(LifecycleSpec::new(Lifecycle::Shutdown)),
        Operation::Exec(ExecSpec::new("true")),
        Operation::Wait(Condition::Agent),
        scenario(),
    ]
}

/// A scenario with a step that looks first.
fn scenario() -> Operation {
    let text = format!("name: n\ntargets: {VM}\nsteps:\n  - vm: shutdown\n");
    Operation::Scenario(Arc::new(text.parse().unwrap()))
}

struct Fixture {
    host: Host,
    manager: TransportManager,
    executor: Executor,
}

impl Fixture {
    async fn new(bed: &Bed) -> Self {
        let host = bed.host("h1").unwrap();
        host.define_guest("off").unwrap();
        let manager = manager(bed, quick()).await;
        Fixture { host, executor: Executor::new(manager.clone()), manager }
    }

    /// A plan for the VM, made while the host still answers.
    async fn plan(&self, operation: Operation) -> Plan {
        let policy = Policy { timeout: LIMIT, retries: 60, ..Policy::default() };
        let selection = Selection::of([VM.parse().unwrap()]);
        self.executor.plan(&selection, operation, policy).await.unwrap()
    }

    fn calls_in_flight(&self) -> usize {
        self.manager.pool("h1").unwrap().stats().calls_in_flight
    }
}

/// The number of tries. A scenario as a whole is not tried again; its steps are.
fn attempts(outcome: &Outcome) -> u32 {
    match &outcome.data {
        Some(Data::Scenario(report)) => report.steps[0].attempts,
        _ => outcome.attempts,
    }
}

#[test]
fn an_unanswered_look_has_no_effect() {
    let bed = bed();
    within(LIMIT, async {
        let fixture = Fixture::new(&bed).await;
        for operation in operations() {
            let mut plan = fixture.plan(operation).await;
            plan.policy.timeout = TIMEOUT;
            let name = plan.operation.name();
            fixture.host.pause_daemon().unwrap();
            let outcome = fixture.executor.run(plan, &RunControl::default()).outcomes().await.remove(0);
            fixture.host.resume_daemon().unwrap();
            assert_eq!(
                (outcome.status, outcome.effect),
                (Status::Timeout, Effect::None),
                "{name}: {outcome:?}"
            );
        }
    });
}

#[test]
fn a_lost_look_is_repeated() {
    let bed = bed();
    within(LIMIT, async {
        let fixture = Fixture::new(&bed).await;
        for operation in [operations()[0].clone(), scenario()] {
            let plan = fixture.plan(operation).await;
            let name = plan.operation.name();
            fixture.host.pause_daemon().unwrap();
            let run = fixture.executor.run(plan, &RunControl::default());
            becomes("the look is under way", SOON, 1, || fixture.calls_in_flight());
            fixture.host.kill_daemon().unwrap();
            fixture.host.start_daemon().unwrap();
            let outcome = run.outcomes().await.remove(0);
            assert!(outcome.status.is_success() && outcome.effect == Effect::None, "{name}: {outcome:?}");
            assert!(attempts(&outcome) > 1, "{name}: {outcome:?}");
        }
    });
}
