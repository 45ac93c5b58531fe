//! Operations that look before they send anything, and a look that fails: nothing happened, whatever came of the look.

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

/// Longest any of these tests may take.
const LIMIT: Duration = Duration::from_secs(300);
/// Longest a call may take to be on its way.
const SOON: Duration = Duration::from_secs(60);
/// The time of a target whose host does not answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// A VM that is shut off, so that also a command for its guest looks first.
const VM: &str = "h1/off";

/// What looks at the VM before it sends anything.
fn operations() -> [Operation; 4] {
    [
        Operation::Lifecycle(LifecycleSpec { action: Lifecycle::Shutdown, wait: false }),
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

struct Story {
    host: Host,
    manager: TransportManager,
    executor: Executor,
}

impl Story {
    async fn new(bed: &Bed) -> Self {
        let host = bed.host("h1").unwrap();
        host.define_guest("off").unwrap();
        let manager = manager(bed, quick()).await;
        Story { host, executor: Executor::new(manager.clone()), manager }
    }

    /// A plan for the VM, made while the host still answers.
    async fn plan(&self, operation: Operation) -> Plan {
        let policy = Policy { timeout: LIMIT, retries: 5, ..Policy::default() };
        let selection = Selection::of([VM.parse().unwrap()]);
        self.executor.plan(&selection, operation, policy).await.unwrap()
    }

    fn calls_in_flight(&self) -> usize {
        self.manager.pool("h1").unwrap().stats().calls_in_flight
    }
}

/// How often it was tried: a scenario as a whole is not tried again, its steps are.
fn attempts(outcome: &Outcome) -> u32 {
    match &outcome.data {
        Some(Data::Scenario(report)) => report.steps[0].attempts,
        _ => outcome.attempts,
    }
}

#[test]
fn a_look_that_is_not_answered_did_nothing() {
    let bed = bed();
    within(LIMIT, async {
        let story = Story::new(&bed).await;
        for operation in operations() {
            let mut plan = story.plan(operation).await;
            plan.policy.timeout = TIMEOUT;
            let name = plan.operation.name();
            story.host.pause_daemon().unwrap();
            let outcome = story.executor.run(plan, &RunControl::default()).outcomes().await.remove(0);
            story.host.resume_daemon().unwrap();
            assert_eq!(
                (outcome.status, outcome.effect),
                (Status::Timeout, Effect::None),
                "{name}: {outcome:?}"
            );
        }
    });
}

#[test]
fn a_look_that_was_lost_on_the_way_is_made_again() {
    let bed = bed();
    within(LIMIT, async {
        let story = Story::new(&bed).await;
        for operation in [operations()[0].clone(), scenario()] {
            let plan = story.plan(operation).await;
            let name = plan.operation.name();
            story.host.pause_daemon().unwrap();
            let run = story.executor.run(plan, &RunControl::default());
            becomes("the look is on its way", SOON, 1, || story.calls_in_flight());
            story.host.kill_daemon().unwrap();
            story.host.start_daemon().unwrap();
            let outcome = run.outcomes().await.remove(0);
            assert!(outcome.status.is_success() && outcome.effect == Effect::None, "{name}: {outcome:?}");
            assert!(attempts(&outcome) > 1, "{name}: {outcome:?}");
        }
    });
}
