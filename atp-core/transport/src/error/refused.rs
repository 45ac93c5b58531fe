//! Which of libvirt's errors say that nothing was done.

use super::libvirt::AGENT_COMMAND;
use super::phrase::AGENT_NOT_SYNCHRONISED;
use super::{ErrorKind, LibvirtError};
use crate::domain::Lifecycle;
use crate::domain::error_numbers::{
    AGENT_UNSYNCED, CONFIG_UNSUPPORTED, FROM_QEMU, FROM_RPC, INVALID_ARG, INVALID_DOMAIN, NO_DOMAIN_METADATA,
    OPERATION_FAILED, SNAPSHOT_REVERT_RISKY, SYSTEM_ERROR, XML_ERROR,
};

/// What was asked for cannot be asked for.
const INVALID_REQUEST: [u32; 2] = [INVALID_DOMAIN, INVALID_ARG];

/// The same, of calls that do not act before they look at the VM.
const INVALID_DEFINITION: [u32; 3] = [XML_ERROR, CONFIG_UNSUPPORTED, NO_DOMAIN_METADATA];

/// Calls that act before they take the VM's lock and look at its state. Destroying sends SIGKILL first. The other two ask
/// the guest agent first, if there is one, and then press the power button: what they report of the lock, the state or
/// QEMU is about the button.
const ACT_FIRST: [&str; 3] =
    [Lifecycle::Destroy.function(), Lifecycle::Shutdown.function(), Lifecycle::Reboot.function()];

/// Calls that are one command to QEMU: if QEMU refuses it, nothing was done.
const ONE_QEMU_COMMAND: [&str; 6] = [
    Lifecycle::Suspend.function(),
    Lifecycle::Resume.function(),
    Lifecycle::Reset.function(),
    "virDomainQemuMonitorCommand",
    "virDomainScreenshot",
    "virDomainInjectNMI",
];

/// Ends the domain's process, and starts another one from the snapshot: what it reports of a state may be that of the second.
const REVERT: &str = "virDomainRevertToSnapshot";

/// Whether an error of libvirt is on the list of those that are raised before anything happened. Any other may have come
/// after the command had taken effect: the agent's channel or QEMU's monitor broke, a process did not end on its
/// SIGKILL in time, a reply could not be read.
pub(super) fn was_refused(operation: &str, kind: ErrorKind, error: &LibvirtError) -> bool {
    if operation == Lifecycle::Start.function() {
        // libvirt undoes a start that fails: the domain is shut off again. But its guest may have run before that, if the
        // daemon could not read from the monitor (a system error), or found the domain not running any more (a failed
        // operation), or the monitor ended.
        // A reply that cannot be read says nothing of the start; arguments that cannot be written were not sent.
        let is_ours = error.domain == FROM_RPC && error.code != INVALID_ARG;
        return !is_ours
            && error.code != OPERATION_FAILED
            && (error.code, error.domain) != (SYSTEM_ERROR, FROM_QEMU)
            && !error.is_end_of_qemu();
    }
    match kind {
        ErrorKind::VmNotFound | ErrorKind::AccessDenied | ErrorKind::NotSupported => true,
        ErrorKind::SnapshotNotFound => true,
        _ if INVALID_REQUEST.contains(&error.code) => true,
        // The job that it needs was not to be had, or it was found to need force.
        _ if operation == REVERT => kind == ErrorKind::MonitorBusy || error.code == SNAPSHOT_REVERT_RISKY,
        _ if ACT_FIRST.contains(&operation) => false,
        ErrorKind::VmNotRunning
        | ErrorKind::OperationInvalid
        | ErrorKind::AgentNotConfigured
        | ErrorKind::AgentNotConnected
        | ErrorKind::AgentBroken
        // The job that the command needs was not to be had.
        | ErrorKind::MonitorBusy
        | ErrorKind::AgentBusy
        | ErrorKind::ChannelInUse
        | ErrorKind::NoScreen => true,
        ErrorKind::AgentUnresponsive => {
            error.code == AGENT_UNSYNCED || AGENT_NOT_SYNCHRONISED.is_in(&error.message)
        }
        ErrorKind::LibvirtError => {
            INVALID_DEFINITION.contains(&error.code)
                || operation == AGENT_COMMAND && error.agent_refusal().is_some()
                || ONE_QEMU_COMMAND.contains(&operation) && error.qemu_refusal().is_some()
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
            // A reply that is neither a result nor an error.
            (1, "internal error: unable to execute QEMU agent command 'guest-exec'"),
            // An error may quote what the guest sent.
            (1, "internal error: Unknown JSON reply 'unable to execute QEMU agent command 'x': no'"),
            (38, "unable to execute QEMU agent command 'guest-exec': no"),
        ] {
            let effect = effect("virDomainQemuAgentCommand", ErrorKind::LibvirtError, code, message);
            assert_eq!(effect, Effect::Unknown, "{message}");
        }
    }

    #[test]
    fn a_call_that_acts_first_may_have_acted_whatever_it_reports_of_a_lock_a_state_or_qemu() {
        let not_killed = (
            ErrorKind::LibvirtError,
            38,
            "Failed to terminate process 4242 with SIGKILL: Device or resource busy",
        );
        let locked = (ErrorKind::MonitorBusy, 68, "cannot acquire state change lock (held by monitor=a)");
        let stopped = (ErrorKind::VmNotRunning, 55, "domain is not running");
        let refused = (
            ErrorKind::LibvirtError,
            1,
            "internal error: unable to execute QEMU command 'system_powerdown': no",
        );
        let missing = (ErrorKind::VmNotFound, 42, "Domain not found");
        let forbidden = (ErrorKind::AccessDenied, 88, "access denied");
        for (action, (kind, code, message), expected) in [
            (Lifecycle::Destroy, not_killed, Effect::Unknown),
            (Lifecycle::Destroy, locked, Effect::Unknown),
            (Lifecycle::Destroy, stopped, Effect::Unknown),
            (Lifecycle::Destroy, missing, Effect::None),
            (Lifecycle::Destroy, forbidden, Effect::None),
            (Lifecycle::Shutdown, locked, Effect::Unknown),
            (Lifecycle::Shutdown, stopped, Effect::Unknown),
            (Lifecycle::Shutdown, refused, Effect::Unknown),
            (Lifecycle::Reboot, stopped, Effect::Unknown),
            (Lifecycle::Reboot, refused, Effect::Unknown),
            (Lifecycle::Reboot, missing, Effect::None),
            (Lifecycle::Suspend, locked, Effect::None),
            (Lifecycle::Suspend, stopped, Effect::None),
            (Lifecycle::Suspend, refused, Effect::None),
            (Lifecycle::Start, locked, Effect::None),
        ] {
            assert_eq!(effect(action.function(), kind, code, message), expected, "{action}: {message}");
        }
    }

    #[test]
    fn a_revert_that_was_begun_may_have_ended_the_vm_whatever_it_reports() {
        for (kind, code, expected) in [
            (ErrorKind::SnapshotNotFound, 72, Effect::None),
            (ErrorKind::MonitorBusy, 68, Effect::None),
            (ErrorKind::LibvirtError, 93, Effect::None),
            (ErrorKind::OperationInvalid, 55, Effect::Unknown),
            (ErrorKind::LibvirtError, 67, Effect::Unknown),
            (ErrorKind::LibvirtError, 1, Effect::Unknown),
        ] {
            assert_eq!(effect("virDomainRevertToSnapshot", kind, code, "no"), expected, "{code}");
        }
    }

    #[test]
    fn a_refused_command_of_a_call_that_may_be_many_says_little() {
        let message = "internal error: unable to execute QEMU command 'device_add': no";
        assert_eq!(effect("virDomainSetVcpus", ErrorKind::LibvirtError, 1, message), Effect::Unknown);
    }

    #[test]
    fn a_monitor_command_under_which_qemu_ended_may_have_had_its_effect() {
        for (message, expected) in [
            ("internal error: End of file from qemu monitor", Effect::Unknown),
            ("internal error: End of file from qemu monitor (vm='web-1')", Effect::Unknown),
            ("Unable to read from monitor: Connection reset by peer", Effect::Unknown),
            ("operation failed: domain is no longer running", Effect::Unknown),
            ("internal error: unable to execute QEMU command 'eject': no", Effect::None),
            (
                "internal error: Unknown JSON reply 'unable to execute QEMU command 'eject': no'",
                Effect::Unknown,
            ),
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
            (
                "virDomainQemuAgentCommand",
                ErrorKind::LibvirtError,
                1,
                "internal error: unable to execute QEMU agent command 'guest-exec': no such program",
            ),
            (
                "virDomainQemuAgentCommand",
                ErrorKind::LibvirtError,
                113,
                "guest agent command failed: unable to execute QEMU agent command 'guest-exec': no",
            ),
            (
                "virDomainQemuAgentCommand",
                ErrorKind::AgentUnresponsive,
                97,
                "guest agent replied with wrong id to guest-sync command",
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

    #[test]
    fn a_start_whose_guest_ran_may_have_had_its_effect() {
        for (code, message) in [
            (1, "internal error: End of file from qemu monitor"),
            (1, "内部エラー: qemu モニターからのファイルの終了 (vm='web-1')"),
            (9, "Operation fehlgeschlagen: Domain läuft nicht mehr"),
            (38, "Не удалось выполнить чтение из монитора: Connection reset by peer"),
        ] {
            assert_eq!(effect("virDomainCreate", ErrorKind::LibvirtError, code, message), Effect::Unknown);
        }
    }
}
