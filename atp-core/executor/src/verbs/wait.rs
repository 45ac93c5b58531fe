//! Waiting until something is true of a VM.

use std::sync::atomic::{AtomicBool, Ordering};

use atp_protocol::{LibvirtCarrier, ProtocolError, RefusalKind, exec, guest};
use atp_transport::domain::{DomainInfo, DomainState};
use atp_transport::{Effect, ErrorKind, Hint};
use tokio::time::{self, Instant};

use super::Job;
use crate::error::{OutcomeError, in_full};
use crate::operation::{Condition, reached};
use crate::outcome::{Data, Status, WaitReport};
use crate::policy::Policy;
use crate::verbs::completion::{Completion, effect_of};

/// What one look saw, and whether it did something to the VM: a program that is run in the guest may do anything there.
struct Look {
    seen: Seen,
    effect: Effect,
}

enum Seen {
    True,
    /// It is not so yet; this is how it is instead.
    NotYet(String),
}

/// Looks, with growing pauses, until it is so or the deadline has passed. Each look has a connection of its own: one
/// is not held through a long wait. A failure to look is one more thing that may pass, as long as it is one of those
/// that can.
pub(super) async fn until(
    job: &Job<'_>,
    domain: &DomainInfo,
    condition: &Condition,
    policy: &Policy,
) -> Completion {
    let deadline = job.attempt.deadline();
    let mut pause = policy.poll_initial;
    let mut last = String::from("it was not looked at");
    let mut looks = 0;
    let mut effect = Effect::None;
    loop {
        looks += 1;
        let is_sent = AtomicBool::new(false);
        let looked = look(job, domain, condition, &is_sent).await;
        effect = together(effect, done_by(&looked, is_sent.load(Ordering::Acquire)));
        match looked.map(|look| look.seen) {
            Ok(Seen::True) => return Completion::ok(effect, Data::Waited(WaitReport { looks })),
            Ok(Seen::NotYet(seen)) => last = seen,
            // The deadline cut this look off: what the one before saw is worth more.
            Err(_) if Instant::now() >= deadline && looks > 1 => {}
            Err(error) if may_pass(&error) => last = in_full(&error),
            Err(error) => return Completion { effect, ..job.failure(&error) },
        }
        let now = Instant::now();
        if now >= deadline {
            return too_late(job, domain, condition, effect, &last);
        }
        time::sleep_until(deadline.min(now + pause)).await;
        pause = (pause * 2).min(policy.poll_max);
    }
}

/// What a look did to the VM, where a program was sent to it or not. The mark of the attempt is that of all looks.
fn done_by(looked: &Result<Look, ProtocolError>, is_sent: bool) -> Effect {
    match looked {
        Ok(look) => look.effect,
        Err(error) => effect_of(error, is_sent),
    }
}

/// What two looks did: once a program has run, it is known that something may have happened.
fn together(one: Effect, other: Effect) -> Effect {
    match (one, other) {
        (Effect::Done, _) | (_, Effect::Done) => Effect::Done,
        (Effect::Unknown, _) | (_, Effect::Unknown) => Effect::Unknown,
        (Effect::None, Effect::None) => Effect::None,
    }
}

/// Looks once. `is_sent` becomes true before a program is sent to the guest.
async fn look(
    job: &Job<'_>,
    domain: &DomainInfo,
    condition: &Condition,
    is_sent: &AtomicBool,
) -> Result<Look, ProtocolError> {
    let deadline = job.attempt.deadline();
    let looked = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        let state = connection.domain_info(domain.uuid).await?.state;
        let looked = |seen| Ok::<_, ProtocolError>(Look { seen, effect: Effect::None });
        let wanted = match condition {
            &Condition::State(goal) if reached(goal, state) => return looked(Seen::True),
            Condition::State(_) => return looked(Seen::NotYet(format!("it is {state}"))),
            Condition::Agent | Condition::Exec(_) if !state.is_running() => {
                return looked(Seen::NotYet(format!("it is {state}")));
            }
            Condition::Agent => None,
            Condition::Exec(spec) => Some(spec),
        };
        let carrier = LibvirtCarrier::new(&connection, domain.uuid);
        let Some(spec) = wanted else {
            guest::ping(&carrier, deadline).await?;
            return looked(Seen::True);
        };
        job.attempt.mark_sent().await;
        is_sent.store(true, Ordering::Release);
        let output = match exec::run(&carrier, spec, deadline).await {
            Ok(output) => output,
            Err(error) => return Err(job.explained(&connection, domain, error).await),
        };
        let seen = match (output.exit_code, output.signal) {
            (Some(0), None) => Seen::True,
            (_, Some(signal)) => Seen::NotYet(format!("the program died of signal {signal}")),
            (Some(code), None) => Seen::NotYet(format!("the program exited with code {code}")),
            (None, None) => Seen::NotYet("the program ended, and the guest does not say how".to_owned()),
        };
        Ok(Look { seen, effect: Effect::Done })
    });
    match looked.await {
        // A VM without a definition is gone when it is shut off.
        Err(error)
            if error.transport_kind() == Some(ErrorKind::VmNotFound)
                && *condition == Condition::State(DomainState::ShutOff) =>
        {
            Ok(Look { seen: Seen::True, effect: Effect::None })
        }
        looked => looked,
    }
}

/// Whether looking again may see something else. A guest that boots does not have everything yet.
fn may_pass(error: &ProtocolError) -> bool {
    let is_early = match error {
        ProtocolError::ExecFailed { .. } | ProtocolError::ProcessLost { .. } => true,
        _ => error.refusal().is_some_and(|refusal| refusal.kind == RefusalKind::Guest),
    };
    let is_down =
        matches!(error.transport_kind(), Some(ErrorKind::OperationInvalid | ErrorKind::VmNotRunning));
    error.is_retryable() || is_early || is_down
}

fn too_late(
    job: &Job<'_>,
    domain: &DomainInfo,
    condition: &Condition,
    effect: Effect,
    last: &str,
) -> Completion {
    let message = format!(
        "host {}: VM {:?} was waited for in vain, for {condition}: {last}",
        job.target.host, domain.name
    );
    let hint = Hint::GIVE_TIME;
    let error = OutcomeError::new(ErrorKind::ConditionNotMet, message).with_hint(hint).retryable();
    Completion::failed(Status::Timeout, effect, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_sent_no_program_did_nothing() {
        let unanswered = || Err(ProtocolError::Timeout { peer: atp_protocol::Peer::Agent, sent: true });
        assert_eq!(done_by(&unanswered(), false), Effect::None);
        assert_eq!(done_by(&unanswered(), true), Effect::Unknown);
        let ran = Ok(Look { seen: Seen::NotYet(String::new()), effect: Effect::Done });
        assert_eq!(done_by(&ran, true), Effect::Done);
    }

    #[test]
    fn once_a_program_has_run_something_happened() {
        let all = [Effect::Unknown, Effect::None, Effect::Done, Effect::Unknown];
        assert_eq!(all.into_iter().fold(Effect::None, together), Effect::Done);
        assert_eq!(all[..2].iter().copied().fold(Effect::None, together), Effect::Unknown);
    }
}
