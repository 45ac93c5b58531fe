//! Commands to QEMU, over its monitor (QMP).

use atp_api::RawCommand;
use qapi::qmp::QmpCommand;
use serde_json::Value;
use tokio::time::Instant;

use crate::carrier::Carrier;
use crate::error::Result;
use crate::peer::Peer;
use crate::reply;

/// Sends any command. QEMU's return value stays JSON.
///
/// # Errors
/// QEMU's own error is a [`Refusal`](crate::Refusal) with its class and description.
///
/// Dropping the future stops the wait and does not cancel the command.
pub async fn execute_raw(carrier: &impl Carrier, command: &RawCommand, deadline: Instant) -> Result<Value> {
    reply::send_raw(carrier, Peer::Monitor, command, deadline).await
}

/// Sends a command that [`qapi::qmp`] defines, and decodes QEMU's return value.
///
/// # Errors
/// As [`execute_raw`], and [`InvalidReply`](crate::ProtocolError::InvalidReply) if QEMU's answer does not fit the type.
///
/// Dropping the future stops the wait and does not cancel the command.
pub async fn execute<C: QmpCommand>(carrier: &impl Carrier, command: &C, deadline: Instant) -> Result<C::Ok> {
    reply::send_typed(carrier, Peer::Monitor, command, deadline).await
}
