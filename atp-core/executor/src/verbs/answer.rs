//! Commands to a running VM: a monitor command, an agent command.

use atp_protocol::{LibvirtCarrier, ProtocolError, RawCommand, agent, monitor};
use atp_transport::domain::{DomainInfo, DomainState};
use atp_transport::{Effect, ErrorKind, LibvirtConnection};

use super::Job;
use crate::operation::{DryRun, Operation};
use crate::outcome::Data;
use crate::verbs::completion::{Completion, effect_of};

/// What came of asking a VM.
pub(super) enum Answer<T> {
    Given(T),
    /// The VM is not in a state to answer. Nothing was sent, unless the effect says otherwise.
    NotRunning(DomainState, Effect),
}

/// Sends a command to the monitor, or to the agent if the operation is for that.
pub(super) async fn raw(
    job: &Job<'_>,
    operation: &Operation,
    domain: &DomainInfo,
    command: &RawCommand,
) -> Completion {
    let deadline = job.attempt.deadline();
    let asked = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        if let Some(state) = not_running(&connection, operation, domain).await? {
            return Ok(Answer::NotRunning(state, Effect::None));
        }
        job.attempt.mark_sent().await;
        let carrier = LibvirtCarrier::new(&connection, domain.uuid);
        let reply = match operation {
            Operation::Qga(_) => agent::execute_raw(&carrier, command, deadline).await,
            _ => monitor::execute_raw(&carrier, command, deadline).await,
        };
        explain(job, &connection, operation, domain, reply).await
    });
    finish(job, domain, asked.await, |reply| Completion::ok(Effect::Done, Data::Reply(reply)))
}

/// The state of a VM that was not running when it was listed and is not now, so that nothing is sent to it.
pub(super) async fn not_running(
    connection: &LibvirtConnection,
    operation: &Operation,
    domain: &DomainInfo,
) -> Result<Option<DomainState>, ProtocolError> {
    if operation.dry_run(domain.state) != DryRun::NotRunning {
        return Ok(None);
    }
    // The target may have queued for a while since the listing.
    let state = connection.domain_info(domain.uuid).await?.state;
    Ok((operation.dry_run(state) == DryRun::NotRunning).then_some(state))
}

/// Looks again at a VM that refused: it may have stopped after the listing, and libvirt's word for that is
/// a general one. An agent that does not have a command is asked what it has.
pub(super) async fn explain<T>(
    job: &Job<'_>,
    connection: &LibvirtConnection,
    operation: &Operation,
    domain: &DomainInfo,
    result: Result<T, ProtocolError>,
) -> Result<Answer<T>, ProtocolError> {
    let error = match result {
        Ok(answer) => return Ok(Answer::Given(answer)),
        Err(error) => error,
    };
    let suspicious = [ErrorKind::OperationInvalid, ErrorKind::VmNotRunning, ErrorKind::AgentNotConnected];
    if error.transport_kind().is_some_and(|kind| suspicious.contains(&kind))
        // If this look fails too, the first error is the one to report.
        && let Ok(now) = connection.domain_info(domain.uuid).await
        && !can_answer(operation, now.state)
    {
        return Ok(Answer::NotRunning(now.state, effect_of(&error, job.attempt.is_sent())));
    }
    Err(job.explained(connection, domain, error).await)
}

/// Whether a VM in this state can answer at all: QEMU's monitor can when paused, the guest cannot.
fn can_answer(operation: &Operation, state: DomainState) -> bool {
    match operation {
        Operation::Qmp(_) | Operation::Screenshot(_) => state.is_active(),
        _ => !matches!(state, DomainState::Paused | DomainState::PmSuspended) && state.is_active(),
    }
}

pub(super) fn finish<T>(
    job: &Job<'_>,
    domain: &DomainInfo,
    asked: Result<Answer<T>, ProtocolError>,
    answered: impl FnOnce(T) -> Completion,
) -> Completion {
    match asked {
        Ok(Answer::Given(answer)) => answered(answer),
        Ok(Answer::NotRunning(state, effect)) => job.not_running(domain, state, effect),
        Err(error) => job.failure(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paused_vm_has_a_monitor_and_no_agent() {
        let command = RawCommand::from_words(["query-status"]).unwrap();
        assert!(can_answer(&Operation::Qmp(command.clone()), DomainState::Paused));
        assert!(!can_answer(&Operation::Qga(command.clone()), DomainState::Paused));
        assert!(!can_answer(&Operation::Qmp(command.clone()), DomainState::ShutOff));
        assert!(can_answer(&Operation::Qga(command), DomainState::Running));
    }
}
