//! Commands to the guest agent (QGA).

use atp_api::RawCommand;
use qapi::qga::QgaCommand;
use serde_json::Value;
use tokio::time::Instant;

use crate::carrier::Carrier;
use crate::error::Result;
use crate::peer::Peer;
use crate::reply;

/// Sends any command. The agent's return value stays JSON.
///
/// # Errors
/// The agent's own error is a [`Refusal`](crate::Refusal), whose kind distinguishes a disabled command, an unknown
/// command and a frozen guest from other refusals.
///
/// Dropping the future stops the wait and does not cancel the command.
pub async fn execute_raw(carrier: &impl Carrier, command: &RawCommand, deadline: Instant) -> Result<Value> {
    reply::send_raw(carrier, Peer::Agent, command, deadline).await
}

/// Sends a command that [`qapi::qga`] defines, and decodes the agent's return value.
///
/// # Errors
/// As [`execute_raw`], and [`InvalidReply`](crate::ProtocolError::InvalidReply) if the agent's answer does not fit the
/// type.
///
/// Dropping the future stops the wait and does not cancel the command.
pub async fn execute<C: QgaCommand>(carrier: &impl Carrier, command: &C, deadline: Instant) -> Result<C::Ok> {
    reply::send_typed(carrier, Peer::Agent, command, deadline).await
}
