//! What is done to each target.

use std::fmt;
use std::sync::Arc;

use atp_protocol::{ExecSpec, RawCommand};
use atp_transport::domain::{DomainState, Lifecycle};

use crate::copy::{PullSpec, PushSpec};
use crate::input::{KeySpec, MouseSpec};
use crate::scenario::Scenario;
use crate::screenshot::ScreenshotSpec;

/// One operation, the same for every target of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Connect to the host and ask what it is. The targets are hosts, not VMs.
    HostCheck,
    /// Go the way to the host's daemon and find what is wrong on it. The targets are hosts, not VMs.
    DiagnoseHost,
    /// Find what is wrong between the host and the VM's guest agent.
    DiagnoseAgent,
    /// Report what the listing of the host says of the VM; nothing more is asked.
    VmList,
    /// Ask for everything known of the VM.
    VmInfo,
    /// Change the VM's state.
    Lifecycle {
        /// The change.
        action: Lifecycle,
        /// Whether the operation ends only when the state is reached (see [`Operation::goal`]), or the
        /// target's deadline has passed.
        wait: bool,
    },
    /// Run a process in the guest.
    Exec(ExecSpec),
    /// Copy a file into the guest.
    Push(PushSpec),
    /// Copy a file out of the guest.
    Pull(PullSpec),
    /// Wait until something is true of the VM, or its deadline has passed.
    Wait(Condition),
    /// Send one command to QEMU's monitor.
    Qmp(RawCommand),
    /// Send one command to the guest agent.
    Qga(RawCommand),
    /// Press keys.
    Key(KeySpec),
    /// Type a text.
    Type(KeySpec),
    /// Do something with the mouse.
    Mouse(MouseSpec),
    /// Take a picture of the screen.
    Screenshot(ScreenshotSpec),
    /// Go through the steps of a scenario.
    Scenario(Arc<Scenario>),
}

/// What can be waited for.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// The guest's agent answers.
    Agent,
    /// The VM is in this state.
    State(DomainState),
    /// This program, run in the guest over and over, ends with exit code 0.
    Exec(ExecSpec),
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Agent => f.write_str("its agent to answer"),
            Condition::State(state) => write!(f, "the state {state:?}", state = state.as_str()),
            Condition::Exec(spec) => write!(f, "{:?} to end with exit code 0", spec.program),
        }
    }
}

/// What an operation will do to a VM, told from the VM's state alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DryRun {
    /// It will be carried out.
    Proceed,
    /// The state asked for is reached already: nothing will be sent.
    Unchanged,
    /// It needs a VM that is running: nothing will be sent.
    NotRunning,
}

impl Operation {
    /// The name in every outcome: `host-check`, `vm-list`, `vm-start`, `exec`, …
    pub fn name(&self) -> &'static str {
        match self {
            Operation::HostCheck => "host-check",
            Operation::DiagnoseHost | Operation::DiagnoseAgent => "doctor",
            Operation::VmList => "vm-list",
            Operation::VmInfo => "vm-info",
            Operation::Lifecycle { action, .. } => match action {
                Lifecycle::Start => "vm-start",
                Lifecycle::Shutdown => "vm-shutdown",
                Lifecycle::Reboot => "vm-reboot",
                Lifecycle::Reset => "vm-reset",
                Lifecycle::Destroy => "vm-destroy",
                Lifecycle::Suspend => "vm-suspend",
                Lifecycle::Resume => "vm-resume",
            },
            Operation::Exec(_) => "exec",
            Operation::Push(_) | Operation::Pull(_) => "cp",
            Operation::Wait(_) => "wait",
            Operation::Qmp(_) => "qmp",
            Operation::Qga(_) => "qga",
            Operation::Key(_) => "key",
            Operation::Type(_) => "type",
            Operation::Mouse(_) => "mouse",
            Operation::Screenshot(_) => "screenshot",
            Operation::Scenario(_) => "run",
        }
    }

    /// Whether its targets are hosts, and not VMs.
    pub fn is_for_hosts(&self) -> bool {
        matches!(self, Operation::HostCheck | Operation::DiagnoseHost)
    }

    /// The same over so many targets: files of several VMs do not go to one place.
    pub(crate) fn over(self, targets: usize) -> Self {
        let separate = self.is_separate() || targets > 1;
        self.separated(separate)
    }

    /// Whether each VM's files have a place of their own.
    pub(crate) fn is_separate(&self) -> bool {
        matches!(self, Operation::Pull(pull) if pull.separate)
    }

    /// The same with each VM's files in a place of their own, or not so.
    pub(crate) fn separated(self, separate: bool) -> Self {
        match self {
            Operation::Pull(pull) => Operation::Pull(PullSpec { separate, ..pull }),
            other => other,
        }
    }

    /// Whether it takes a running VM away from its users, so that a person is asked before it is done to
    /// several.
    pub fn is_disruptive(&self) -> bool {
        match self {
            Operation::Lifecycle { action, .. } => matches!(
                action,
                Lifecycle::Shutdown
                    | Lifecycle::Reboot
                    | Lifecycle::Reset
                    | Lifecycle::Destroy
                    | Lifecycle::Suspend
            ),
            Operation::Scenario(scenario) => scenario.is_disruptive(),
            _ => false,
        }
    }

    /// Whether it only looks, so that doing it again after an unknown end does no harm.
    pub fn only_looks(&self) -> bool {
        match self {
            Operation::HostCheck | Operation::DiagnoseHost | Operation::DiagnoseAgent => true,
            Operation::VmList | Operation::VmInfo | Operation::Screenshot(_) => true,
            Operation::Wait(condition) => !matches!(condition, Condition::Exec(_)),
            Operation::Scenario(scenario) => scenario.only_looks(),
            _ => false,
        }
    }

    /// The state a lifecycle operation leads to; none for the others.
    ///
    /// A restart (`reboot`, `reset`) leads to `running`. libvirt shows a guest that restarts as running all the while, so
    /// who waits for one waits until the VM has restarted and its agent, if it has one, answers. Of hypervisors other
    /// than QEMU, which may not tell of restarts, only the state is waited for.
    pub fn goal(&self) -> Option<DomainState> {
        let Operation::Lifecycle { action, .. } = self else { return None };
        Some(match action {
            Lifecycle::Start | Lifecycle::Resume | Lifecycle::Reboot | Lifecycle::Reset => {
                DomainState::Running
            }
            Lifecycle::Shutdown | Lifecycle::Destroy => DomainState::ShutOff,
            Lifecycle::Suspend => DomainState::Paused,
        })
    }

    /// What it will do to a VM in this state.
    pub fn dry_run(&self, state: DomainState) -> DryRun {
        let needs_running = match self {
            Operation::HostCheck | Operation::DiagnoseHost | Operation::DiagnoseAgent => false,
            Operation::VmList | Operation::VmInfo | Operation::Wait(_) | Operation::Scenario(_) => false,
            Operation::Exec(_) | Operation::Qmp(_) | Operation::Qga(_) => true,
            Operation::Push(_) | Operation::Pull(_) | Operation::Screenshot(_) => true,
            Operation::Key(_) | Operation::Type(_) | Operation::Mouse(_) if state == DomainState::Paused => {
                return DryRun::NotRunning;
            }
            Operation::Key(_) | Operation::Type(_) | Operation::Mouse(_) => true,
            // Asks the guest, which hears nothing.
            Operation::Lifecycle { action: Lifecycle::Reboot, .. } if state == DomainState::Paused => {
                return DryRun::NotRunning;
            }
            Operation::Lifecycle { action: Lifecycle::Reboot | Lifecycle::Reset, .. } => true,
            Operation::Lifecycle { action, .. } => {
                if self.goal().is_some_and(|goal| reached(goal, state)) {
                    return DryRun::Unchanged;
                }
                matches!(action, Lifecycle::Suspend | Lifecycle::Resume)
            }
        };
        if needs_running && state == DomainState::ShutOff { DryRun::NotRunning } else { DryRun::Proceed }
    }
}

/// Whether a VM in this state is where a lifecycle operation was to lead it.
pub(crate) fn reached(goal: DomainState, state: DomainState) -> bool {
    // A blocked domain waits for a resource (Xen); it runs all the same.
    state == goal || (goal == DomainState::Running && state == DomainState::Blocked)
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifecycle(action: Lifecycle) -> Operation {
        Operation::Lifecycle { action, wait: false }
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
            assert_eq!(lifecycle(action).dry_run(state), DryRun::Unchanged, "{action} when {state}");
        }
    }

    #[test]
    fn a_restart_is_never_unchanged() {
        for action in [Lifecycle::Reboot, Lifecycle::Reset] {
            assert_eq!(lifecycle(action).dry_run(DomainState::Running), DryRun::Proceed);
            assert_eq!(lifecycle(action).dry_run(DomainState::ShutOff), DryRun::NotRunning);
        }
    }

    #[test]
    fn a_paused_guest_cannot_be_asked_to_restart() {
        assert_eq!(lifecycle(Lifecycle::Reboot).dry_run(DomainState::Paused), DryRun::NotRunning);
        assert_eq!(lifecycle(Lifecycle::Reset).dry_run(DomainState::Paused), DryRun::Proceed);
    }

    #[test]
    fn a_vm_that_is_shut_off_can_be_started_and_listed_only() {
        assert_eq!(lifecycle(Lifecycle::Start).dry_run(DomainState::ShutOff), DryRun::Proceed);
        assert_eq!(Operation::VmList.dry_run(DomainState::ShutOff), DryRun::Proceed);
        assert_eq!(Operation::VmInfo.dry_run(DomainState::ShutOff), DryRun::Proceed);
        assert_eq!(lifecycle(Lifecycle::Suspend).dry_run(DomainState::ShutOff), DryRun::NotRunning);
        assert_eq!(lifecycle(Lifecycle::Resume).dry_run(DomainState::ShutOff), DryRun::NotRunning);
    }

    #[test]
    fn what_takes_a_vm_away_asks_first() {
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
        .filter(|&action| lifecycle(action).is_disruptive())
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
