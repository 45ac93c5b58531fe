//! What is known of a verb without carrying it out.

use atp_api::{DryRun, OutcomeError};
use atp_transport::domain::{DomainInfo, DomainState, StateReason};
use atp_transport::{ErrorKind, Hint, HostId};

use super::Operation;

/// The facts about a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerbFacts {
    /// The name in every outcome: `host-check`, `vm-list`, `vm-start`, `exec`, …
    pub name: &'static str,
    /// Whether it takes a running VM away from its users, so that a person is asked before it is done to several.
    pub disruptive: bool,
    /// Whether it only looks, so that it may be repeated after an end with unknown effect.
    pub only_looks: bool,
    /// The states in which a VM can be worked on.
    pub needs: Needs,
    /// The state in which there is nothing to do.
    pub unchanged_in: Option<DomainState>,
    /// Whether planning asks hosts for all that a listing can say. Other verbs need only names and states; everything
    /// else costs a round trip for each VM.
    pub full_listing: bool,
    /// Whether a request to stop the run ends it at once: nothing is lost with it, and it may take long.
    pub ends_on_stop: bool,
    /// Whether all targets are under way at once, whatever [`Policy::parallel`](atp_api::Policy::parallel) is: each takes all
    /// of its time, and a target that waits for its turn would miss what it is for.
    pub all_at_once: bool,
}

/// What a verb needs of its VM. A VM that does not have it is refused before anything is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: any VM will do.
    Nothing,
    /// A VM that is shut off.
    Off,
    /// A QEMU process: a VM that is not shut off. Its monitor answers when it is paused.
    Active,
    /// A guest that is not crashed or asleep, so that it will notice what is asked of it, if only when it is resumed.
    Alive,
    /// A guest that runs: any other would lose what is sent to it, or not answer.
    Running,
    /// A VM that is paused, or whose guest sleeps.
    Paused,
}

impl VerbFacts {
    /// A verb that may change a VM in any state.
    pub(super) const fn change(name: &'static str) -> Self {
        VerbFacts {
            name,
            disruptive: false,
            only_looks: false,
            needs: Needs::Nothing,
            unchanged_in: None,
            full_listing: false,
            ends_on_stop: false,
            all_at_once: false,
        }
    }

    /// A verb that only looks at a VM, in any state.
    pub(super) const fn look(name: &'static str) -> Self {
        VerbFacts { only_looks: true, ..VerbFacts::change(name) }
    }

    /// What the verb will do to a VM in this state.
    pub fn dry_run(&self, state: DomainState) -> DryRun {
        if self.unchanged_in.is_some_and(|goal| is_reached(goal, state)) {
            DryRun::Unchanged
        } else if self.needs.allow(state) {
            DryRun::Proceed
        } else {
            DryRun::NotRunning
        }
    }
}

impl Needs {
    /// Whether anything is sent to a VM in this state.
    pub(super) fn allow(self, state: DomainState) -> bool {
        match self {
            Needs::Nothing => true,
            Needs::Off => matches!(state, DomainState::ShutOff | DomainState::NoState),
            // Some drivers know no state of a domain that runs.
            _ if state == DomainState::NoState => true,
            Needs::Active => state != DomainState::ShutOff,
            Needs::Alive => Needs::Running.allow(state) || state == DomainState::Paused,
            Needs::Paused => matches!(state, DomainState::Paused | DomainState::PmSuspended),
            Needs::Running => state.is_running() || state == DomainState::ShuttingDown,
        }
    }
}

/// The error of a verb that is not carried out because of the VM's state.
pub(super) fn refusal(needs: Needs, host: &HostId, now: &DomainInfo) -> OutcomeError {
    let kind = if needs == Needs::Off { ErrorKind::OperationInvalid } else { ErrorKind::VmNotRunning };
    let hint = what_helps(now, kind);
    let what = if needs == Needs::Off { "is not shut off" } else { "is not running" };
    let message = format!("host {host}: VM {:?} {what}: {}", now.name, now.state_with_reason());
    OutcomeError::new(kind, message).with_hint(hint)
}

/// What a person can do about a VM that does not run, if an error of this kind says so.
pub(super) fn what_helps(now: &DomainInfo, kind: ErrorKind) -> Hint {
    match (now.state, now.reason) {
        // It may run elsewhere: nothing is advised that would start it twice.
        (DomainState::ShutOff, Some(StateReason::Migrated)) => Hint::FIND_VM,
        (DomainState::Paused, Some(StateReason::IoError)) => Hint::FREE_STORAGE,
        (DomainState::Paused, _) => Hint::RESUME_VM,
        (DomainState::PmSuspended, _) => Hint::WAKE_VM,
        (DomainState::Crashed, _) => Hint::DESTROY_OR_RESET_VM,
        (DomainState::ShuttingDown, _) => Hint::CHECK_VM_STATE,
        _ => kind.hint(),
    }
}

impl Operation {
    /// The name in every outcome: `host-check`, `vm-list`, `vm-start`, `exec`, …
    pub fn name(&self) -> &'static str {
        self.facts().name
    }

    /// Whether it takes a running VM away from its users, so that a person is asked before it is done to several.
    pub fn is_disruptive(&self) -> bool {
        self.facts().disruptive
    }

    /// Whether it only looks, so that it may be repeated after an end with unknown effect.
    pub fn only_looks(&self) -> bool {
        self.facts().only_looks
    }

    /// What it will do to a VM in this state.
    pub fn dry_run(&self, state: DomainState) -> DryRun {
        self.facts().dry_run(state)
    }
}

/// Whether a VM in this state is in the requested one.
pub(crate) fn is_reached(goal: DomainState, state: DomainState) -> bool {
    // A blocked domain waits for a resource (Xen). It counts as running.
    state == goal || (goal == DomainState::Running && state == DomainState::Blocked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_need_is_refused_in_the_states_that_do_not_have_it() {
        use DomainState::{Blocked, Crashed, Paused, PmSuspended, Running, ShutOff, ShuttingDown};
        for (needs, allowed) in [
            (Needs::Nothing, &[Running, Blocked, Paused, ShuttingDown, ShutOff, Crashed, PmSuspended][..]),
            (Needs::Off, &[ShutOff]),
            (Needs::Active, &[Running, Blocked, Paused, ShuttingDown, Crashed, PmSuspended]),
            (Needs::Alive, &[Running, Blocked, Paused, ShuttingDown]),
            (Needs::Paused, &[Paused, PmSuspended]),
            (Needs::Running, &[Running, Blocked, ShuttingDown]),
        ] {
            for state in [Running, Blocked, Paused, ShuttingDown, ShutOff, Crashed, PmSuspended] {
                assert_eq!(needs.allow(state), allowed.contains(&state), "{needs:?} when {state}");
            }
        }
    }

    #[test]
    fn a_vm_that_is_shut_off_can_be_listed() {
        assert_eq!(Operation::VmList.dry_run(DomainState::ShutOff), DryRun::Proceed);
        assert_eq!(Operation::VmInfo.dry_run(DomainState::ShutOff), DryRun::Proceed);
    }

    #[test]
    fn what_does_not_run_is_refused_with_what_helps() {
        let host = "h1".parse().unwrap();
        for (needs, state, reason, hint, message) in [
            (Needs::Running, DomainState::ShutOff, None, Hint::START_VM, "is not running: shut off"),
            (
                Needs::Running,
                DomainState::ShutOff,
                Some(StateReason::Migrated),
                Hint::FIND_VM,
                "is not running: shut off (migrated)",
            ),
            (
                Needs::Running,
                DomainState::Paused,
                Some(StateReason::User),
                Hint::RESUME_VM,
                "is not running: paused",
            ),
            (
                Needs::Running,
                DomainState::Paused,
                Some(StateReason::IoError),
                Hint::FREE_STORAGE,
                "is not running: paused (I/O error)",
            ),
            (Needs::Running, DomainState::PmSuspended, None, Hint::WAKE_VM, "is not running: pmsuspended"),
            (
                Needs::Off,
                DomainState::Crashed,
                Some(StateReason::Panicked),
                Hint::DESTROY_OR_RESET_VM,
                "is not shut off: crashed (panicked)",
            ),
        ] {
            let info = DomainInfo { reason, ..DomainInfo::new("vm", uuid::Uuid::nil(), state) };
            let error = refusal(needs, &host, &info);
            assert_eq!(error.hint, Some(hint), "{state}");
            assert_eq!(error.message, format!("host h1: VM \"vm\" {message}"));
        }
    }
}
