//! Commands that a guest's agent does not have: the reason is determined once, and again after the agent was
//! restarted.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atp_e2e::{bed, within};
use atp_executor::{Executor, Operation, Outcome, Policy, RunControl, Selection, Watch};
use atp_protocol::{ExecSpec, RawCommand};
use atp_testbed::Guest;
use atp_transport::domain::DomainEventKind;
use atp_transport::{CallDecision, CallInfo, Effect, Interceptor, WatchItem, WatchOptions};
use tokio::time::timeout;

use crate::support::manager;

/// Time limit of the test.
const LIMIT: Duration = Duration::from_secs(300);
/// Time limit for an agent to start again on a busy machine.
const SOON: Duration = Duration::from_secs(60);
const VM: &str = "h1/vm1";

/// Configures the agent to forbid a command, or none, after its next start.
const FORBID: &str =
    "mkdir -p /etc/qemu; printf '[general]\\nblock-rpcs=guest-get-time\\n' >/etc/qemu/qemu-ga.conf";
const ALLOW: &str = "rm /etc/qemu/qemu-ga.conf";

/// Counts the commands to agents.
struct AgentCommands(Arc<AtomicUsize>);

impl Interceptor for AgentCommands {
    fn name(&self) -> Cow<'_, str> {
        "agent commands".into()
    }

    fn before(&self, call: &CallInfo<'_>) -> CallDecision {
        if call.operation == "virDomainQemuAgentCommand" {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        CallDecision::Proceed
    }
}

/// An executor over the bed, and the counter of the agent commands it sends.
struct Fixture {
    executor: Executor,
    commands: Arc<AtomicUsize>,
}

impl Fixture {
    fn selection() -> Selection {
        Selection::of([VM.parse().unwrap()])
    }

    async fn run(&self, operation: Operation) -> Outcome {
        let plan = self.executor.plan(&Self::selection(), operation, Policy::default()).await.unwrap();
        self.executor.run(plan, &RunControl::default()).outcomes().await.remove(0)
    }

    /// Asks for the time in the guest. Returns the outcome and the number of agent commands.
    async fn time(&self) -> (Outcome, usize) {
        self.commands.store(0, Ordering::Relaxed);
        let outcome = self.run(Operation::Qga(RawCommand::from_words(["guest-get-time"]).unwrap())).await;
        (outcome, self.commands.load(Ordering::Relaxed))
    }

    /// Checks that the command is refused with the reason why it is disabled, and the number of agent commands.
    async fn is_refused(&self, commands: usize) {
        let (outcome, sent) = self.time().await;
        let error = outcome.error.as_ref().unwrap();
        assert_eq!((error.kind.as_str(), outcome.effect), ("agent-command-disabled", Effect::None));
        assert!(error.message.contains("has it disabled, by block-rpcs"), "{error:?}");
        assert_eq!(sent, commands, "{outcome:?}");
    }

    /// Runs a shell line in the guest, restarts its agent, and waits for the event of the restart.
    async fn restart(&self, guest: &Guest, watch: &mut Watch, line: &str) {
        let outcome = self.run(Operation::Exec(ExecSpec::shell(line))).await;
        assert_eq!(outcome.error, None);
        // QEMU reports at most one change a second, so it does not report one that is reverted sooner.
        guest.stop_agent().unwrap();
        agent_changed(watch, false).await;
        guest.start_agent().unwrap();
        agent_changed(watch, true).await;
    }
}

/// Waits for the event that the agent has connected or disconnected.
async fn agent_changed(watch: &mut Watch, wanted: bool) {
    let agent_changed = async {
        while let Some(item) = watch.next().await {
            if let WatchItem::Event { event, .. } = item
                && let DomainEventKind::Agent { connected, .. } = event.kind
                && connected == wanted
            {
                return true;
            }
        }
        false
    };
    assert!(timeout(SOON, agent_changed).await.unwrap());
}

#[test]
fn the_reason_why_a_command_is_disabled_is_cached_until_the_agent_restarts() {
    let bed = bed();
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    within(LIMIT, async {
        let commands = Arc::new(AtomicUsize::new(0));
        let manager = manager(&bed, atp_e2e::config()).await;
        manager.add_interceptor(AgentCommands(commands.clone()));
        let fixture = Fixture { executor: Executor::new(manager), commands };
        let mut watch = fixture.executor.watch(&Fixture::selection(), &WatchOptions::default()).unwrap();
        let watched = async { while !matches!(watch.next().await, Some(WatchItem::Present { .. })) {} };
        timeout(SOON, watched).await.unwrap();

        let (outcome, sent) = fixture.time().await;
        assert_eq!((outcome.error, sent), (None, 1), "an agent that has a command is asked nothing else");

        for _ in 0..2 {
            fixture.restart(&guest, &mut watch, FORBID).await;
            fixture.is_refused(2).await;
            fixture.is_refused(1).await;
        }
        // A new process, as each call of `atp` is.
        let run = bed.run(&["qga", VM, "--", "guest-get-time"]);
        assert_eq!(run.exits_with(1).brief(), [format!("{VM} failed none agent-command-disabled")]);
        assert!(run.outcome(VM).failure().message.contains("by block-rpcs"), "{}", run.stdout());

        fixture.restart(&guest, &mut watch, ALLOW).await;
        let (outcome, sent) = fixture.time().await;
        assert_eq!((outcome.error, sent), (None, 1));
    });
}
