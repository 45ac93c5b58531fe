//! libvirt's errors, told apart.
//!
//! Numbers are those of `virErrorNumber` and `virErrorDomain`. Messages are looked at only where a number
//! says too little, and only those that the client library itself makes or the QEMU driver has kept for years.

use virt::enumutil::RawEnum;
use virt::error::{ErrorDomain, ErrorNumber};

use crate::connection::connector::CallFailure;
use crate::error::{ConnectError, ErrorKind, LibvirtError};

/// What the client library says when a call finds the socket closed already: nothing was sent.
const SOCKET_CLOSED: &str = "client socket is closed";

/// `VIR_ERR_AGENT_COMMAND_TIMEOUT`, of libvirt 11.2 and later: before, the silence of an agent had the code of its
/// absence.
const AGENT_COMMAND_TIMEOUT: u32 = 112;

impl From<&virt::error::Error> for LibvirtError {
    fn from(error: &virt::error::Error) -> Self {
        LibvirtError {
            code: error.code().to_raw(),
            domain: error.domain().to_raw(),
            level: error.level() as u32,
            message: error.message().to_owned(),
        }
    }
}

/// Sorts the failure of a call.
pub(crate) fn call_failure(error: &virt::error::Error) -> CallFailure {
    let source = LibvirtError::from(error);
    if is_connection_loss(&source) {
        let sent = !source.message.contains(SOCKET_CLOSED);
        return CallFailure::Lost { sent, source: Some(source) };
    }
    CallFailure::Refused { kind: call_kind(&source), source }
}

/// Sorts the failure of an opening.
pub(crate) fn connect_error(uri: &str, error: &virt::error::Error) -> ConnectError {
    let source = LibvirtError::from(error);
    let message = source.message.as_str();
    let kind = if is(&source, ErrorNumber::AuthFailed)
        || is(&source, ErrorNumber::AuthCancelled)
        || is(&source, ErrorNumber::AuthUnavailable)
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

fn is(error: &LibvirtError, number: ErrorNumber) -> bool {
    error.code == number.to_raw()
}

fn is_from(error: &LibvirtError, domain: ErrorDomain) -> bool {
    error.domain == domain.to_raw()
}

/// "The connection is gone" is a system or internal error of the RPC layer, or an error about the
/// connection as such. An internal error of any other part says nothing about the connection.
fn is_connection_loss(error: &LibvirtError) -> bool {
    let by_rpc = is_from(error, ErrorDomain::Rpc) || is_from(error, ErrorDomain::Remote);
    let broken = is(error, ErrorNumber::SystemError) || is(error, ErrorNumber::InternalError);
    (by_rpc && broken) || is(error, ErrorNumber::NoConnect) || is(error, ErrorNumber::InvalidConn)
}

fn call_kind(error: &LibvirtError) -> ErrorKind {
    let message = error.message.as_str();
    if is(error, ErrorNumber::NoDomain) {
        ErrorKind::VmNotFound
    } else if is(error, ErrorNumber::OperationInvalid) && message.contains("not running") {
        ErrorKind::VmNotRunning
    } else if is(error, ErrorNumber::OperationInvalid) {
        ErrorKind::OperationInvalid
    } else if is(error, ErrorNumber::ArgumentUnsupported) && message.contains("agent is not configured") {
        ErrorKind::AgentNotConfigured
    } else if is(error, ErrorNumber::AgentUnresponsive) && message.contains("not connected") {
        ErrorKind::AgentNotConnected
    } else if is(error, ErrorNumber::AgentUnresponsive) && message.contains("not available due to an error") {
        ErrorKind::AgentBroken
    } else if is(error, ErrorNumber::AgentUnresponsive) && message.contains("disappeared") {
        ErrorKind::AgentGone
    } else if is(error, ErrorNumber::AgentUnresponsive)
        || is(error, ErrorNumber::AgentUnsynced)
        || error.code == AGENT_COMMAND_TIMEOUT
    {
        ErrorKind::AgentUnresponsive
    } else if is(error, ErrorNumber::OperationTimeout) && message.contains("(held by agent=") {
        ErrorKind::AgentBusy
    } else if is(error, ErrorNumber::OperationTimeout) || is(error, ErrorNumber::ResourceBusy) {
        ErrorKind::MonitorBusy
    } else if is(error, ErrorNumber::OperationFailed) && message.contains("Active channel stream exists") {
        ErrorKind::ChannelInUse
    } else if message.contains("no console to take a screendump from") {
        ErrorKind::NoScreen
    } else if is(error, ErrorNumber::AccessDenied) || is(error, ErrorNumber::OperationDenied) {
        ErrorKind::AccessDenied
    } else if is(error, ErrorNumber::NoSupport)
        || is(error, ErrorNumber::OperationUnsupported)
        || is(error, ErrorNumber::ArgumentUnsupported)
    {
        ErrorKind::NotSupported
    } else {
        ErrorKind::LibvirtError
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(number: ErrorNumber, domain: ErrorDomain, message: &str) -> LibvirtError {
        LibvirtError { code: number.to_raw(), domain: domain.to_raw(), level: 2, message: message.to_owned() }
    }

    #[test]
    fn an_internal_error_is_a_lost_connection_only_from_the_rpc_layer() {
        let rpc = error(ErrorNumber::InternalError, ErrorDomain::Rpc, "client socket is closed");
        let guest =
            error(ErrorNumber::InternalError, ErrorDomain::Qemu, "unable to execute QEMU agent command");
        assert!(is_connection_loss(&rpc));
        assert!(!is_connection_loss(&guest));
        assert_eq!(call_kind(&guest), ErrorKind::LibvirtError);
    }

    #[test]
    fn kinds_by_number_and_message() {
        use ErrorDomain::Qemu;
        for (error, kind) in [
            (error(ErrorNumber::NoDomain, Qemu, "Domain not found"), ErrorKind::VmNotFound),
            (
                error(
                    ErrorNumber::OperationInvalid,
                    Qemu,
                    "Requested operation is not valid: domain is not running",
                ),
                ErrorKind::VmNotRunning,
            ),
            (
                error(ErrorNumber::OperationInvalid, Qemu, "domain is already running"),
                ErrorKind::OperationInvalid,
            ),
            (
                error(ErrorNumber::AgentUnresponsive, Qemu, "QEMU guest agent is not connected"),
                ErrorKind::AgentNotConnected,
            ),
            (
                error(ErrorNumber::ArgumentUnsupported, Qemu, "QEMU guest agent is not configured"),
                ErrorKind::AgentNotConfigured,
            ),
            (
                error(
                    ErrorNumber::AgentUnresponsive,
                    Qemu,
                    "Guest agent is not responding: Guest agent disappeared while executing command",
                ),
                ErrorKind::AgentGone,
            ),
            (
                error(ErrorNumber::AgentUnresponsive, Qemu, "Guest agent not available for now"),
                ErrorKind::AgentUnresponsive,
            ),
            (
                error(
                    ErrorNumber::OperationTimeout,
                    Qemu,
                    "cannot acquire state change lock (held by agent=remoteDispatchDomainQemuAgentCommand)",
                ),
                ErrorKind::AgentBusy,
            ),
            (
                error(
                    ErrorNumber::OperationTimeout,
                    Qemu,
                    "cannot acquire state change lock (held by monitor=a agent=b)",
                ),
                ErrorKind::MonitorBusy,
            ),
            (
                error(
                    ErrorNumber::AgentUnresponsive,
                    Qemu,
                    "QEMU guest agent is not available due to an error",
                ),
                ErrorKind::AgentBroken,
            ),
            (
                error(ErrorNumber::OperationTimeout, Qemu, "cannot acquire state change lock"),
                ErrorKind::MonitorBusy,
            ),
            (
                error(ErrorNumber::OperationFailed, Qemu, "Active channel stream exists for this domain"),
                ErrorKind::ChannelInUse,
            ),
            (
                error(
                    ErrorNumber::InternalError,
                    Qemu,
                    "internal error: unable to execute QEMU command 'screendump': \
                     There is no console to take a screendump from",
                ),
                ErrorKind::NoScreen,
            ),
            (error(ErrorNumber::AccessDenied, Qemu, "access denied"), ErrorKind::AccessDenied),
        ] {
            assert_eq!(call_kind(&error), kind, "{error}");
        }
    }
}
