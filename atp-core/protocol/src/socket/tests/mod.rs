//! Tests of links against a scripted peer, in virtual time.

mod agent;
mod monitor;
#[path = "../../../tests/sockets/peer.rs"]
mod peer;
mod schedules;

use std::time::Duration;

use serde_json::Value;
use tokio::io::{DuplexStream, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::end::SendError;
use super::{SocketConfig, SocketLink};
use peer::Peer;

const QUERY: &str = r#"{"execute":"query-status"}"#;
const PING: &str = r#"{"execute":"guest-ping"}"#;
/// The capacity of the pipe between a link and its peer, bytes.
const PIPE: usize = 64 * 1024;
const SECOND: Duration = Duration::from_secs(1);

/// Returns the value of a command's reply.
async fn send(link: &SocketLink, command: &str) -> Result<Value, SendError> {
    let text = link.send(command, || ()).await?;
    Ok(serde_json::from_str::<Value>(&text).unwrap()["return"].take())
}

/// As [`send`]. None on timeout.
async fn send_within(link: &SocketLink, command: &str, limit: Duration) -> Option<Result<Value, SendError>> {
    timeout(limit, send(link, command)).await.ok()
}

/// A stream that is not a link yet, and its peer.
fn stream() -> ((ReadHalf<DuplexStream>, WriteHalf<DuplexStream>), Peer) {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    (tokio::io::split(ours), Peer::new(theirs))
}

/// A link to a monitor that has sent its greeting, and its peer.
async fn monitor(config: SocketConfig) -> (SocketLink, Peer) {
    let (ours, mut peer) = stream();
    let (link, ()) = tokio::join!(SocketLink::monitor(ours, config), peer.negotiate());
    (link.unwrap(), peer)
}

/// A link to an agent, and its peer.
fn agent(config: SocketConfig) -> (SocketLink, Peer) {
    let (ours, peer) = stream();
    (SocketLink::agent(ours, config), peer)
}
