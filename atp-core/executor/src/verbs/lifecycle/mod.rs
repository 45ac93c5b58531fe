//! `vm start`, `shutdown`, `reboot`, `reset`, `destroy`, `suspend` and `resume`: changes of a VM's state.

mod restart;

use atp_protocol::ProtocolError;
use atp_transport::domain::{DomainInfo, DomainState, Lifecycle};
use atp_transport::{Effect, ErrorKind, Hint, LibvirtConnection, TransportError};
use tokio::time::{self, Instant};

use super::Data;
use super::completion::Completion;
use super::facts::{DryRun, Needs, VerbFacts, is_reached};
use super::job::Job;
use super::scenario::fields::{Field, Shape, field};
use super::scenario::node::{Node, Value};
use super::scenario::read::{Keys, Result, choice, truth};
use crate::error::{OutcomeError, in_full};
use crate::outcome::Status;
use crate::policy::Policy;

/// A change of a VM's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LifecycleSpec {
    /// The change.
    pub action: Lifecycle,
    /// Whether the operation ends only when the state is reached (see [`goal`](Self::goal)) or the target's deadline
    /// has passed.
    pub wait: bool,
}

impl LifecycleSpec {
    /// The state that the change leads to.
    ///
    /// A restart (`reboot`, `reset`) leads to `running`. libvirt shows a guest that restarts as running all the time,
    /// so waiting for a restart waits until the VM has restarted and its agent, if it has one, answers. With hypervisors
    /// other than QEMU, which may not report restarts, only the state is awaited.
    pub fn goal(&self) -> DomainState {
        match self.action {
            Lifecycle::Start | Lifecycle::Resume | Lifecycle::Reboot | Lifecycle::Reset => {
                DomainState::Running
            }
            Lifecycle::Shutdown | Lifecycle::Destroy => DomainState::ShutOff,
            Lifecycle::Suspend => DomainState::Paused,
        }
    }
}

pub(super) fn facts(spec: &LifecycleSpec) -> &'static VerbFacts {
    const CHANGE: VerbFacts = VerbFacts {
        name: "",
        disruptive: true,
        only_looks: false,
        needs: Needs::Nothing,
        unchanged_in: None,
        full_listing: false,
        ends_on_stop: false,
    };
    const RUNNING: Option<DomainState> = Some(DomainState::Running);
    const SHUT_OFF: Option<DomainState> = Some(DomainState::ShutOff);
    const PAUSED: Option<DomainState> = Some(DomainState::Paused);
    match spec.action {
        Lifecycle::Start => {
            &VerbFacts { name: "vm-start", disruptive: false, unchanged_in: RUNNING, ..CHANGE }
        }
        Lifecycle::Shutdown => &VerbFacts { name: "vm-shutdown", unchanged_in: SHUT_OFF, ..CHANGE },
        // Asks the guest. A paused guest does not hear it.
        Lifecycle::Reboot => &VerbFacts { name: "vm-reboot", needs: Needs::Running, ..CHANGE },
        Lifecycle::Reset => &VerbFacts { name: "vm-reset", needs: Needs::Active, ..CHANGE },
        Lifecycle::Destroy => &VerbFacts { name: "vm-destroy", unchanged_in: SHUT_OFF, ..CHANGE },
        Lifecycle::Suspend => {
            &VerbFacts { name: "vm-suspend", needs: Needs::Active, unchanged_in: PAUSED, ..CHANGE }
        }
        Lifecycle::Resume => &VerbFacts {
            name: "vm-resume",
            disruptive: false,
            needs: Needs::Active,
            unchanged_in: RUNNING,
            ..CHANGE
        },
    }
}

/// Asks for the change and, if requested, waits until its state is reached.
pub(super) async fn perform(job: &Job, domain: &DomainInfo, spec: &LifecycleSpec) -> Completion {
    if spec.wait && matches!(spec.action, Lifecycle::Reboot | Lifecycle::Reset) {
        return restart::restart(job, domain, spec).await;
    }
    let requested = request(job, domain, spec).await;
    finish(job, domain, spec, requested).await
}

/// The result of a request.
enum Requested {
    /// The change was made, or, if the guest makes it, the guest was asked. The state is the one right after, if it
    /// could be read.
    Done(Option<DomainState>),
    Unchanged(DomainState),
    NotRunning(DomainState),
}

/// Asks for the change.
async fn request(job: &Job, domain: &DomainInfo, spec: &LifecycleSpec) -> Result<Requested, ProtocolError> {
    let requested = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        request_on(&connection, job, domain, spec).await
    });
    requested.await
}

/// Turns a request into a completion: at once, or when its state is reached if that is awaited.
async fn finish(
    job: &Job,
    domain: &DomainInfo,
    spec: &LifecycleSpec,
    requested: Result<Requested, ProtocolError>,
) -> Completion {
    let goal = spec.goal();
    match requested {
        Err(error) => job.failure(&error),
        Ok(Requested::NotRunning(state)) => job.not_running(domain, state, Effect::None),
        Ok(Requested::Unchanged(state)) => Completion::unchanged(Data::Lifecycle { state }),
        Ok(Requested::Done(now)) if spec.wait && !now.is_some_and(|now| is_reached(goal, now)) => {
            wait_for(job, domain, goal).await
        }
        Ok(Requested::Done(now)) => Completion::ok(Effect::Done, now.map(|state| Data::Lifecycle { state })),
    }
}

/// Decides by the state as it is now, not as it was listed: a person may have thought about the prompt for long.
async fn request_on(
    connection: &LibvirtConnection,
    job: &Job,
    domain: &DomainInfo,
    spec: &LifecycleSpec,
) -> Result<Requested, ProtocolError> {
    let goal = spec.goal();
    let settled = |state| match facts(spec).dry_run(state) {
        DryRun::Proceed => None,
        DryRun::Unchanged => Some(Requested::Unchanged(state)),
        DryRun::NotRunning => Some(Requested::NotRunning(state)),
    };
    let before = lasting_state(connection, domain, spec, &job.policy).await?;
    if let Some(requested) = settled(before) {
        return Ok(requested);
    }
    job.attempt.mark_sent().await;
    let error = match connection.domain_lifecycle(domain.uuid, spec.action).await {
        Ok(()) => return Ok(Requested::Done(state_now(connection, domain, goal).await.ok())),
        Err(error) => error,
    };
    // If the second look fails as well, the first error is the one to report.
    match error.kind() {
        // The state has changed since the first look.
        ErrorKind::OperationInvalid | ErrorKind::VmNotRunning | ErrorKind::VmNotFound => {
            if let Ok(now) = connection.domain_info(domain.uuid).await {
                if let Some(requested) = settled(now.state) {
                    return Ok(requested);
                }
                // A paused guest cannot follow a request. libvirt's message does not say that it is paused.
                if error.kind() == ErrorKind::VmNotRunning && now.state == DomainState::Paused {
                    return Ok(Requested::NotRunning(now.state));
                }
            }
        }
        // QEMU may end while libvirt asks it something: destroying a hung one reports a monitor failure and succeeds.
        ErrorKind::LibvirtError | ErrorKind::MonitorBusy if spec.action == Lifecycle::Destroy => {
            if let Ok(now) = state_now(connection, domain, goal).await
                && now == DomainState::ShutOff
            {
                return Ok(Requested::Done(Some(now)));
            }
        }
        _ => {}
    }
    Err(error.into())
}

/// Returns the state of the VM. A VM in the requested state may leave it at any moment while another command still waits
/// for its monitor, such as an earlier one that was given up on. So such a command is waited for, until it has taken too
/// long.
async fn lasting_state(
    connection: &LibvirtConnection,
    domain: &DomainInfo,
    spec: &LifecycleSpec,
    policy: &Policy,
) -> Result<DomainState, TransportError> {
    let mut pause = policy.poll_initial;
    loop {
        let state = connection.domain_info(domain.uuid).await?.state;
        if facts(spec).dry_run(state) != DryRun::Unchanged || !state.is_active() {
            return Ok(state);
        }
        let is_free = connection.monitor_is_free(domain.uuid).await;
        if is_free.map_err(|error| held_back(error, spec.action))? {
            // It may have been freed since the look.
            return Ok(connection.domain_info(domain.uuid).await?.state);
        }
        time::sleep(pause).await;
        pause = (pause * 2).min(policy.poll_max);
    }
}

/// Names the change in the error of an occupied monitor: that is what was held back, not the question whether the
/// monitor is occupied.
fn held_back(error: TransportError, action: Lifecycle) -> TransportError {
    match error {
        TransportError::MonitorBusy { host, occupied_for, .. } => {
            TransportError::MonitorBusy { host, operation: action.function(), occupied_for }
        }
        error => error,
    }
}

/// Returns the state of a VM that was listed. A VM without a definition is gone once it is shut off.
async fn state_now(
    connection: &LibvirtConnection,
    domain: &DomainInfo,
    goal: DomainState,
) -> Result<DomainState, TransportError> {
    match connection.domain_info(domain.uuid).await {
        Ok(info) => Ok(info.state),
        Err(error) if error.kind() == ErrorKind::VmNotFound && goal == DomainState::ShutOff => {
            Ok(DomainState::ShutOff)
        }
        Err(error) => Err(error),
    }
}

/// Waits for the goal. Each look acquires a connection of its own, so that none is held through a long wait.
async fn wait_for(job: &Job, domain: &DomainInfo, goal: DomainState) -> Completion {
    let look = || {
        job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
            connection.domain_info(domain.uuid).await.map(|info| info.state)
        })
    };
    match poll_until(goal, job.deadline(), &job.policy, look).await {
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
            Ok(state) if is_reached(goal, state) => return Ok(state),
            Ok(state) => last = format!("it is {state}"),
            // It had no definition, and is gone now that its process has ended.
            Err(error) if error.kind() == ErrorKind::VmNotFound && goal == DomainState::ShutOff => {
                return Ok(DomainState::ShutOff);
            }
            // The deadline cut this look off: what the look before saw says more.
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

/// The key in a step of a scenario.
pub(super) const STEP: Field =
    field("vm", Shape::Either(SHAPES), "Change the VM's state, or ask for all that is known of it");

/// What `vm` can do.
const ACTIONS: &[&str] = &["start", "shutdown", "reboot", "reset", "destroy", "suspend", "resume", "info"];

const SHAPES: &[Shape] = &[Shape::Choice(ACTIONS), Shape::Map(KEYS)];

const KEYS: &[Field] = &[
    field("action", Shape::Choice(ACTIONS), "What is done"),
    field("wait", Shape::Bool, "Whether the step ends only when the state is reached"),
];

/// Reads a change from a step; none for `info`.
pub(super) fn read(node: &Node) -> Result<Option<LifecycleSpec>> {
    let (action, wait) = match &node.value {
        Value::Map(_) => {
            let keys = Keys::of(node, KEYS, "vm")?;
            (keys.need("action")?, keys.get("wait").map(truth).transpose()?.unwrap_or(false))
        }
        _ => (node, false),
    };
    let action = match choice(action, ACTIONS)? {
        "start" => Lifecycle::Start,
        "shutdown" => Lifecycle::Shutdown,
        "reboot" => Lifecycle::Reboot,
        "reset" => Lifecycle::Reset,
        "destroy" => Lifecycle::Destroy,
        "suspend" => Lifecycle::Suspend,
        "resume" => Lifecycle::Resume,
        _ => return Ok(None),
    };
    Ok(Some(LifecycleSpec { action, wait }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_error_of_an_occupied_monitor_names_the_change() {
        let (host, operation) = ("h1".parse().unwrap(), "virDomainGetControlInfo");
        let busy = TransportError::MonitorBusy { host, operation, occupied_for: Duration::from_secs(9) };
        let held = held_back(busy, Lifecycle::Resume);
        assert!(held.to_string().contains("virDomainResume: not sent"), "{held}");
    }

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

    fn dry_run(action: Lifecycle, state: DomainState) -> DryRun {
        facts(&LifecycleSpec { action, wait: false }).dry_run(state)
    }

    #[test]
    fn a_state_already_reached_is_unchanged() {
        for (action, state) in [
            (Lifecycle::Start, DomainState::Running),
            (Lifecycle::Start, DomainState::Blocked),
            (Lifecycle::Resume, DomainState::Running),
            (Lifecycle::Shutdown, DomainState::ShutOff),
            (Lifecycle::Destroy, DomainState::ShutOff),
            (Lifecycle::Suspend, DomainState::Paused),
        ] {
            assert_eq!(dry_run(action, state), DryRun::Unchanged, "{action} when {state}");
        }
    }

    #[test]
    fn a_restart_is_never_unchanged() {
        for action in [Lifecycle::Reboot, Lifecycle::Reset] {
            assert_eq!(dry_run(action, DomainState::Running), DryRun::Proceed);
            assert_eq!(dry_run(action, DomainState::ShutOff), DryRun::NotRunning);
        }
    }

    #[test]
    fn a_paused_guest_cannot_be_asked_to_restart() {
        assert_eq!(dry_run(Lifecycle::Reboot, DomainState::Paused), DryRun::NotRunning);
        assert_eq!(dry_run(Lifecycle::Reset, DomainState::Paused), DryRun::Proceed);
    }

    #[test]
    fn a_vm_that_is_shut_off_can_be_started_only() {
        assert_eq!(dry_run(Lifecycle::Start, DomainState::ShutOff), DryRun::Proceed);
        assert_eq!(dry_run(Lifecycle::Suspend, DomainState::ShutOff), DryRun::NotRunning);
        assert_eq!(dry_run(Lifecycle::Resume, DomainState::ShutOff), DryRun::NotRunning);
    }

    #[test]
    fn changes_that_take_a_vm_away_are_disruptive() {
        let disruptive: Vec<_> = [
            Lifecycle::Start,
            Lifecycle::Shutdown,
            Lifecycle::Reboot,
            Lifecycle::Reset,
            Lifecycle::Destroy,
            Lifecycle::Suspend,
            Lifecycle::Resume,
        ]
        .into_iter()
        .filter(|&action| facts(&LifecycleSpec { action, wait: false }).disruptive)
        .collect();
        assert_eq!(
            disruptive,
            [
                Lifecycle::Shutdown,
                Lifecycle::Reboot,
                Lifecycle::Reset,
                Lifecycle::Destroy,
                Lifecycle::Suspend
            ]
        );
    }
}
