//! Restarting a VM, and waiting until its guest is back.
//!
//! libvirt shows a VM as running all the while it restarts. So its events are listened to from before it is asked, and
//! when it has restarted its agent is waited for.

use atp_protocol::ProtocolError;
use atp_transport::domain::{DomainEventKind, DomainInfo, DomainState, LifecycleChange};
use atp_transport::{DomainEvents, Effect, ErrorKind, WatchItem, WatchOptions};
use tokio::time::{Instant, timeout_at};

use super::lifecycle::{Asked, Change, finish, request};
use super::{Job, wait};
use crate::completion::Completion;
use crate::error::OutcomeError;
use crate::operation::Condition;
use crate::outcome::{Data, Status};

/// The hypervisor that is known to tell of restarts.
const TELLS: &str = "QEMU";

/// How a restart ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Restarted,
    /// It stopped instead.
    Stopped,
    /// Nothing was seen of it in time.
    Late,
}

/// Asks for the restart, and waits until it has happened and the agent answers, if the VM has one. A connection to the
/// host is its own for as long.
pub(super) async fn restart(job: &Job<'_>, change: Change<'_>) -> Completion {
    let (domain, deadline) = (change.domain, job.attempt.deadline());
    match tells_of_restarts(job).await {
        Ok(true) => {}
        Ok(false) => {
            let asked = request(job, change).await;
            return finish(job, change, asked, true).await;
        }
        Err(error) => return job.failure(&error),
    }
    let mut events = match job.manager.watch_domains(&[job.host()], &WatchOptions::default()) {
        Ok(events) => events,
        Err(error) => return job.failure(&error.into()),
    };
    // What cannot be watched cannot be reached either, and then the request says why.
    let _unwatched = timeout_at(deadline, begins(&mut events)).await;
    match request(job, change).await {
        Ok(Asked::Done(_)) => {}
        asked => return finish(job, change, asked, false).await,
    }
    match timeout_at(deadline, end(&mut events, domain)).await.unwrap_or(Ended::Late) {
        Ended::Restarted => {}
        ended => return not_restarted(job, domain, ended),
    }
    drop(events);
    let waited = wait::until(job, domain, &Condition::Agent, change.policy).await;
    back(waited)
}

async fn tells_of_restarts(job: &Job<'_>) -> Result<bool, ProtocolError> {
    let asked = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        Ok::<_, ProtocolError>(connection.hypervisor().await?.kind == TELLS)
    });
    asked.await
}

/// Returns when the host is watched, or cannot be.
async fn begins(events: &mut DomainEvents) {
    while let Some(item) = events.next().await {
        if matches!(item, WatchItem::Present { .. } | WatchItem::Unreachable { .. }) {
            return;
        }
    }
}

/// Returns when the VM has restarted or stopped.
async fn end(events: &mut DomainEvents, domain: &DomainInfo) -> Ended {
    while let Some(item) = events.next().await {
        let WatchItem::Event { event, .. } = item else { continue };
        match event.kind {
            _ if event.uuid != domain.uuid => {}
            DomainEventKind::Reboot => return Ended::Restarted,
            DomainEventKind::Lifecycle { change: LifecycleChange::Stopped, .. } => return Ended::Stopped,
            _ => {}
        }
    }
    Ended::Late
}

fn not_restarted(job: &Job<'_>, domain: &DomainInfo, ended: Ended) -> Completion {
    let (how, hint) = match ended {
        Ended::Stopped => {
            ("stopped instead of restarting", "start it (`atp vm start`), and look at its <on_reboot>")
        }
        Ended::Restarted | Ended::Late => (
            "was not seen to restart by the deadline",
            "the guest may ignore the request: look at its console, or press the reset button (`atp vm reset`)",
        ),
    };
    let status = if Instant::now() >= job.attempt.deadline() { Status::Timeout } else { Status::Failed };
    let message = format!("host {}: VM {:?} {how}", job.target.host, domain.name);
    let error = OutcomeError::new("state-not-reached", message).with_hint(hint);
    Completion::failed(status, Effect::Done, error)
}

/// What waiting for the agent comes to, after the restart. A VM that has none is back as far as can be known.
fn back(waited: Completion) -> Completion {
    let has_none =
        waited.error.as_ref().is_some_and(|error| error.kind == ErrorKind::AgentNotConfigured.as_str());
    if waited.status.is_success() || has_none {
        return Completion::ok(Effect::Done, Data::Lifecycle { state: DomainState::Running });
    }
    Completion { effect: Effect::Done, ..waited }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::WaitReport;

    #[test]
    fn a_vm_without_an_agent_is_back_when_it_has_restarted() {
        let failed = |kind| Completion::failed(Status::Failed, Effect::None, OutcomeError::new(kind, "no"));
        let waited = Completion::ok(Effect::None, Data::Waited(WaitReport { looks: 3 }));
        for well in [waited, failed("agent-not-configured")] {
            assert_eq!(
                back(well),
                Completion::ok(Effect::Done, Data::Lifecycle { state: DomainState::Running })
            );
        }
        let late = back(failed("condition-not-met"));
        assert_eq!((late.status, late.effect), (Status::Failed, Effect::Done));
    }
}
