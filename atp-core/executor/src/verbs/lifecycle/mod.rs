//! Changing a VM's state, and waiting for it.

use atp_protocol::ProtocolError;
use atp_transport::domain::{DomainInfo, DomainState, Lifecycle};
use atp_transport::{Effect, ErrorKind, Hint, LibvirtConnection, TransportError};
use tokio::time::{self, Instant};

mod restart;

use super::Job;
use crate::error::{OutcomeError, in_full};
use crate::operation::{DryRun, Operation, reached};
use crate::outcome::{Data, Status};
use crate::policy::Policy;
use crate::verbs::completion::Completion;

/// What came of asking for the change.
pub(super) enum Requested {
    /// It was carried out, or, for a change that the guest makes, the guest was asked. The state is the
    /// one right after, if it could be had.
    Done(Option<DomainState>),
    Unchanged(DomainState),
    NotRunning(DomainState),
}

/// A change of a VM's state that is asked for.
#[derive(Clone, Copy)]
pub(super) struct Change<'a> {
    pub(super) operation: &'a Operation,
    pub(super) action: Lifecycle,
    pub(super) domain: &'a DomainInfo,
    pub(super) policy: &'a Policy,
}

/// Asks for the change and, if it is to be waited for, waits until its state is reached.
pub(super) async fn change(job: &Job<'_>, change: Change<'_>, wait: bool) -> Completion {
    if wait && matches!(change.action, Lifecycle::Reboot | Lifecycle::Reset) {
        return restart::restart(job, change).await;
    }
    let asked = request(job, change).await;
    finish(job, change, asked, wait).await
}

/// Asks for the change.
pub(super) async fn request(job: &Job<'_>, change: Change<'_>) -> Result<Requested, ProtocolError> {
    let asked = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        ask(&connection, job, change).await
    });
    asked.await
}

/// What came of it, once its state is reached if that is to be waited for.
pub(super) async fn finish(
    job: &Job<'_>,
    change: Change<'_>,
    asked: Result<Requested, ProtocolError>,
    wait: bool,
) -> Completion {
    let Change { operation, domain, policy, .. } = change;
    match (asked, operation.goal()) {
        (Err(error), _) => job.failure(&error),
        (Ok(Requested::NotRunning(state)), _) => job.not_running(domain, state, Effect::None),
        (Ok(Requested::Unchanged(state)), _) => Completion::unchanged(Data::Lifecycle { state }),
        (Ok(Requested::Done(now)), Some(goal)) if wait && !now.is_some_and(|now| reached(goal, now)) => {
            wait_for(job, domain, goal, policy).await
        }
        (Ok(Requested::Done(now)), _) => {
            Completion::ok(Effect::Done, now.map(|state| Data::Lifecycle { state }))
        }
    }
}

/// Looks at the state as it is now, not as it was listed: a person may have thought about the prompt for long.
async fn ask(
    connection: &LibvirtConnection,
    job: &Job<'_>,
    Change { operation, action, domain, policy }: Change<'_>,
) -> Result<Requested, ProtocolError> {
    let settled = |state| match operation.dry_run(state) {
        DryRun::Proceed => None,
        DryRun::Unchanged => Some(Requested::Unchanged(state)),
        DryRun::NotRunning => Some(Requested::NotRunning(state)),
    };
    let before = lasting_state(connection, operation, domain, policy).await?;
    if let Some(asked) = settled(before) {
        return Ok(asked);
    }
    job.attempt.mark_sent().await;
    let error = match connection.domain_lifecycle(domain.uuid, action).await {
        Ok(()) => return Ok(Requested::Done(state_now(connection, operation, domain).await.ok())),
        Err(error) => error,
    };
    // If the second look fails as well, the first error is the one to report.
    match error.kind() {
        // The state has changed since the first look.
        ErrorKind::OperationInvalid | ErrorKind::VmNotRunning | ErrorKind::VmNotFound => {
            if let Ok(now) = connection.domain_info(domain.uuid).await {
                if let Some(asked) = settled(now.state) {
                    return Ok(asked);
                }
                // A paused guest cannot follow a request; libvirt's words leave out that it is paused.
                if error.kind() == ErrorKind::VmNotRunning && now.state == DomainState::Paused {
                    return Ok(Requested::NotRunning(now.state));
                }
            }
        }
        // QEMU may go down with the question: destroying a hung one reports a monitor failure and does it.
        ErrorKind::LibvirtError if action == Lifecycle::Destroy => {
            if let Ok(now) = state_now(connection, operation, domain).await
                && now == DomainState::ShutOff
            {
                return Ok(Requested::Done(Some(now)));
            }
        }
        _ => {}
    }
    Err(error.into())
}

/// The state of the VM. While another command, such as an earlier one that was given up on, still waits for a VM that is
/// as it is to be, that may change any moment: it is waited for, until it has taken too long.
async fn lasting_state(
    connection: &LibvirtConnection,
    operation: &Operation,
    domain: &DomainInfo,
    policy: &Policy,
) -> Result<DomainState, TransportError> {
    let mut pause = policy.poll_initial;
    loop {
        let state = connection.domain_info(domain.uuid).await?.state;
        if operation.dry_run(state) != DryRun::Unchanged || !state.is_active() {
            return Ok(state);
        }
        if connection.monitor_is_free(domain.uuid).await.map_err(|error| held_back(error, operation))? {
            // It may have been freed since the look.
            return Ok(connection.domain_info(domain.uuid).await?.state);
        }
        time::sleep(pause).await;
        pause = (pause * 2).min(policy.poll_max);
    }
}

/// An occupied monitor holds back what was to be done, and not the question whether it is occupied.
fn held_back(error: TransportError, operation: &Operation) -> TransportError {
    match (error, operation) {
        (TransportError::MonitorBusy { host, occupied_for, .. }, Operation::Lifecycle { action, .. }) => {
            TransportError::MonitorBusy { host, operation: action.function(), occupied_for }
        }
        (error, _) => error,
    }
}

/// The state of a VM that was there. One without a definition is gone once it is shut off.
async fn state_now(
    connection: &LibvirtConnection,
    operation: &Operation,
    domain: &DomainInfo,
) -> Result<DomainState, TransportError> {
    match connection.domain_info(domain.uuid).await {
        Ok(info) => Ok(info.state),
        Err(error)
            if error.kind() == ErrorKind::VmNotFound && operation.goal() == Some(DomainState::ShutOff) =>
        {
            Ok(DomainState::ShutOff)
        }
        Err(error) => Err(error),
    }
}

/// Waits for the goal. Each look has a connection of its own: one is not held through a long wait.
async fn wait_for(job: &Job<'_>, domain: &DomainInfo, goal: DomainState, policy: &Policy) -> Completion {
    let look = || {
        job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
            connection.domain_info(domain.uuid).await.map(|info| info.state)
        })
    };
    match poll_until(goal, job.attempt.deadline(), policy, look).await {
        Ok(state) => Completion::ok(Effect::Done, Data::Lifecycle { state }),
        Err(NotReached::Late(last)) => too_late(job, domain, goal, &last),
        Err(NotReached::Failed(error)) => {
            let mut completion = job.failure(&error.into());
            completion.effect = Effect::Done;
            completion
        }
    }
}

/// Why a state was not seen.
enum NotReached {
    /// The deadline passed; this is the last that was known.
    Late(String),
    /// It cannot be looked at, and looking again would not help.
    Failed(TransportError),
}

/// Looks at the state, with growing pauses, until it is the goal or the deadline passes.
async fn poll_until<F>(
    goal: DomainState,
    deadline: Instant,
    policy: &Policy,
    mut look: impl FnMut() -> F,
) -> Result<DomainState, NotReached>
where
    F: Future<Output = Result<DomainState, TransportError>>,
{
    let mut pause = policy.poll_initial;
    let mut last = String::from("its state is not known");
    loop {
        match look().await {
            Ok(state) if reached(goal, state) => return Ok(state),
            Ok(state) => last = format!("it is {state}"),
            // It had no definition, and is gone with its process.
            Err(error) if error.kind() == ErrorKind::VmNotFound && goal == DomainState::ShutOff => {
                return Ok(DomainState::ShutOff);
            }
            // The deadline cut this look off: what the one before saw is worth more.
            Err(_) if Instant::now() >= deadline => {}
            // The daemon may be back before the deadline.
            Err(error) if error.is_retryable() => {
                last = format!("its state could not be asked for: {}", in_full(&error));
            }
            Err(error) => return Err(NotReached::Failed(error)),
        }
        let now = Instant::now();
        if now >= deadline {
            return Err(NotReached::Late(last));
        }
        time::sleep_until(deadline.min(now + pause)).await;
        pause = (pause * 2).min(policy.poll_max);
    }
}

fn too_late(job: &Job<'_>, domain: &DomainInfo, goal: DomainState, last: &str) -> Completion {
    let message =
        format!("host {}: VM {:?} was not {goal} by the deadline: {last}", job.target.host, domain.name);
    let hint = match goal {
        DomainState::ShutOff => Hint::DESTROY_VM,
        _ => Hint::GIVE_TIME,
    };
    let error = OutcomeError::new(ErrorKind::StateNotReached, message).with_hint(hint).retryable();
    Completion::failed(Status::Timeout, Effect::Done, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_occupied_monitor_holds_back_the_change_and_not_the_question() {
        let (host, operation) = ("h1".parse().unwrap(), "virDomainGetControlInfo");
        let busy = TransportError::MonitorBusy { host, operation, occupied_for: Duration::from_secs(9) };
        let held = held_back(busy, &Operation::Lifecycle { action: Lifecycle::Resume, wait: false });
        assert!(held.to_string().contains("virDomainResume: not sent"), "{held}");
    }

    fn libvirt(kind: ErrorKind) -> TransportError {
        let source = atp_transport::LibvirtError { code: 42, domain: 10, level: 2, message: "no".into() };
        TransportError::Libvirt { host: "h1".parse().unwrap(), operation: "virDomainGetInfo", kind, source }
    }

    /// What polling comes to, how many looks it took and how long, when the looks see these one after the
    /// other and then the last one for ever.
    async fn poll(
        goal: DomainState,
        seen: Vec<Result<DomainState, ErrorKind>>,
    ) -> (Result<DomainState, NotReached>, usize, Duration) {
        let (began, policy) = (Instant::now(), Policy::default());
        let mut looks = 0;
        let result = poll_until(goal, began + Duration::from_secs(60), &policy, || {
            let now = seen[looks.min(seen.len() - 1)];
            looks += 1;
            std::future::ready(now.map_err(libvirt))
        });
        let result = result.await;
        (result, looks, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn polling_ends_when_the_state_is_seen() {
        let seen = vec![Ok(DomainState::Running), Err(ErrorKind::ConnectionLost), Ok(DomainState::ShutOff)];
        let (result, looks, took) = poll(DomainState::ShutOff, seen).await;
        assert!(matches!(result, Ok(DomainState::ShutOff)));
        assert_eq!((looks, took), (3, Duration::from_millis(20 + 40)));
    }

    #[tokio::test(start_paused = true)]
    async fn polling_ends_at_the_deadline_with_what_was_seen_last() {
        let (result, looks, took) = poll(DomainState::ShutOff, vec![Ok(DomainState::Running)]).await;
        assert!(matches!(result, Err(NotReached::Late(last)) if last == "it is running"));
        assert_eq!(took, Duration::from_secs(60));
        assert!(looks < 80, "{looks} looks: the pauses do not grow");
    }

    #[tokio::test(start_paused = true)]
    async fn a_vm_without_a_definition_is_shut_off_when_it_is_gone() {
        let gone = || vec![Ok(DomainState::Running), Err(ErrorKind::VmNotFound)];
        assert!(matches!(poll(DomainState::ShutOff, gone()).await.0, Ok(DomainState::ShutOff)));
        let (result, looks, _) = poll(DomainState::Paused, gone()).await;
        assert!(matches!(result, Err(NotReached::Failed(error)) if error.kind() == ErrorKind::VmNotFound));
        assert_eq!(looks, 2);
    }
}
