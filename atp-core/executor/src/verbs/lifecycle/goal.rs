//! Waiting until a VM is in the requested state.

use atp_api::{Data, OutcomeError, Policy, Status};
use atp_transport::domain::{DomainInfo, DomainState};
use atp_transport::{Effect, ErrorKind, Hint, TransportError};
use parking_lot::Mutex;
use tokio::time::{self, Instant};

use crate::verbs::completion::Completion;
use crate::verbs::facts::is_reached;
use crate::verbs::job::Job;
use crate::verbs::relocation::{Relocation, has_left, relocation};

/// Waits until the VM is in the state `goal`. Each look acquires a connection of its own, so that none is held through a long wait.
pub(super) async fn wait_for(job: &Job, domain: &DomainInfo, goal: DomainState) -> Completion {
    let place = Mutex::new(job.clone());
    let look = || async {
        let job = place.lock().clone();
        let now = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
            connection.domain_info(domain.uuid).await
        });
        let now = now.await;
        let is_gone = match &now {
            Ok(now) => has_left(now),
            Err(error) => error.kind() == ErrorKind::VmNotFound,
        };
        if is_gone && job.was_active {
            match relocation(&job, domain).await {
                // The next look is there.
                Relocation::To(host) => {
                    let seen = Seen::Unknown(format!("it has moved to {host}"));
                    *place.lock() = job.at(host);
                    return Ok(seen);
                }
                Relocation::Lost(why) => return Ok(Seen::Unknown(format!("it {why}"))),
                Relocation::Here(_) => {}
            }
        }
        now.map(|now| Seen::State(now.state))
    };
    let polled = poll_until(goal, job.deadline(), &job.policy, look).await;
    let job = &place.into_inner();
    job.ended(completion(job, domain, goal, polled))
}

fn completion(
    job: &Job,
    domain: &DomainInfo,
    goal: DomainState,
    polled: Result<DomainState, NotReached>,
) -> Completion {
    match polled {
        Ok(state) => Completion::ok(Effect::Done, Data::Lifecycle { state }),
        Err(NotReached::Late(last)) => too_late(job, domain, goal, &last),
        Err(NotReached::Failed(error)) => {
            let mut completion = job.failure(&error.into());
            completion.effect = Effect::Done;
            completion
        }
    }
}

/// What a look saw.
#[derive(Clone)]
enum Seen {
    State(DomainState),
    /// Not the state, but this.
    Unknown(String),
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
    F: Future<Output = Result<Seen, TransportError>>,
{
    let mut pause = policy.poll_initial;
    let mut last = String::from("its state is not known");
    loop {
        match look().await {
            Ok(Seen::State(state)) if is_reached(goal, state) => return Ok(state),
            Ok(Seen::State(state)) => last = format!("it is {state}"),
            Ok(Seen::Unknown(what)) => last = what,
            // It had no definition, and is gone now that its process has ended.
            Err(error) if error.kind() == ErrorKind::VmNotFound && goal == DomainState::ShutOff => {
                return Ok(DomainState::ShutOff);
            }
            // The deadline cut this look off: what the look before saw says more.
            Err(_) if Instant::now() >= deadline => {}
            // The daemon may be back before the deadline.
            Err(error) if error.is_retryable() => {
                last = format!("its state could not be queried: {}", OutcomeError::in_full(&error));
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

fn too_late(job: &Job, domain: &DomainInfo, goal: DomainState, last: &str) -> Completion {
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
    use std::time::Duration;

    use super::*;

    fn libvirt(kind: ErrorKind) -> TransportError {
        let source = atp_transport::LibvirtError { code: 42, domain: 10, level: 2, message: "no".into() };
        TransportError::Libvirt { host: "h1".parse().unwrap(), operation: "virDomainGetInfo", kind, source }
    }

    /// Returns the result of polling, the number of looks and the time it took. The looks see these states one after
    /// the other, and then the last one for ever.
    async fn poll(
        goal: DomainState,
        seen: Vec<Result<DomainState, ErrorKind>>,
    ) -> (Result<DomainState, NotReached>, usize, Duration) {
        let (began, policy) = (Instant::now(), Policy::default());
        let mut looks = 0;
        let result = poll_until(goal, began + Duration::from_secs(60), &policy, || {
            let now = seen[looks.min(seen.len() - 1)];
            looks += 1;
            std::future::ready(now.map(Seen::State).map_err(libvirt))
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
