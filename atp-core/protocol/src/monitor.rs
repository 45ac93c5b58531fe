//! Commands to QEMU, over its monitor (QMP).

use qapi::qmp::QmpCommand;
use serde_json::Value;
use tokio::time::Instant;

use crate::carrier::Carrier;
use crate::command::RawCommand;
use crate::error::Result;
use crate::peer::Peer;
use crate::reply;

/// Sends any command; what QEMU returns stays JSON.
///
/// # Errors
/// QEMU's own error is a [`Refusal`](crate::Refusal) with its class and description.
///
/// Dropping the future gives up the wait, not the command.
pub async fn execute_raw(carrier: &impl Carrier, command: &RawCommand, deadline: Instant) -> Result<Value> {
    reply::send_raw(carrier, Peer::Monitor, command, deadline).await
}

/// Sends a command that [`qapi::qmp`] defines, and decodes what QEMU returns.
///
/// # Errors
/// As [`execute_raw`]; and [`InvalidReply`](crate::ProtocolError::InvalidReply) where QEMU's answer does not
/// fit the type.
///
/// Dropping the future gives up the wait, not the command.
pub async fn execute<C: QmpCommand>(carrier: &impl Carrier, command: &C, deadline: Instant) -> Result<C::Ok> {
    reply::send_typed(carrier, Peer::Monitor, command, deadline).await
}
