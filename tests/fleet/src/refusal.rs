//! The errors that a daemon answers with.

use atp_rpc::error::RemoteError;
use atp_rpc::numbers::code;
use atp_rpc::xdr::XdrError;

/// An error that a daemon answers with.
pub(crate) type Refusal = Box<RemoteError>;

/// The parts of libvirt that errors come from (`virErrorDomain`).
const FROM_RPC: i32 = 7;
const FROM_QEMU: i32 = 10;

/// An operation on a connection that was opened for reading only.
const OPERATION_DENIED: i32 = 29;

fn error(code: i32, domain: i32, message: String) -> Refusal {
    let (strings, numbers) = (Default::default(), [0; 2]);
    Box::new(RemoteError { code, domain, level: 2, message, strings, numbers })
}

pub(crate) fn unknown_procedure(number: i32) -> Refusal {
    error(code::RPC, FROM_RPC, format!("unknown procedure: {number}"))
}

pub(crate) fn unreadable(why: &XdrError) -> Refusal {
    error(code::RPC, FROM_RPC, format!("Unable to decode message payload: {why}"))
}

pub(crate) fn too_large(why: &XdrError) -> Refusal {
    error(code::RPC, FROM_RPC, format!("Unable to encode message payload: {why}"))
}

pub(crate) fn not_open() -> Refusal {
    error(code::INTERNAL_ERROR, FROM_RPC, "internal error: hypervisor connection not open".to_owned())
}

pub(crate) fn no_callback(id: i32) -> Refusal {
    error(
        code::INTERNAL_ERROR,
        FROM_RPC,
        format!("internal error: domain event callback {id} not registered"),
    )
}

pub(crate) fn read_only(operation: &str) -> Refusal {
    error(OPERATION_DENIED, FROM_QEMU, format!("operation {operation} forbidden for read only access"))
}

pub(crate) fn no_domain(which: &str) -> Refusal {
    error(code::NO_DOMAIN, FROM_QEMU, format!("Domain not found: no domain with matching {which}"))
}

pub(crate) fn no_metadata() -> Refusal {
    let message = "metadata not found: Requested metadata element is not present".to_owned();
    error(code::NO_DOMAIN_METADATA, FROM_QEMU, message)
}

pub(crate) fn no_snapshot(name: &str) -> Refusal {
    let message = format!("Domain snapshot not found: no domain snapshot with matching name '{name}'");
    error(code::NO_DOMAIN_SNAPSHOT, FROM_QEMU, message)
}

pub(crate) fn invalid_state(what: &str) -> Refusal {
    error(code::OPERATION_INVALID, FROM_QEMU, format!("Requested operation is not valid: {what}"))
}

pub(crate) fn unsupported_argument(what: &str) -> Refusal {
    error(code::ARGUMENT_UNSUPPORTED, FROM_QEMU, format!("argument unsupported: {what}"))
}

/// Another call works on the VM, and has not ended in 30 s.
pub(crate) fn locked(by: &str) -> Refusal {
    let message = format!("Timed out during operation: cannot acquire state change lock (held by {by})");
    error(code::OPERATION_TIMEOUT, FROM_QEMU, message)
}

pub(crate) fn agent_unresponsive(why: &str) -> Refusal {
    error(code::AGENT_UNRESPONSIVE, FROM_QEMU, format!("Guest agent is not responding: {why}"))
}

/// The agent's own error, in libvirt's words.
pub(crate) fn agent_command(command: &str, description: &str) -> Refusal {
    let message = format!("internal error: unable to execute QEMU agent command '{command}': {description}");
    error(code::INTERNAL_ERROR, FROM_QEMU, message)
}

/// A command that is no JSON object with a name.
pub(crate) fn no_command(why: &str) -> Refusal {
    error(code::INTERNAL_ERROR, FROM_QEMU, format!("internal error: cannot parse json: {why}"))
}
