//! What a guest's agent does not have: who disabled it is asked once, and again when the agent was restarted.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atp_e2e::{bed, within};
use atp_executor::{Executor, Operation, Outcome, Policy, RunControl, Selection, Watch};
use atp_protocol::{ExecSpec, RawCommand};
use atp_testbed::Guest;
use atp_transport::domain::DomainEventKind;
use atp_transport::{CallDecision, CallInfo, Effect, Interceptor, TransportConfig, WatchItem, WatchOptions};
use tokio::time::timeout;

use crate::support::manager;

/// Longest the test may take.
const LIMIT: Duration = Duration::from_secs(300);
/// Longest an agent may take to start again; the machine may be busy.
const SOON: Duration = Duration::from_secs(60);
const VM: &str = "h1/vm1";

/// Has the agent forbid a command, or nothing, from when it is started again.
const FORBID: &str =
    "mkdir -p /etc/qemu; printf '[general]\\nblock-rpcs=guest-get-time\\n' >/etc/qemu/qemu-ga.conf";
const ALLOW: &str = "rm /etc/qemu/qemu-ga.conf";

/// Counts commands to agents.
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

/// An executor over the bed, and how many agent commands it has sent.
struct Story {
    executor: Executor,
    commands: Arc<AtomicUsize>,
}

impl Story {
    fn selection() -> Selection {
        Selection::of([VM.parse().unwrap()])
    }

    async fn run(&self, operation: Operation) -> Outcome {
        let plan = self.executor.plan(&Self::selection(), operation, Policy::default()).await.unwrap();
        self.executor.run(plan, &RunControl::default()).outcomes().await.remove(0)
    }

    /// Asks for the time in the guest; the outcome, and how many agent commands that took.
    async fn time(&self) -> (Outcome, usize) {
        self.commands.store(0, Ordering::Relaxed);
        let outcome = self.run(Operation::Qga(RawCommand::from_words(["guest-get-time"]).unwrap())).await;
        (outcome, self.commands.load(Ordering::Relaxed))
    }

    /// Checks that the command is refused with what disabled it, and how many agent commands that took.
    async fn is_refused(&self, commands: usize) {
        let (outcome, sent) = self.time().await;
        let error = outcome.error.as_ref().unwrap();
        assert_eq!((error.kind.as_str(), outcome.effect), ("agent-command-disabled", Effect::None));
        assert!(error.message.contains("has it disabled, by block-rpcs"), "{error:?}");
        assert_eq!(sent, commands, "{outcome:?}");
    }

    /// Runs a shell line in the guest, restarts its agent, and waits until that is told.
    async fn restart(&self, guest: &Guest, watch: &mut Watch, line: &str) {
        let outcome = self.run(Operation::Exec(ExecSpec::shell(line))).await;
        assert_eq!(outcome.error, None);
        // QEMU tells of at most one change a second, so one that is taken back sooner is not told at all.
        guest.stop_agent().unwrap();
        told(watch, false).await;
        guest.start_agent().unwrap();
        told(watch, true).await;
    }
}

/// Waits until it is told that the agent has come or gone.
async fn told(watch: &mut Watch, wanted: bool) {
    let told = async {
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
    assert!(timeout(SOON, told).await.unwrap());
}

#[test]
fn what_disabled_a_command_is_told_and_asked_for_once_until_the_agent_restarts() {
    let bed = bed();
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    within(LIMIT, async {
        let commands = Arc::new(AtomicUsize::new(0));
        let manager = manager(&bed, TransportConfig::default()).await;
        manager.add_interceptor(AgentCommands(commands.clone()));
        let story = Story { executor: Executor::new(manager), commands };
        let mut watch = story.executor.watch(&Story::selection(), &WatchOptions::default()).unwrap();
        let watched = async { while !matches!(watch.next().await, Some(WatchItem::Present { .. })) {} };
        timeout(SOON, watched).await.unwrap();

        let (outcome, sent) = story.time().await;
        assert_eq!((outcome.error, sent), (None, 1), "an agent that has a command is asked nothing else");

        for _ in 0..2 {
            story.restart(&guest, &mut watch, FORBID).await;
            story.is_refused(2).await;
            story.is_refused(1).await;
        }
        // A new process, as each call of `atp` is one.
        let run = bed.run(&["qga", VM, "--", "guest-get-time"]);
        assert_eq!(run.exits_with(1).brief(), [format!("{VM} failed none agent-command-disabled")]);
        assert!(run.outcome(VM).failure().message.contains("by block-rpcs"), "{}", run.stdout());

        story.restart(&guest, &mut watch, ALLOW).await;
        let (outcome, sent) = story.time().await;
        assert_eq!((outcome.error, sent), (None, 1));
    });
}
