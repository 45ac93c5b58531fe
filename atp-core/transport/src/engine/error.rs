//! Classification of libvirt's errors.
//!
//! Numbers are those of `virErrorNumber` and `virErrorDomain`. A daemon's message may be in any language: it is looked at
//! only for parts that libvirt translates into none, and for the sentences of `error/phrase.rs`. What else a number means for
//! one operation is in [`LibvirtError::kind_of`].

use atp_api::Hint;

use crate::connection::connector::CallFailure;
use crate::domain::error_numbers::*;
use crate::engine::uri::{LibvirtUri, Transport};
use crate::error::phrase::{AGENT_BROKEN, AGENT_GONE, AGENT_NOT_CONNECTED};
use crate::error::{ConnectError, ConnectStage, ErrorKind, LibvirtError};

/// What the client library says when a call finds the socket closed already: nothing was sent.
const SOCKET_CLOSED: &str = "client socket is closed";

/// The setting that the QEMU driver names when too many calls wait for a VM's lock: no language translates it.
const TOO_MANY_WAIT: &str = "max_queued";

/// The end of the paths of daemons' sockets: a daemon that cannot reach the one behind it names its socket.
const SOCKET_PATH: &str = "d-sock";

/// Sorts the failure of a call.
pub(crate) fn call_failure(source: LibvirtError) -> CallFailure {
    if is_connection_loss(&source) {
        let sent = !source.message.contains(SOCKET_CLOSED);
        return CallFailure::Lost { sent, source: Some(source) };
    }
    CallFailure::Refused { kind: call_kind(&source), source }
}

/// Refuses text that cannot be sent: libvirt's strings end at a NUL.
pub(crate) fn without_nul(text: &str) -> Result<(), CallFailure> {
    if !text.contains('\0') {
        return Ok(());
    }
    let message = "an argument cannot be sent: it holds a NUL character".to_owned();
    let source = LibvirtError { code: INVALID_ARG, domain: FROM_RPC, level: 2, message };
    Err(CallFailure::Refused { kind: ErrorKind::LibvirtError, source })
}

/// Sorts the answer with which a daemon, or what the C library has instead of one, refuses an opening: no failure of the way.
pub(crate) fn refused_open(uri: &LibvirtUri, source: LibvirtError) -> ConnectError {
    let failed = |kind, stage| ConnectError::new(kind, format!("cannot open {}", uri.shown)).at(stage);
    let error = if is_about_credentials(&source) {
        let error = failed(ErrorKind::AuthFailed, ConnectStage::Authenticate);
        match uri.transport {
            // A daemon that offers nothing for plain TCP says no more than that.
            Transport::Tcp => error.advise(Hint::from(format!("{PASSWORD}. Otherwise: {NO_LAYER}"))),
            _ => error,
        }
    } else if matches!(source.domain, FROM_DBUS | FROM_POLKIT) {
        // The daemon could not ask polkit, or was told no. Nothing else of an opening is asked by D-Bus.
        failed(ErrorKind::AuthFailed, ConnectStage::Authenticate).advise(POLKIT)
    } else {
        // The daemon itself may be a client of another one.
        let is_behind = source.message.contains(SOCKET_PATH);
        failed(ErrorKind::ConnectFailed, ConnectStage::Open).advise(if is_behind { BEHIND } else { REFUSED })
    };
    ConnectError { source: Some(source), ..error }
}

/// Whether the credentials are at fault.
pub(crate) fn is_about_credentials(error: &LibvirtError) -> bool {
    matches!(error.code, AUTH_FAILED | AUTH_CANCELLED | AUTH_UNAVAILABLE)
}

/// Why SASL with a password is not to be had over plain TCP.
pub(crate) const NO_LAYER: &str = "over plain TCP a password would be readable on the network, and what follows too: SCRAM and PLAIN are only possible over TLS, ssh or a socket, plain TCP needs GSSAPI (Kerberos); use qemu+tls or qemu+ssh";
/// What a daemon asks for that is nowhere.
pub(crate) const CREDENTIALS: &str = "give the host an `auth` section with a user name and a password, or put them into libvirt's auth.conf (`authfile=`, LIBVIRT_AUTH_FILE)";
const PASSWORD: &str = "check the user, the password and where it is read from (the host's `auth`)";
const BEHIND: &str = "the daemon answers, and another one behind it does not: check that one on its host (systemctl status virtqemud.socket virtqemud)";
const POLKIT: &str = "the daemon asks polkit whether this user may connect: check that polkit and D-Bus run on its host, or add the user to the group of the daemon's socket";
const REFUSED: &str = "the daemon was reached and refused: its words say why; read its log on its host (journalctl -u libvirtd -u virtqemud)";

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
        error.code == OPERATION_TIMEOUT || error.code == OPERATION_FAILED && message.contains(TOO_MANY_WAIT);
    match error.code {
        NO_DOMAIN => ErrorKind::VmNotFound,
        NO_DOMAIN_SNAPSHOT => ErrorKind::SnapshotNotFound,
        OPERATION_INVALID => ErrorKind::OperationInvalid,
        AGENT_UNRESPONSIVE if AGENT_NOT_CONNECTED.is_in(message) => ErrorKind::AgentNotConnected,
        AGENT_UNRESPONSIVE if AGENT_BROKEN.is_in(message) => ErrorKind::AgentBroken,
        AGENT_UNRESPONSIVE if AGENT_GONE.is_in(message) => ErrorKind::AgentGone,
        AGENT_UNRESPONSIVE | AGENT_UNSYNCED | AGENT_COMMAND_TIMEOUT => ErrorKind::AgentUnresponsive,
        // The holders are named in words of libvirt's code.
        _ if is_locked && message.contains("agent=") && !message.contains("monitor=") => ErrorKind::AgentBusy,
        _ if is_locked => ErrorKind::MonitorBusy,
        RESOURCE_BUSY => ErrorKind::MonitorBusy,
        // QEMU's own words.
        _ if message.contains("no console to take a screendump from") => ErrorKind::NoScreen,
        ACCESS_DENIED | OPERATION_DENIED => ErrorKind::AccessDenied,
        NO_SUPPORT | OPERATION_UNSUPPORTED | ARGUMENT_UNSUPPORTED => ErrorKind::NotSupported,
        _ => ErrorKind::LibvirtError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u32, domain: u32, message: &str) -> LibvirtError {
        LibvirtError { code, domain, level: 2, message: message.to_owned() }
    }

    #[test]
    fn text_with_nul_is_refused_before_it_is_sent() {
        assert!(without_nul("vm1").is_ok());
        let refused = without_nul("vm\0");
        let Err(CallFailure::Refused { source, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!((source.code, source.domain), (INVALID_ARG, FROM_RPC));
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
            (error(NO_DOMAIN_SNAPSHOT, QEMU, "Domain snapshot not found"), ErrorKind::SnapshotNotFound),
            (error(OPERATION_INVALID, QEMU, "domain is already running"), ErrorKind::OperationInvalid),
            (
                error(AGENT_UNRESPONSIVE, QEMU, "QEMU guest agent is not connected"),
                ErrorKind::AgentNotConnected,
            ),
            (
                error(
                    AGENT_UNRESPONSIVE,
                    QEMU,
                    "ゲストエージェントが応答しません: QEMU ゲストエージェントが接続されていません",
                ),
                ErrorKind::AgentNotConnected,
            ),
            (
                error(
                    AGENT_UNRESPONSIVE,
                    QEMU,
                    "Агент гостя не отвечает: Агент гостя исчез во время выполнения команды",
                ),
                ErrorKind::AgentGone,
            ),
            (
                error(
                    AGENT_UNRESPONSIVE,
                    QEMU,
                    "Gast-Agent antwortet nicht: QEMU Gast-Agent nicht verfügbar ist aufgrund eines Fehlers",
                ),
                ErrorKind::AgentBroken,
            ),
            (
                error(
                    AGENT_UNRESPONSIVE,
                    QEMU,
                    "Gast-Agent antwortet nicht: Gast-Agent derzeit nicht verfügbar",
                ),
                ErrorKind::AgentUnresponsive,
            ),
            (
                error(
                    OPERATION_FAILED,
                    QEMU,
                    "Kann Status-Änderungs-Lock wegen max_queued Grenze nicht erlangen",
                ),
                ErrorKind::MonitorBusy,
            ),
            (
                error(OPERATION_TIMEOUT, QEMU, "状態変更ロックを獲得できません (agent=a が保持)"),
                ErrorKind::AgentBusy,
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
