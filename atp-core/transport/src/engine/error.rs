//! Classification of libvirt's errors.
//!
//! Numbers are those of `virErrorNumber` and `virErrorDomain`. Messages are looked at only where a number
//! says too little, and only those that the client library itself makes or the QEMU driver has kept for years.

use crate::connection::connector::CallFailure;
use crate::domain::error_numbers::*;
use crate::error::{ConnectError, ErrorKind, LibvirtError};

/// What the client library says when a call finds the socket closed already: nothing was sent.
const SOCKET_CLOSED: &str = "client socket is closed";

/// What the QEMU driver says when another call keeps the VM's lock, or too many wait for it.
const LOCKED: &str = "cannot acquire state change lock";

/// Sorts the failure of a call.
pub(crate) fn call_failure(source: LibvirtError) -> CallFailure {
    if is_connection_loss(&source) {
        let sent = !source.message.contains(SOCKET_CLOSED);
        return CallFailure::Lost { sent, source: Some(source) };
    }
    CallFailure::Refused { kind: call_kind(&source), source }
}

/// Sorts the failure of an opening.
pub(crate) fn connect_error(uri: &str, source: LibvirtError) -> ConnectError {
    let message = source.message.as_str();
    let kind = if source.code == AUTH_FAILED
        || source.code == AUTH_CANCELLED
        || source.code == AUTH_UNAVAILABLE
        || message.contains("Permission denied (")
    {
        ErrorKind::AuthFailed
    } else if message.contains("Connection refused") || message.contains("No such file or directory") {
        ErrorKind::ConnectionRefused
    } else if message.contains("No route to host") || message.contains("Network is unreachable") {
        ErrorKind::HostUnreachable
    } else if message.contains("unable to resolve")
        || message.contains("Name or service not known")
        || message.contains("Could not resolve hostname")
    {
        ErrorKind::NameNotResolved
    } else if message.contains("Permission denied") {
        ErrorKind::AccessDenied
    } else {
        ErrorKind::ConnectFailed
    };
    ConnectError { source: Some(source), ..ConnectError::new(kind, format!("cannot open {uri}")) }
}

/// "The connection is gone" is a system or internal error of the RPC layer, or an error about the
/// connection as such. An internal error of any other part says nothing about the connection.
fn is_connection_loss(error: &LibvirtError) -> bool {
    let by_rpc = error.domain == FROM_RPC || error.domain == FROM_REMOTE;
    let broken = error.code == SYSTEM_ERROR || error.code == INTERNAL_ERROR;
    (by_rpc && broken) || error.code == NO_CONNECT || error.code == INVALID_CONN
}

fn call_kind(error: &LibvirtError) -> ErrorKind {
    let message = error.message.as_str();
    let is_locked =
        error.code == OPERATION_TIMEOUT || error.code == OPERATION_FAILED && message.contains(LOCKED);
    if error.code == NO_DOMAIN {
        ErrorKind::VmNotFound
    } else if error.code == OPERATION_INVALID && message.contains("not running") {
        ErrorKind::VmNotRunning
    } else if error.code == OPERATION_INVALID {
        ErrorKind::OperationInvalid
    } else if error.code == ARGUMENT_UNSUPPORTED && message.contains("agent is not configured") {
        ErrorKind::AgentNotConfigured
    } else if error.code == AGENT_UNRESPONSIVE && message.contains("not connected") {
        ErrorKind::AgentNotConnected
    } else if error.code == AGENT_UNRESPONSIVE && message.contains("not available due to an error") {
        ErrorKind::AgentBroken
    } else if error.code == AGENT_UNRESPONSIVE && message.contains("disappeared") {
        ErrorKind::AgentGone
    } else if error.code == AGENT_UNRESPONSIVE
        || error.code == AGENT_UNSYNCED
        || error.code == AGENT_COMMAND_TIMEOUT
    {
        ErrorKind::AgentUnresponsive
    } else if is_locked && message.contains("(held by agent=") {
        ErrorKind::AgentBusy
    } else if is_locked || error.code == RESOURCE_BUSY {
        ErrorKind::MonitorBusy
    } else if error.code == OPERATION_FAILED && message.contains("Active channel stream exists") {
        ErrorKind::ChannelInUse
    } else if message.contains("no console to take a screendump from") {
        ErrorKind::NoScreen
    } else if error.code == ACCESS_DENIED || error.code == OPERATION_DENIED {
        ErrorKind::AccessDenied
    } else if error.code == NO_SUPPORT
        || error.code == OPERATION_UNSUPPORTED
        || error.code == ARGUMENT_UNSUPPORTED
    {
        ErrorKind::NotSupported
    } else {
        ErrorKind::LibvirtError
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u32, domain: u32, message: &str) -> LibvirtError {
        LibvirtError { code, domain, level: 2, message: message.to_owned() }
    }

    #[test]
    fn an_internal_error_is_a_lost_connection_only_from_the_rpc_layer() {
        let rpc = error(INTERNAL_ERROR, FROM_RPC, "client socket is closed");
        let guest = error(INTERNAL_ERROR, 10, "unable to execute QEMU agent command");
        assert!(is_connection_loss(&rpc));
        assert!(!is_connection_loss(&guest));
        assert_eq!(call_kind(&guest), ErrorKind::LibvirtError);
    }

    #[test]
    fn kinds_by_number_and_message() {
        const QEMU: u32 = 10;
        for (error, kind) in [
            (error(NO_DOMAIN, QEMU, "Domain not found"), ErrorKind::VmNotFound),
            (
                error(OPERATION_INVALID, QEMU, "Requested operation is not valid: domain is not running"),
                ErrorKind::VmNotRunning,
            ),
            (error(OPERATION_INVALID, QEMU, "domain is already running"), ErrorKind::OperationInvalid),
            (
                error(AGENT_UNRESPONSIVE, QEMU, "QEMU guest agent is not connected"),
                ErrorKind::AgentNotConnected,
            ),
            (
                error(ARGUMENT_UNSUPPORTED, QEMU, "QEMU guest agent is not configured"),
                ErrorKind::AgentNotConfigured,
            ),
            (
                error(
                    AGENT_UNRESPONSIVE,
                    QEMU,
                    "Guest agent is not responding: Guest agent disappeared while executing command",
                ),
                ErrorKind::AgentGone,
            ),
            (
                error(AGENT_UNRESPONSIVE, QEMU, "Guest agent not available for now"),
                ErrorKind::AgentUnresponsive,
            ),
            (
                error(
                    OPERATION_TIMEOUT,
                    QEMU,
                    "cannot acquire state change lock (held by agent=remoteDispatchDomainQemuAgentCommand)",
                ),
                ErrorKind::AgentBusy,
            ),
            (
                error(
                    OPERATION_TIMEOUT,
                    QEMU,
                    "cannot acquire state change lock (held by monitor=a agent=b)",
                ),
                ErrorKind::MonitorBusy,
            ),
            (
                error(AGENT_UNRESPONSIVE, QEMU, "QEMU guest agent is not available due to an error"),
                ErrorKind::AgentBroken,
            ),
            (error(OPERATION_TIMEOUT, QEMU, "cannot acquire state change lock"), ErrorKind::MonitorBusy),
            (
                error(
                    OPERATION_FAILED,
                    QEMU,
                    "operation failed: cannot acquire state change lock due to max_queued limit",
                ),
                ErrorKind::MonitorBusy,
            ),
            (
                error(OPERATION_FAILED, QEMU, "operation failed: domain is no longer running"),
                ErrorKind::LibvirtError,
            ),
            (
                error(OPERATION_FAILED, QEMU, "Active channel stream exists for this domain"),
                ErrorKind::ChannelInUse,
            ),
            (
                error(
                    INTERNAL_ERROR,
                    QEMU,
                    "internal error: unable to execute QEMU command 'screendump': \
                     There is no console to take a screendump from",
                ),
                ErrorKind::NoScreen,
            ),
            (error(ACCESS_DENIED, QEMU, "access denied"), ErrorKind::AccessDenied),
        ] {
            assert_eq!(call_kind(&error), kind, "{error}");
        }
    }
}
