//! How a command reaches a VM: the trait everything in this crate speaks through.

use std::future::Future;

use tokio::time::Instant;

use crate::error::Result;
use crate::peer::Peer;

/// Carries one JSON command to one VM and its reply back.
///
/// A carrier does not look inside a command. It returns the reply as it came: `{"return": …}` or
/// `{"error": …}`. Where the way itself turns an error reply into an error of its own, as libvirt does
/// for the agent, the carrier turns it back into [`ProtocolError::Refused`](crate::ProtocolError::Refused).
pub trait Carrier: Send + Sync {
    /// Sends `command` and waits for its reply, until `deadline` at the latest.
    ///
    /// Dropping the future gives up the wait; the command may have been sent by then.
    fn send(
        &self,
        peer: Peer,
        command: &str,
        deadline: Instant,
    ) -> impl Future<Output = Result<String>> + Send;

    /// The longest command this carrier takes to that one, bytes of JSON.
    fn command_max(&self, peer: Peer) -> usize;
}
