//! Commands to the guest agent (QGA).

use qapi::qga::QgaCommand;
use serde_json::Value;
use tokio::time::Instant;

use crate::carrier::Carrier;
use crate::command::RawCommand;
use crate::error::Result;
use crate::peer::Peer;
use crate::reply;

/// Sends any command; what the agent returns stays JSON.
///
/// # Errors
/// The agent's own error is a [`Refusal`](crate::Refusal) whose kind tells a disabled command, an unknown
/// one and a frozen guest from the rest.
///
/// Dropping the future gives up the wait, not the command.
pub async fn execute_raw(carrier: &impl Carrier, command: &RawCommand, deadline: Instant) -> Result<Value> {
    reply::send_raw(carrier, Peer::Agent, command, deadline).await
}

/// Sends a command that [`qapi::qga`] defines, and decodes what the agent returns.
///
/// # Errors
/// As [`execute_raw`]; and [`InvalidReply`](crate::ProtocolError::InvalidReply) where the agent's answer does
/// not fit the type.
///
/// Dropping the future gives up the wait, not the command.
pub async fn execute<C: QgaCommand>(carrier: &impl Carrier, command: &C, deadline: Instant) -> Result<C::Ok> {
    reply::send_typed(carrier, Peer::Agent, command, deadline).await
}
