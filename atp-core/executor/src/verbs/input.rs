//! What the keyboard and the mouse share: the state that a VM must be in, and an end that is cut off.

use atp_api::Status;
use atp_protocol::ProtocolError;
use atp_transport::domain::DomainInfo;
use atp_transport::{Effect, LibvirtConnection};

use super::answer::{Answer, finish};
use super::completion::Completion;
use super::facts::{Needs, VerbFacts};
use super::job::Job;

/// The facts about an input verb of this name.
pub(super) const fn facts(name: &'static str) -> VerbFacts {
    VerbFacts { needs: Needs::Running, ..VerbFacts::change(name) }
}

/// Returns a VM that takes no input now: QEMU silently drops what is sent to a paused VM.
pub(super) async fn takes_no_input(
    connection: &LibvirtConnection,
    domain: &DomainInfo,
) -> Result<Option<DomainInfo>, ProtocolError> {
    let now = connection.domain_info(domain.uuid).await?;
    Ok((!Needs::Running.allow(now.state)).then_some(now))
}

/// Turns the end of an input into a completion.
pub(super) fn completion(job: &Job, answer: Result<Answer<()>, ProtocolError>) -> Completion {
    // Input that was not sent for lack of time ended before the deadline, and is a timeout all the same.
    let out_of_time = answer.as_ref().is_err_and(ProtocolError::is_timeout);
    let mut completion = finish(job, answer, |()| Completion::ok(Effect::Done, None));
    if out_of_time && completion.status == Status::Failed {
        completion.status = Status::Timeout;
    }
    completion
}
