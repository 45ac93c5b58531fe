//! The answer of a VM to something that was sent to it.

use atp_protocol::ProtocolError;
use atp_transport::domain::DomainInfo;
use atp_transport::{Effect, ErrorKind, LibvirtConnection};

use super::completion::{Completion, effect_of};
use super::facts::Needs;
use super::job::Job;

/// What a VM answered.
pub(super) enum Answer<T> {
    Given(T),
    /// The VM, as it is now, is not in a state to answer. Nothing was sent, unless the effect says otherwise.
    NotRunning(DomainInfo, Effect),
}

/// Returns a VM that was not in a state to be worked on when it was listed and is not now, so that nothing is sent to it.
pub(super) async fn not_running(
    connection: &LibvirtConnection,
    domain: &DomainInfo,
    needs: Needs,
) -> Result<Option<DomainInfo>, ProtocolError> {
    if needs.allow(domain.state) {
        return Ok(None);
    }
    // The target may have waited in the queue for a while since the listing.
    let now = connection.domain_info(domain.uuid).await?;
    Ok((!needs.allow(now.state)).then_some(now))
}

/// Looks again at a VM that refused: it may have stopped after the listing, and libvirt reports that with a general
/// error. An agent that does not have a command is asked which commands it has.
pub(super) async fn explain<T>(
    job: &Job,
    connection: &LibvirtConnection,
    domain: &DomainInfo,
    needs: Needs,
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
        && !needs.allow(now.state)
    {
        return Ok(Answer::NotRunning(now, effect_of(&error, job.attempt.is_sent())));
    }
    Err(job.explained(connection, domain, error).await)
}

/// Turns an answer into a completion.
pub(super) fn finish<T>(
    job: &Job,
    answer: Result<Answer<T>, ProtocolError>,
    given: impl FnOnce(T) -> Completion,
) -> Completion {
    match answer {
        Ok(Answer::Given(answer)) => given(answer),
        Ok(Answer::NotRunning(now, effect)) => job.refused(Needs::Running, &now, effect),
        Err(error) => job.failure(&error),
    }
}
