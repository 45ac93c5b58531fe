//! What the user can try after an error.

use atp_transport::{ErrorKind, Hint};

use super::ProtocolError;
use crate::peer::Peer;
use crate::windows::POWERSHELL;

impl ProtocolError {
    /// What the user can try.
    pub fn hint(&self) -> Hint {
        let text = match self {
            ProtocolError::Transport(error) => return error.hint(),
            ProtocolError::InvalidCommand { .. } => "correct the command",
            ProtocolError::CommandTooLarge { .. } => return Hint::COPY_INPUT,
            ProtocolError::Timeout { .. } => {
                "check whether the VM hangs (`virsh domcontrol`), or allow more time"
            }
            ProtocolError::NoChannel { .. } => {
                "QEMU's monitor and the guest agent have separate sockets: connect to this one too"
            }
            #[cfg(feature = "sockets")]
            ProtocolError::LinkLost { .. } => {
                "QEMU ended, or its socket was given to another client; check before repeating the command"
            }
            ProtocolError::AgentSilent | ProtocolError::VmSilent { .. } => {
                return ErrorKind::AgentUnresponsive.hint();
            }
            ProtocolError::NotReachedAgain { .. } => return ErrorKind::ConnectionLost.hint(),
            ProtocolError::GuestBooting { .. } => return Hint::WAIT_FOR_AGENT,
            ProtocolError::Refused(refusal) => return refusal.hint(),
            ProtocolError::ExecFailed { reason, .. } if is_exhausted(reason) => {
                "the guest has no room for another process: it is out of processes or memory, or its agent may start no more \
                 (TasksMax of qemu-guest-agent.service). Look at its console, and end what fills it, or reset the VM"
            }
            ProtocolError::ExecFailed { .. } => return Hint::CHECK_PROGRAM,
            ProtocolError::NoShell { is_windows: false, shell: POWERSHELL, .. } => {
                "a path with a drive letter is one of a Windows guest: name an absolute path of this one"
            }
            ProtocolError::NoShell { .. } => return Hint::NO_SHELL,
            ProtocolError::OutputTooLarge { channel_lost: true, .. } => {
                "libvirt no longer uses its channel to this agent: restart qemu-guest-agent in the guest, or reset the \
                 VM; then let the command write to a file in the guest"
            }
            ProtocolError::OutputTooLarge { peer: Peer::Agent, .. } => return Hint::SPOOL_OUTPUT,
            ProtocolError::OutputTooLarge { peer: Peer::Monitor, .. } => "request less data at once",
            ProtocolError::InvalidReply { .. } => "check the VM's state before repeating the command",
            ProtocolError::StillRunning { .. } => {
                "look for the process in the guest, or allow more time; a background process keeps the output open: \
                 redirect its output (`>/dev/null 2>&1 &`)"
            }
            ProtocolError::ProcessLost { .. } => return Hint::CHECK_PROCESS,
            // After a program was started, the cause cannot be an agent that is not installed.
            ProtocolError::ResultLost { source, .. }
                if matches!(
                    source.transport_kind(),
                    Some(ErrorKind::AgentNotConnected | ErrorKind::AgentGone)
                ) || matches!(**source, ProtocolError::GuestBooting { .. }) =>
            {
                return Hint::AGENT_MEMORY;
            }
            ProtocolError::ResultLost { source, .. }
            | ProtocolError::OutputLost { source, .. }
            | ProtocolError::InputIncomplete { source, .. } => return source.hint(),
            ProtocolError::ThawedEarly { .. } => {
                "a copy made during the freeze may be inconsistent: do less at once"
            }
            ProtocolError::NotThawed { .. } => return Hint::THAW,
            ProtocolError::File(error) => return error.hint(),
            ProtocolError::ImageTooLarge { .. } => "allow more, or lower the resolution in the guest",
            ProtocolError::InvalidImage { .. } => {
                "the VM may have stopped during the screenshot, or its hypervisor uses another image format"
            }
        };
        Hint::plain(text)
    }
}

/// Whether the guest could not start a program because it has too little of something, which may pass. The agent reports no
/// number, but the system's words for it at the end, in English: it chooses no language.
pub(super) fn is_exhausted(reason: &str) -> bool {
    ["(Resource temporarily unavailable)", "(Cannot allocate memory)", "(Too many open files)"]
        .iter()
        .any(|words| reason.ends_with(words))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use atp_transport::{LibvirtError, TransportError};

    use super::*;

    #[test]
    fn an_agent_that_ends_under_a_program_may_have_run_out_of_memory() {
        let libvirt = |kind| TransportError::Libvirt {
            host: "h1".parse().unwrap(),
            operation: "virDomainQemuAgentCommand",
            kind,
            source: LibvirtError { code: 86, domain: 10, level: 2, message: "m".into() },
        };
        let lost =
            |source| ProtocolError::ResultLost { program: "p".into(), pid: 1, source: Box::new(source) };
        for source in [
            ProtocolError::Transport(libvirt(ErrorKind::AgentNotConnected)),
            ProtocolError::Transport(libvirt(ErrorKind::AgentGone)),
            ProtocolError::GuestBooting {
                cpu_time: Duration::ZERO,
                source: Box::new(libvirt(ErrorKind::AgentNotConnected)),
            },
        ] {
            assert_eq!(lost(source.clone()).hint(), Hint::AGENT_MEMORY, "{source}");
            assert_ne!(source.hint(), Hint::AGENT_MEMORY, "{source}");
        }
        assert_ne!(lost(ProtocolError::AgentSilent).hint(), Hint::AGENT_MEMORY);
    }
    #[test]
    fn a_guest_without_room_for_a_process_is_not_blamed_for_the_programs_path() {
        let failed = |reason: &str| ProtocolError::ExecFailed {
            program: "p".into(),
            reason: reason.into(),
            libvirt: None,
        };
        for reason in
            ["Failed to fork (Resource temporarily unavailable)", "Failed to fork (Cannot allocate memory)"]
        {
            assert!(failed(reason).hint().contains("no room"), "{reason}");
            assert!(failed(reason).is_retryable(), "{reason}");
        }
        let absent = "Failed to execute child process “(Cannot allocate memory)” (No such file or directory)";
        assert_eq!(failed(absent).hint(), Hint::CHECK_PROGRAM);
        assert!(!failed(absent).is_retryable());
    }
}
