//! `vm start`, `shutdown`, `reboot`, `reset`, `destroy`, `suspend`, `resume`, `save` and `restore`: changes of a VM's state.

mod goal;
mod progress;
mod restart;

use std::time::Duration;

use atp_api::{Await, Condition, Data, DryRun, LifecycleSpec, OutcomeError, Policy, Status};
use atp_protocol::ProtocolError;
use atp_transport::domain::{DomainInfo, DomainState, Lifecycle, StateReason, save_obstacles};
use atp_transport::{Effect, ErrorKind, Hint, HostId, LibvirtConnection, TransportError};
use tokio::time::{self, Instant};

use super::completion::Completion;
use super::facts::{self, Needs, VerbFacts, is_reached};
use super::job::Job;
use super::relocation::{self, has_left};
use super::scenario::fields::{Field, Shape, field};
use super::scenario::node::{Node, Value};
use super::scenario::read::{Keys, Result, choice, truth};
use super::scenario::{ScenarioError, node::Kind};
use super::{snapshot, wait};

pub(super) fn facts(spec: &LifecycleSpec) -> &'static VerbFacts {
    const CHANGE: VerbFacts = VerbFacts { disruptive: true, ..VerbFacts::change("") };
    const RUNNING: Option<DomainState> = Some(DomainState::Running);
    const SHUT_OFF: Option<DomainState> = Some(DomainState::ShutOff);
    const PAUSED: Option<DomainState> = Some(DomainState::Paused);
    match spec.action {
        Lifecycle::Start => &VerbFacts {
            name: "vm-start",
            disruptive: false,
            needs: Needs::Off,
            unchanged_in: RUNNING,
            ..CHANGE
        },
        Lifecycle::Shutdown => {
            &VerbFacts { name: "vm-shutdown", needs: Needs::Alive, unchanged_in: SHUT_OFF, ..CHANGE }
        }
        // Asks the guest. A paused guest does not hear it.
        Lifecycle::Reboot => &VerbFacts { name: "vm-reboot", needs: Needs::Running, ..CHANGE },
        Lifecycle::Reset => &VerbFacts { name: "vm-reset", needs: Needs::Active, ..CHANGE },
        Lifecycle::Destroy => &VerbFacts { name: "vm-destroy", unchanged_in: SHUT_OFF, ..CHANGE },
        Lifecycle::Suspend => {
            &VerbFacts { name: "vm-suspend", needs: Needs::Running, unchanged_in: PAUSED, ..CHANGE }
        }
        Lifecycle::Resume | Lifecycle::Wakeup => &VerbFacts {
            name: "vm-resume",
            disruptive: false,
            needs: Needs::Paused,
            unchanged_in: RUNNING,
            ..CHANGE
        },
        // Whether its memory is saved is not in a list of states, once the daemon was restarted.
        Lifecycle::Save => &VerbFacts { name: "vm-save", needs: Needs::Alive, full_listing: true, ..CHANGE },
        Lifecycle::Restore => &VerbFacts {
            name: "vm-restore",
            disruptive: false,
            needs: Needs::Off,
            unchanged_in: RUNNING,
            full_listing: true,
            ..CHANGE
        },
    }
}

/// What the change will do to a VM as it is now.
pub(super) fn dry_run(spec: &LifecycleSpec, now: &DomainInfo) -> DryRun {
    let is_off = now.state == DomainState::ShutOff;
    match spec.action {
        Lifecycle::Save if is_off && is_saved(now) => DryRun::Unchanged,
        Lifecycle::Restore if is_off && !is_saved(now) => DryRun::NotRunning,
        _ => facts(spec).dry_run(now.state),
    }
}

/// The error of a VM whose state does not allow the change.
pub(super) fn refusal(spec: &LifecycleSpec, host: &HostId, now: &DomainInfo) -> OutcomeError {
    if spec.action == Lifecycle::Restore && now.state == DomainState::ShutOff {
        let message = format!("host {host}: VM {:?} is {}, and its memory is not saved", now.name, now.state);
        return OutcomeError::new(ErrorKind::OperationInvalid, message).with_hint(Hint::NOT_SAVED);
    }
    facts::refusal(facts(spec).needs, host, now)
}

fn is_saved(now: &DomainInfo) -> bool {
    now.reason == Some(StateReason::Saved)
}

/// Asks for the change and, if requested, waits until it is complete.
pub(super) async fn perform(job: &Job, domain: &DomainInfo, spec: &LifecycleSpec) -> Completion {
    if spec.wait != Await::Nothing && matches!(spec.action, Lifecycle::Reboot | Lifecycle::Reset) {
        return restart::restart(job, domain, spec).await;
    }
    let requested = request(job, domain, spec).await;
    finish(job, domain, spec, requested).await
}

/// How much processor time a VM that was woken has used when its firmware has surely handed over to the guest, and the longest that it is
/// waited for: a guest that has nothing to do uses little.
const FIRMWARE: Duration = Duration::from_millis(200);
const FIRMWARE_WITHIN: Duration = Duration::from_secs(5);

/// For how long libvirt may show a VM as running whose process has ended: it tidies up first, which takes seconds on a host
/// with too much to do.
const ENDS_WITHIN: Duration = Duration::from_secs(15);

/// The result of a request.
#[derive(Debug, PartialEq)]
enum Requested {
    /// The change was made, or, if the guest makes it, the guest was asked. The state is the one right after, if it
    /// could be read.
    Done(Option<DomainState>),
    Unchanged(DomainState),
    /// The state, as it is now, does not allow it, and what the request did all the same.
    Refused(DomainInfo, Effect),
    /// Nothing was sent, because the VM is on another host.
    Elsewhere(Completion),
    /// It ended in this way: the memory cannot be saved, or the VM was woken and then not reset.
    Ended(Completion),
    /// libvirt shows the VM as asleep, and QEMU, which gives this reason, cannot wake it: it was reset in its sleep.
    CannotWake(String),
}

/// Asks for the change.
async fn request(job: &Job, domain: &DomainInfo, spec: &LifecycleSpec) -> Result<Requested, ProtocolError> {
    let requested = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        request_on(&connection, job, domain, spec).await
    });
    requested.await
}

/// Turns a request into a completion: at once, or when what is awaited is reached.
async fn finish(
    job: &Job,
    domain: &DomainInfo,
    spec: &LifecycleSpec,
    requested: Result<Requested, ProtocolError>,
) -> Completion {
    let goal = spec.goal();
    match requested {
        Err(error) => job.failure(&error),
        Ok(Requested::Refused(now, effect)) => {
            job.refused_for(refusal(spec, &job.target.host, &now), &now, effect)
        }
        Ok(Requested::Ended(completion) | Requested::Elsewhere(completion)) => completion,
        Ok(Requested::CannotWake(reason)) => {
            let message = format!("host {}: VM {:?} cannot be woken", job.target.host, domain.name);
            let error =
                OutcomeError::new(ErrorKind::OperationInvalid, message).with_hint(Hint::DESTROY_SLEEPER);
            let error = OutcomeError { causes: vec![reason], ..error };
            Completion::failed(Status::Failed, Effect::None, error)
        }
        // It may still boot.
        Ok(Requested::Unchanged(state)) => {
            let unchanged = Completion::unchanged(Data::Lifecycle { state });
            agent_answers(job, domain, spec, unchanged).await
        }
        Ok(Requested::Done(now)) => {
            let is_reached = now.is_some_and(|now| is_reached(goal, now));
            let done = if spec.wait == Await::Nothing || is_reached {
                Completion::ok(Effect::Done, now.map(|state| Data::Lifecycle { state }))
            } else {
                goal::wait_for(job, domain, goal).await
            };
            agent_answers(job, domain, spec, done).await
        }
    }
}

/// Returns the completion of a change when the agent answers, if that is awaited.
async fn agent_answers(
    job: &Job,
    domain: &DomainInfo,
    spec: &LifecycleSpec,
    changed: Completion,
) -> Completion {
    if !spec.awaits_agent() || !changed.status.is_success() {
        return changed;
    }
    with_agent(changed, wait::perform(job, domain, &Condition::Agent).await, spec.wait)
}

/// The completion of a change and of the wait for the agent after it. A VM that has no agent is ready as far as can be
/// known, unless the agent itself was asked for.
fn with_agent(changed: Completion, waited: Completion, wait: Await) -> Completion {
    let has_none =
        |error: &OutcomeError| matches!(error.kind, ErrorKind::AgentNotConfigured | ErrorKind::NotSupported);
    match waited.error {
        None => changed,
        Some(error) if wait != Await::Agent && has_none(&error) => changed,
        Some(error) => {
            let is_silent = wait != Await::Agent && waited.status == Status::Timeout;
            let error = if is_silent { error.with_hint(Hint::AWAIT_STATE) } else { error };
            Completion { effect: changed.effect, error: Some(error), ..waited }
        }
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
    let mut before = lasting_state(connection, domain, spec, &job.policy).await?;
    let is_about_memory = matches!(spec.action, Lifecycle::Save | Lifecycle::Restore);
    if is_about_memory
        && before.state == DomainState::ShutOff
        && connection.domain_is_saved(domain.uuid).await?
    {
        // The reason of its state says so too, until the daemon is restarted.
        before.reason = Some(StateReason::Saved);
    }
    if let Some(requested) = settled(spec, &before, Effect::None) {
        if requested == Requested::Unchanged(DomainState::ShutOff)
            && let Some(elsewhere) = relocation::off_here(job, &before).await
        {
            return Ok(Requested::Elsewhere(elsewhere));
        }
        return Ok(requested);
    }
    if matches!(spec.action, Lifecycle::Start | Lifecycle::Restore)
        && let Some(refused) = relocation::start_refused(job, &before, spec.start_check).await
    {
        return Ok(Requested::Elsewhere(refused));
    }
    if spec.action == Lifecycle::Save {
        let obstacles = save_obstacles(&connection.domain_xml(domain.uuid, false).await?);
        if !obstacles.is_empty() {
            return Ok(Requested::Ended(snapshot::impossible(job, domain, "saved", &obstacles)));
        }
    }
    job.attempt.mark_sent().await;
    let ask = async |action| connection.domain_lifecycle(domain.uuid, action).await;
    let mut woken = false;
    let asked = match (spec.action, before.state) {
        (Lifecycle::Resume, DomainState::PmSuspended) => ask(Lifecycle::Wakeup).await,
        // QEMU does not let a guest run that is reset while it sleeps, and libvirt takes it for asleep from then on.
        (Lifecycle::Reset, DomainState::PmSuspended) => match ask(Lifecycle::Wakeup).await {
            Ok(()) => {
                woken = true;
                left_its_sleep(connection, domain, &job.policy).await;
                left_its_firmware(connection, domain, &job.policy).await;
                ask(Lifecycle::Reset).await
            }
            error => error,
        },
        (Lifecycle::Save, _) => progress::reported(job, domain, ask(Lifecycle::Save)).await,
        (action, _) => ask(action).await,
    };
    match asked {
        // QEMU leaves a VM that was kept after a crash paused when it is reset.
        Ok(()) if (spec.action, before.state) == (Lifecycle::Reset, DomainState::Crashed) => {
            let resumed = connection.domain_lifecycle(domain.uuid, Lifecycle::Resume).await;
            Ok(match (resumed, vm_now(connection, domain, goal).await) {
                (Err(_), Ok(now)) if !now.state.is_running() => Requested::Refused(now, Effect::Done),
                (_, now) => Requested::Done(now.ok().map(|now| now.state)),
            })
        }
        Ok(()) => {
            let now = vm_now(connection, domain, goal).await;
            Ok(Requested::Done(now.ok().map(|now| now.state)))
        }
        Err(error) => after_failure(connection, job, domain, spec, &before, woken, error).await,
    }
}

/// What a request came to that failed: the VM's state may show more than the error says. `woken` is whether a VM that slept was
/// woken before.
async fn after_failure(
    connection: &LibvirtConnection,
    job: &Job,
    domain: &DomainInfo,
    spec: &LifecycleSpec,
    before: &DomainInfo,
    woken: bool,
    error: TransportError,
) -> Result<Requested, ProtocolError> {
    let goal = spec.goal();
    // If the second look fails as well, the first error is the one to report.
    let effect = if woken { Effect::Done } else { error.effect() };
    match error.kind() {
        // libvirt lets a VM run on whose memory it could not write, as on a full disk.
        _ if spec.action == Lifecycle::Save && effect == Effect::Unknown && error.libvirt().is_some() => {
            if let (Ok(now), Ok(is_saved)) =
                (vm_now(connection, domain, goal).await, connection.domain_is_saved(domain.uuid).await)
            {
                if is_saved && now.state == goal {
                    return Ok(Requested::Done(Some(now.state)));
                }
                if !is_saved && now.state == before.state {
                    let failure = job.failure(&error.into());
                    return Ok(Requested::Ended(Completion { effect: Effect::None, ..failure }));
                }
            }
        }
        // The state has changed since the first look.
        ErrorKind::OperationInvalid | ErrorKind::VmNotRunning => {
            let not_running = error.kind() == ErrorKind::VmNotRunning;
            let now = vm_at_rest(connection, domain, goal, not_running, &job.policy).await;
            if let Ok(now) = now {
                if has_left(&now) {
                    // A process that was killed during its migration would not have been migrated: what was killed was
                    // left behind by the migration.
                    if spec.action == Lifecycle::Destroy
                        && let Some(elsewhere) = relocation::off_here(job, &now).await
                    {
                        return Ok(Requested::Elsewhere(elsewhere));
                    }
                } else if let Some(requested) = settled(spec, &now, effect) {
                    return Ok(requested);
                } else if error.kind() == ErrorKind::VmNotRunning && now.state == DomainState::Paused {
                    // A paused guest cannot follow a request. libvirt's message does not say that it is paused. One that
                    // was paused before was not asked.
                    let effect = if before.state == now.state { Effect::None } else { effect };
                    return Ok(Requested::Refused(now, effect));
                }
            }
        }
        ErrorKind::LibvirtError if before.state == DomainState::PmSuspended && error.libvirt().is_some() => {
            if let Ok(now) = vm_now(connection, domain, goal).await
                && now.state == DomainState::PmSuspended
            {
                return Ok(Requested::CannotWake(OutcomeError::in_full(&error)));
            }
        }
        // A VM may go down although libvirt reports a failure: destroying a hung one reports one of its monitor.
        _ if effect == Effect::Unknown && goal == DomainState::ShutOff && error.libvirt().is_some() => {
            if let Ok(now) = vm_now(connection, domain, goal).await
                && now.state == DomainState::ShutOff
                && !has_left(&now)
            {
                return Ok(Requested::Done(Some(now.state)));
            }
        }
        _ => {}
    }
    match woken {
        true => Ok(Requested::Ended(Completion { effect, ..job.failure(&error.into()) })),
        false => Err(error.into()),
    }
}

/// What a state means for a request with this effect; none if the state allows the change.
fn settled(spec: &LifecycleSpec, now: &DomainInfo, effect: Effect) -> Option<Requested> {
    match dry_run(spec, now) {
        DryRun::Proceed | DryRun::Unknown => None,
        DryRun::Unchanged if effect == Effect::None => Some(Requested::Unchanged(now.state)),
        DryRun::Unchanged => Some(Requested::Done(Some(now.state))),
        DryRun::NotRunning => Some(Requested::Refused(now.clone(), effect)),
    }
}

/// Returns the VM as it is now. A VM in the requested state may leave it at any moment while another command still waits
/// for its monitor, such as an earlier one that was given up on. So such a command is waited for, until it has taken too
/// long.
async fn lasting_state(
    connection: &LibvirtConnection,
    domain: &DomainInfo,
    spec: &LifecycleSpec,
    policy: &Policy,
) -> Result<DomainInfo, TransportError> {
    let mut pause = policy.poll_initial;
    loop {
        let now = connection.domain_info(domain.uuid).await?;
        if facts(spec).dry_run(now.state) != DryRun::Unchanged || !now.state.is_active() {
            return Ok(now);
        }
        let is_free = connection.monitor_is_free(domain.uuid).await;
        if is_free.map_err(|error| held_back(error, spec.action))? {
            // It may have been freed since the look.
            return connection.domain_info(domain.uuid).await;
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

/// Waits until a VM that was woken no longer sleeps, or cannot be looked at. QEMU wakes it after its answer, and a reset before
/// that is one in its sleep.
async fn left_its_sleep(connection: &LibvirtConnection, domain: &DomainInfo, policy: &Policy) {
    let mut pause = policy.poll_initial;
    while let Ok(now) = connection.domain_info(domain.uuid).await
        && now.state == DomainState::PmSuspended
    {
        time::sleep(pause).await;
        pause = (pause * 2).min(policy.poll_max);
    }
}

/// Waits until a VM that was woken has worked for a while, or it takes too long. Its firmware is the first to run, and is told by a byte
/// that a reset leaves as it is to wake the guest and not to boot it: with a reset before it has read that, the guest does not boot.
async fn left_its_firmware(connection: &LibvirtConnection, domain: &DomainInfo, policy: &Policy) {
    let Ok(woken) = connection.domain_cpu_time(domain.uuid).await else { return };
    let (last, mut pause) = (Instant::now() + FIRMWARE_WITHIN, policy.poll_initial);
    while Instant::now() < last
        && let Ok(now) = connection.domain_cpu_time(domain.uuid).await
        && now.saturating_sub(woken) < FIRMWARE
    {
        time::sleep(pause).await;
        pause = (pause * 2).min(policy.poll_max);
    }
}

/// As [`vm_now`]. A VM that libvirt has just refused as not running, and shows as running or shutting down, is about to end: it is
/// looked at until its state is the one after.
async fn vm_at_rest(
    connection: &LibvirtConnection,
    domain: &DomainInfo,
    goal: DomainState,
    not_running: bool,
    policy: &Policy,
) -> Result<DomainInfo, TransportError> {
    let last = Instant::now() + ENDS_WITHIN;
    let mut pause = policy.poll_initial;
    loop {
        let now = vm_now(connection, domain, goal).await?;
        let is_about_to_end = now.state.is_running() || now.state == DomainState::ShuttingDown;
        if !not_running || !is_about_to_end || Instant::now() >= last {
            return Ok(now);
        }
        time::sleep(pause).await;
        pause = (pause * 2).min(policy.poll_max);
    }
}

/// Returns a VM that was listed, as it is now. A VM without a definition is gone once it is shut off.
async fn vm_now(
    connection: &LibvirtConnection,
    domain: &DomainInfo,
    goal: DomainState,
) -> Result<DomainInfo, TransportError> {
    match connection.domain_info(domain.uuid).await {
        Err(error) if error.kind() == ErrorKind::VmNotFound && goal == DomainState::ShutOff => {
            Ok(DomainInfo { id: None, state: DomainState::ShutOff, reason: None, ..domain.clone() })
        }
        now => now,
    }
}

/// The key in a step of a scenario.
pub(super) const STEP: Field =
    field("vm", Shape::Either(SHAPES), "Change the VM's state, or query everything known about it");

/// What `vm` can do.
const ACTIONS: &[&str] =
    &["start", "shutdown", "reboot", "reset", "destroy", "suspend", "resume", "save", "restore", "info"];

const SHAPES: &[Shape] = &[Shape::Choice(ACTIONS), Shape::Map(KEYS)];

const KEYS: &[Field] = &[
    field("action", Shape::Choice(ACTIONS), "What is done"),
    field(
        "wait",
        Shape::Either(&[Shape::Bool, Shape::Choice(AWAITED)]),
        "Whether the step ends only when the change is complete: the state is reached and, in a VM that is to run, the \
         agent answers if there is one; or only the state, or always the agent",
    ),
];

/// What can be waited for by name.
const AWAITED: &[&str] = &["state", "agent"];

/// Reads what a change waits for.
fn read_wait(node: &Node) -> Result<Await> {
    match node.value {
        Value::Scalar(_, Kind::Text) => {
            let word =
                choice(node, AWAITED).map_err(|error| error.with_hint("true or false, or state or agent"))?;
            Ok(if word == "state" { Await::State } else { Await::Agent })
        }
        _ => Ok(if truth(node)? { Await::Completion } else { Await::Nothing }),
    }
}

/// Reads a change from a step; none for `info`.
pub(super) fn read(node: &Node) -> Result<Option<LifecycleSpec>> {
    let (action, wait) = match &node.value {
        Value::Map(_) => {
            let keys = Keys::of(node, KEYS, "vm")?;
            (keys.need("action")?, keys.get("wait"))
        }
        _ => (node, None),
    };
    // The only other one is `info`.
    let Ok(action) = choice(action, ACTIONS)?.parse::<Lifecycle>() else { return Ok(None) };
    let spec = LifecycleSpec {
        wait: wait.map(read_wait).transpose()?.unwrap_or_default(),
        ..LifecycleSpec::new(action)
    };
    spec.check().map_err(|reason| ScenarioError::at(node.place, reason))?;
    Ok(Some(spec))
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

    fn dry_run(action: Lifecycle, state: DomainState) -> DryRun {
        facts(&LifecycleSpec::new(action)).dry_run(state)
    }

    #[test]
    fn to_wait_means_the_same_after_every_change_that_lets_a_vm_run() {
        use Lifecycle::{Destroy, Reboot, Reset, Resume, Shutdown, Start, Suspend};
        let awaits = |action, wait| LifecycleSpec { wait, ..LifecycleSpec::new(action) }.awaits_agent();
        for action in [Start, Resume, Reboot, Reset] {
            let awaited = [Await::Nothing, Await::Completion, Await::State, Await::Agent];
            assert_eq!(awaited.map(|wait| awaits(action, wait)), [false, true, false, true], "{action}");
        }
        for action in [Shutdown, Destroy, Suspend] {
            assert!(!awaits(action, Await::Completion), "{action}");
            assert!(
                LifecycleSpec { wait: Await::Agent, ..LifecycleSpec::new(action) }.check().is_err(),
                "{action}"
            );
        }
    }

    #[test]
    fn a_vm_without_an_agent_is_ready_unless_the_agent_was_asked_for() {
        let changed = || Completion::ok(Effect::Done, Data::Lifecycle { state: DomainState::Running });
        let failed = |status, kind| Completion::failed(status, Effect::None, OutcomeError::new(kind, "no"));
        let waited = Completion::ok(Effect::None, Data::Waited(atp_api::WaitReport { looks: 3 }));
        for wait in [Await::Completion, Await::Agent] {
            assert_eq!(with_agent(changed(), waited.clone(), wait), changed());
        }
        for kind in [ErrorKind::AgentNotConfigured, ErrorKind::NotSupported] {
            let none = || failed(Status::Failed, kind);
            assert_eq!(with_agent(changed(), none(), Await::Completion), changed());
            let asked_for = with_agent(changed(), none(), Await::Agent);
            assert_eq!((asked_for.status, asked_for.effect), (Status::Failed, Effect::Done));
        }
        let late = || failed(Status::Timeout, ErrorKind::ConditionNotMet);
        let waited = with_agent(changed(), late(), Await::Completion);
        assert_eq!((waited.status, waited.effect), (Status::Timeout, Effect::Done));
        assert_eq!(waited.error.unwrap().hint, Some(Hint::AWAIT_STATE));
        assert_ne!(with_agent(changed(), late(), Await::Agent).error.unwrap().hint, Some(Hint::AWAIT_STATE));
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
    fn a_vm_that_may_have_followed_a_failed_request_is_not_reported_as_unchanged() {
        let off = DomainState::ShutOff;
        let vm = |state| DomainInfo::new("vm", uuid::Uuid::nil(), state);
        for (action, effect, expected) in [
            (Lifecycle::Shutdown, Effect::None, Requested::Unchanged(off)),
            (Lifecycle::Shutdown, Effect::Unknown, Requested::Done(Some(off))),
            (Lifecycle::Destroy, Effect::Unknown, Requested::Done(Some(off))),
            (Lifecycle::Reboot, Effect::Unknown, Requested::Refused(vm(off), Effect::Unknown)),
        ] {
            let spec = LifecycleSpec::new(action);
            assert_eq!(settled(&spec, &vm(off), effect), Some(expected), "{action}");
        }
        let shutdown = LifecycleSpec::new(Lifecycle::Shutdown);
        assert_eq!(settled(&shutdown, &vm(DomainState::Running), Effect::Unknown), None);
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
    fn a_sleeping_guest_is_woken_destroyed_or_reset_and_nothing_else() {
        for (action, expected) in [
            (Lifecycle::Start, DryRun::NotRunning),
            (Lifecycle::Shutdown, DryRun::NotRunning),
            (Lifecycle::Reboot, DryRun::NotRunning),
            (Lifecycle::Suspend, DryRun::NotRunning),
            (Lifecycle::Resume, DryRun::Proceed),
            (Lifecycle::Reset, DryRun::Proceed),
            (Lifecycle::Destroy, DryRun::Proceed),
        ] {
            assert_eq!(dry_run(action, DomainState::PmSuspended), expected, "{action}");
        }
    }

    #[test]
    fn a_crashed_vm_that_was_kept_is_destroyed_or_reset_and_nothing_else() {
        for (action, expected) in [
            (Lifecycle::Start, DryRun::NotRunning),
            (Lifecycle::Shutdown, DryRun::NotRunning),
            (Lifecycle::Reboot, DryRun::NotRunning),
            (Lifecycle::Suspend, DryRun::NotRunning),
            (Lifecycle::Resume, DryRun::NotRunning),
            (Lifecycle::Reset, DryRun::Proceed),
            (Lifecycle::Destroy, DryRun::Proceed),
        ] {
            assert_eq!(dry_run(action, DomainState::Crashed), expected, "{action}");
        }
    }

    #[test]
    fn a_paused_vm_is_resumed_rather_than_started() {
        assert_eq!(dry_run(Lifecycle::Start, DomainState::Paused), DryRun::NotRunning);
        assert_eq!(dry_run(Lifecycle::Resume, DomainState::Paused), DryRun::Proceed);
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
        .filter(|&action| facts(&LifecycleSpec::new(action)).disruptive)
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
