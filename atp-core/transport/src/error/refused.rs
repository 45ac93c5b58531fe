//! Which of libvirt's errors say that nothing was done.

use super::{ErrorKind, LibvirtError};
use crate::domain::error_numbers::{
    CONFIG_UNSUPPORTED, INVALID_ARG, INVALID_DOMAIN, NO_DOMAIN_METADATA, XML_ERROR,
};

/// What was asked for cannot be asked for.
const INVALID_REQUEST: [u32; 5] =
    [INVALID_DOMAIN, INVALID_ARG, XML_ERROR, CONFIG_UNSUPPORTED, NO_DOMAIN_METADATA];

/// An error reply of QEMU to a command of libvirt's own. The daemon may speak another language than English, and then the
/// effect is unknown, which is safe.
const QMP_ERROR_REPLY: &str = "unable to execute QEMU command '";

/// Newer libvirt says so when the silence of the agent came before the command.
const NOT_SYNCHRONISED: &str = "didn't respond to synchronization";

/// Whether an error of libvirt is on the list of those that are raised before anything happened. Any other may have come
/// after the command had taken effect: the agent's channel or QEMU's monitor broke, a process did not end on its
/// SIGKILL in time, a reply could not be read.
pub(super) fn was_refused(operation: &str, kind: ErrorKind, error: &LibvirtError) -> bool {
    // libvirt sends SIGKILL before it takes the VM's lock, and asks the agent to shut down before it presses the button.
    let acts_first = ["virDomainDestroy", "virDomainShutdown", "virDomainReboot"].contains(&operation);
    match kind {
        ErrorKind::MonitorBusy | ErrorKind::AgentBusy if acts_first => false,
        ErrorKind::VmNotFound
        | ErrorKind::VmNotRunning
        | ErrorKind::OperationInvalid
        | ErrorKind::AgentNotConfigured
        | ErrorKind::AgentNotConnected
        | ErrorKind::AgentBroken
        // The job that the command needs was not to be had.
        | ErrorKind::MonitorBusy
        | ErrorKind::AgentBusy
        | ErrorKind::ChannelInUse
        | ErrorKind::NoScreen
        | ErrorKind::AccessDenied
        | ErrorKind::NotSupported => true,
        ErrorKind::AgentUnresponsive => error.message.contains(NOT_SYNCHRONISED),
        ErrorKind::LibvirtError => {
            INVALID_REQUEST.contains(&error.code)
                || error.message.contains(QMP_ERROR_REPLY)
                // A start that fails is undone by libvirt: the domain is shut off again.
                || operation == "virDomainCreate"
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Effect, TransportError};

    fn effect(operation: &'static str, kind: ErrorKind, code: u32, message: &str) -> Effect {
        let source = LibvirtError { code, domain: 10, level: 2, message: message.to_owned() };
        TransportError::Libvirt { host: "h1".parse().unwrap(), operation, kind, source }.effect()
    }

    #[test]
    fn an_agent_command_under_which_the_channel_broke_may_have_had_its_effect() {
        for (code, message) in [
            (1, "internal error: End of file from agent socket"),
            (1, "internal error: Error while processing agent IO"),
            (38, "Unable to read from agent: Connection reset by peer"),
            (38, "Kanal zum Agenten kann nicht gelesen werden: Verbindung zurückgesetzt"),
            (1, "internal error: cannot parse json '{': parse error: premature EOF"),
        ] {
            let effect = effect("virDomainQemuAgentCommand", ErrorKind::LibvirtError, code, message);
            assert_eq!(effect, Effect::Unknown, "{message}");
        }
    }

    #[test]
    fn a_destroy_that_fails_after_sigkill_may_have_had_its_effect() {
        let message = "Failed to terminate process 4242 with SIGKILL: Device or resource busy";
        assert_eq!(effect("virDomainDestroy", ErrorKind::LibvirtError, 38, message), Effect::Unknown);
        let busy =
            "cannot acquire state change lock (held by monitor=remoteDispatchDomainQemuMonitorCommand)";
        assert_eq!(effect("virDomainDestroy", ErrorKind::MonitorBusy, 68, busy), Effect::Unknown);
    }

    #[test]
    fn a_monitor_command_under_which_qemu_ended_may_have_had_its_effect() {
        for (message, expected) in [
            ("internal error: End of file from qemu monitor", Effect::Unknown),
            ("internal error: End of file from qemu monitor (vm='web-1')", Effect::Unknown),
            ("Unable to read from monitor: Connection reset by peer", Effect::Unknown),
            ("operation failed: domain is no longer running", Effect::Unknown),
            ("internal error: unable to execute QEMU command 'eject': no", Effect::None),
        ] {
            let effect = effect("virDomainQemuMonitorCommand", ErrorKind::LibvirtError, 1, message);
            assert_eq!(effect, expected, "{message}");
        }
    }

    #[test]
    fn what_is_refused_had_no_effect() {
        for (operation, kind, code, message) in [
            (
                "virDomainCreate",
                ErrorKind::LibvirtError,
                1,
                "qemu unexpectedly closed the monitor: no such disk",
            ),
            ("virDomainReset", ErrorKind::OperationInvalid, 55, "domain is not running"),
            ("virDomainShutdown", ErrorKind::LibvirtError, 8, "invalid argument: unsupported flags"),
            ("virDomainQemuAgentCommand", ErrorKind::AgentBusy, 68, "cannot acquire state change lock"),
            (
                "virDomainQemuAgentCommand",
                ErrorKind::AgentUnresponsive,
                86,
                "Guest agent is not responding: Guest agent didn't respond to synchronization within '5' seconds",
            ),
        ] {
            assert_eq!(effect(operation, kind, code, message), Effect::None, "{message}");
        }
    }
}
