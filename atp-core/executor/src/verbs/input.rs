//! What the keyboard and the mouse share: the state that a VM must be in, and an end that is cut off.

use atp_api::Status;
use atp_protocol::ProtocolError;
use atp_transport::domain::DomainInfo;
use atp_transport::{Effect, LibvirtConnection};

use super::answer::{Answer, explain, finish};
use super::completion::Completion;
use super::facts::{Needs, VerbFacts};
use super::job::Job;

/// The facts about an input verb of this name.
pub(super) const fn facts(name: &'static str) -> VerbFacts {
    VerbFacts { needs: Needs::Running, ..VerbFacts::change(name) }
}

/// Returns a VM that takes no input now: QEMU silently drops what is sent to a paused VM.
async fn takes_no_input(
    connection: &LibvirtConnection,
    domain: &DomainInfo,
) -> Result<Option<DomainInfo>, ProtocolError> {
    let now = connection.domain_info(domain.uuid).await?;
    Ok((!Needs::Running.allow(now.state)).then_some(now))
}

/// Sends input to a VM. `send` marks the attempt as sent before the first of it.
pub(super) async fn send(
    job: &Job,
    domain: &DomainInfo,
    send: impl AsyncFnOnce(&LibvirtConnection) -> Result<(), ProtocolError>,
) -> Completion {
    let answer = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        if let Some(state) = takes_no_input(&connection, domain).await? {
            return Ok(Answer::NotRunning(state, Effect::None));
        }
        let sent = send(&connection).await;
        explain(job, &connection, domain, Needs::Running, sent).await
    });
    let answer = answer.await;
    // Input that was not sent for lack of time ended before the deadline, and is a timeout all the same.
    let out_of_time = answer.as_ref().is_err_and(ProtocolError::is_timeout);
    let mut completion = finish(job, answer, |()| Completion::ok(Effect::Done, None));
    if out_of_time && completion.status == Status::Failed {
        completion.status = Status::Timeout;
    }
    completion
}
