//! Pressing keys and moving the mouse.

use atp_protocol::input::{point, press};
use atp_protocol::{LibvirtCarrier, ProtocolError, screenshot};
use atp_transport::domain::{DomainInfo, DomainState};
use atp_transport::{Effect, LibvirtConnection};

use super::Job;
use super::answer::{Answer, explain, finish};
use crate::input::{KeySpec, MouseSpec};
use crate::operation::Operation;
use crate::outcome::Status;
use crate::verbs::completion::Completion;

/// The screen whose pixels the mouse is given.
const SCREEN: u32 = 0;

/// What a VM is given.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    Keys(&'a KeySpec),
    Mouse(&'a MouseSpec),
}

pub(super) async fn give(
    job: &Job<'_>,
    operation: &Operation,
    domain: &DomainInfo,
    input: Input<'_>,
) -> Completion {
    let deadline = job.attempt.deadline();
    let asked = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        if let Some(state) = deaf(&connection, domain).await? {
            return Ok(Answer::NotRunning(state, Effect::None));
        }
        let screen = match input {
            Input::Mouse(spec) if spec.action.needs_screen_size() => {
                Some(screenshot::screen_size(&connection, domain.uuid, SCREEN, deadline).await?)
            }
            _ => None,
        };
        job.attempt.mark_sent().await;
        let carrier = LibvirtCarrier::new(&connection, domain.uuid);
        let given = match input {
            Input::Keys(spec) => press(&carrier, &spec.chords, spec.timing, deadline).await,
            Input::Mouse(spec) => point(&carrier, &spec.action, screen, spec.timing, deadline).await,
        };
        explain(job, &connection, operation, domain, given).await
    });
    let asked = asked.await;
    // What was left unsent for lack of time was so before the deadline, and is a timeout all the same.
    let out_of_time = asked.as_ref().is_err_and(ProtocolError::is_timeout);
    let mut completion = finish(job, domain, asked, |()| Completion::ok(Effect::Done, None));
    if out_of_time && completion.status == Status::Failed {
        completion.status = Status::Timeout;
    }
    completion
}

/// The state of a VM that takes no input now: QEMU drops what is sent to one that is paused, and says nothing.
async fn deaf(
    connection: &LibvirtConnection,
    domain: &DomainInfo,
) -> Result<Option<DomainState>, ProtocolError> {
    let state = connection.domain_info(domain.uuid).await?.state;
    let hears = matches!(state, DomainState::Running | DomainState::Blocked | DomainState::PmSuspended);
    Ok((!hears).then_some(state))
}
