//! What the keyboard and the mouse share: the state that a VM must be in, and an end that is cut off.

use atp_api::Status;
use atp_protocol::ProtocolError;
use atp_transport::domain::{DomainInfo, DomainState};
use atp_transport::{Effect, LibvirtConnection};

use super::answer::{Answer, finish};
use super::completion::Completion;
use super::facts::{Needs, VerbFacts};
use super::job::Job;

/// The facts about an input verb of this name.
pub(super) const fn facts(name: &'static str) -> VerbFacts {
    VerbFacts { needs: Needs::Running, ..VerbFacts::change(name) }
}

/// Returns the state of a VM that takes no input now: QEMU silently drops what is sent to a paused VM.
pub(super) async fn takes_no_input(
    connection: &LibvirtConnection,
    domain: &DomainInfo,
) -> Result<Option<DomainState>, ProtocolError> {
    let state = connection.domain_info(domain.uuid).await?.state;
    let hears = matches!(state, DomainState::Running | DomainState::Blocked | DomainState::PmSuspended);
    Ok((!hears).then_some(state))
}

/// Turns the end of an input into a completion.
pub(super) fn completion(
    job: &Job,
    domain: &DomainInfo,
    answer: Result<Answer<()>, ProtocolError>,
) -> Completion {
    // Input that was not sent for lack of time ended before the deadline, and is a timeout all the same.
    let out_of_time = answer.as_ref().is_err_and(ProtocolError::is_timeout);
    let mut completion = finish(job, domain, answer, |()| Completion::ok(Effect::Done, None));
    if out_of_time && completion.status == Status::Failed {
        completion.status = Status::Timeout;
    }
    completion
}
