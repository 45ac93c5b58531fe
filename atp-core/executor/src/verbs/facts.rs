//! What is known of a verb without carrying it out.

use atp_transport::domain::DomainState;

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
    /// Whether a request to stop the run ends it at once as a step of a scenario: nothing is lost with it, and it may
    /// take long.
    pub ends_on_stop: bool,
}

/// What a verb needs of its VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: any VM will do.
    Nothing,
    /// A QEMU process: a VM that is not shut off. Its monitor answers when it is paused.
    Active,
    /// A guest that answers. A VM that was paused when it was listed is tried: it may have been resumed since.
    Guest,
    /// A guest that runs. A paused VM is refused before anything is sent: it would lose what is sent to it.
    Running,
}

/// What an operation will do to a VM, as far as the VM's state tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DryRun {
    /// It will be carried out.
    Proceed,
    /// The requested state is reached already: nothing will be sent.
    Unchanged,
    /// It needs a running VM: nothing will be sent.
    NotRunning,
}

impl VerbFacts {
    /// A verb that may change a VM, in whatever state that is.
    pub(super) const fn change(name: &'static str) -> Self {
        VerbFacts {
            name,
            disruptive: false,
            only_looks: false,
            needs: Needs::Nothing,
            unchanged_in: None,
            full_listing: false,
            ends_on_stop: false,
        }
    }

    /// A verb that only looks, at a VM in whatever state.
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
            Needs::Active | Needs::Guest => state != DomainState::ShutOff,
            Needs::Running => !matches!(state, DomainState::ShutOff | DomainState::Paused),
        }
    }

    /// Whether a VM in this state can answer at all.
    pub(super) fn can_answer(self, state: DomainState) -> bool {
        match self {
            Needs::Nothing => true,
            Needs::Active => state.is_active(),
            Needs::Guest | Needs::Running => {
                state.is_active() && !matches!(state, DomainState::Paused | DomainState::PmSuspended)
            }
        }
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
    fn a_paused_vm_has_a_monitor_and_no_agent() {
        assert!(Needs::Active.can_answer(DomainState::Paused));
        assert!(!Needs::Guest.can_answer(DomainState::Paused));
        assert!(!Needs::Active.can_answer(DomainState::ShutOff));
        assert!(Needs::Guest.can_answer(DomainState::Running));
    }

    #[test]
    fn a_vm_that_is_shut_off_can_be_listed_only() {
        assert_eq!(Operation::VmList.dry_run(DomainState::ShutOff), DryRun::Proceed);
        assert_eq!(Operation::VmInfo.dry_run(DomainState::ShutOff), DryRun::Proceed);
        for needs in [Needs::Active, Needs::Guest, Needs::Running] {
            assert!(!needs.allow(DomainState::ShutOff));
        }
    }

    #[test]
    fn only_input_to_the_guest_is_refused_for_a_paused_vm() {
        assert!(Needs::Active.allow(DomainState::Paused) && Needs::Guest.allow(DomainState::Paused));
        assert!(!Needs::Running.allow(DomainState::Paused));
    }
}
