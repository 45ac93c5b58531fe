//! What a person can try.

use atp_transport::ErrorKind;

use super::ProtocolError;
use crate::peer::Peer;

impl ProtocolError {
    /// What a person can try.
    pub fn hint(&self) -> &str {
        match self {
            ProtocolError::Transport(error) => error.hint(),
            ProtocolError::InvalidCommand { .. } => "correct the command",
            ProtocolError::CommandTooLarge { .. } => {
                "send less at once: standard input travels inside the command and grows by a third; copy more than \
                 that into a file in the guest (`atp cp`), and let the command read it there"
            }
            ProtocolError::Timeout { .. } => {
                "look whether the VM hangs (`virsh domcontrol`), or give more time"
            }
            ProtocolError::NoChannel { .. } => {
                "QEMU's monitor and the guest agent have a socket each: connect to that one too"
            }
            ProtocolError::LinkLost { .. } => {
                "QEMU ended, or its socket was given to another client; check before repeating the command"
            }
            ProtocolError::AgentSilent => ErrorKind::AgentUnresponsive.hint(),
            ProtocolError::GuestBooting { .. } => {
                "wait for the guest to come up (`atp wait SEL --for agent`), or look at its console"
            }
            ProtocolError::Refused(refusal) => refusal.hint(),
            ProtocolError::ExecFailed { .. } => {
                "check in the guest what the reason names: the program, its path and that it may be executed; the \
                 folders of --cwd and --spool have to be there already"
            }
            ProtocolError::NoShell { .. } => {
                "run programs by themselves, without --shell, --cwd and --spool (on Windows `-- powershell.exe -Command …`); \
                 files go there over the network, or with the agent's own commands (`atp qga SEL -- guest-file-open …`)"
            }
            ProtocolError::OutputTooLarge { channel_lost: true, .. } => {
                "libvirt has given up the peer to this agent: restart qemu-guest-agent in the guest, or reset the \
                 VM; then let the command write to a file in the guest"
            }
            ProtocolError::OutputTooLarge { peer: Peer::Agent, .. } => {
                "let its output go through files in the guest (`--spool`), let it write to a file there, or print less"
            }
            ProtocolError::OutputTooLarge { peer: Peer::Monitor, .. } => "ask for less at once",
            ProtocolError::InvalidReply { .. } => {
                "check what state the VM is in before repeating the command"
            }
            ProtocolError::StillRunning { .. } => {
                "look for the process in the guest, or give more time; what a program leaves running keeps its output open: \
                 send that elsewhere (`>/dev/null 2>&1 &`)"
            }
            ProtocolError::ProcessLost { .. } => {
                "the agent or the guest was restarted, or another client took the result: check in the guest what was \
                 done; if it prints much, let that go through files (`--spool`), for the agent keeps it in memory"
            }
            // Found once a program ran, this is no agent that was never installed.
            ProtocolError::ResultLost { source, .. }
                if matches!(
                    source.transport_kind(),
                    Some(ErrorKind::AgentNotConnected | ErrorKind::AgentGone)
                ) || matches!(**source, ProtocolError::GuestBooting { .. }) =>
            {
                "the agent ended while the program ran: check in the guest what was done. An agent keeps all that a \
                 program prints in memory, and may be killed for it: let much output go through files (`--spool`)"
            }
            ProtocolError::ResultLost { source, .. }
            | ProtocolError::OutputLost { source, .. }
            | ProtocolError::InputIncomplete { source, .. } => source.hint(),
            ProtocolError::ThawedEarly { .. } => {
                "what was copied meanwhile may not be consistent: do less at once"
            }
            ProtocolError::NotThawed { .. } => {
                "they may be frozen still: thaw them (`atp qga SEL -- guest-fsfreeze-thaw`), or reset the VM"
            }
            ProtocolError::File(error) => error.hint(),
            ProtocolError::ImageTooLarge { .. } => "allow more, or lower the resolution in the guest",
            ProtocolError::InvalidImage { .. } => {
                "the VM may have stopped meanwhile, or its hypervisor makes pictures of another kind"
            }
        }
    }
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
            assert!(lost(source.clone()).hint().contains("--spool"), "{source}");
            assert!(!source.hint().contains("--spool"), "{source}");
        }
        assert!(!lost(ProtocolError::AgentSilent).hint().contains("--spool"));
    }
}
