//! The trait over which this crate sends commands to a VM.

use std::future::Future;

use tokio::time::Instant;

use crate::error::Result;
use crate::peer::Peer;

/// Sends one JSON command to one VM and returns the reply.
///
/// A carrier does not interpret a command. It returns the reply unchanged: `{"return": …}` or `{"error": …}`. If the
/// transport turns an error reply into an error of its own, as libvirt does for the agent, the carrier converts it back
/// to [`ProtocolError::Refused`](crate::ProtocolError::Refused).
pub trait Carrier: Send + Sync {
    /// Sends `command` and waits for its reply until `deadline` at the latest.
    ///
    /// Dropping the future stops the wait. The command may have been sent by then.
    fn send(
        &self,
        peer: Peer,
        command: &str,
        deadline: Instant,
    ) -> impl Future<Output = Result<String>> + Send;

    /// The longest command that this carrier can send to that peer, bytes of JSON.
    fn command_max(&self, peer: Peer) -> usize;
}
