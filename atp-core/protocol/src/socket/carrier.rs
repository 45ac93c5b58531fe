//! Sends commands over direct sockets.

use std::sync::atomic::{AtomicBool, Ordering};

use atp_transport::{CallFailure, TransportError};
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::{self, Instant};

use super::connector::SocketConnection;
use super::end::SendError;
use super::events::MonitorEvents;
use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};
use crate::peer::Peer;

/// Sends commands to one VM over leased links to its sockets.
pub struct SocketCarrier<'c> {
    links: [Option<&'c SocketConnection>; 2],
}

/// The fields of a command that are checked.
#[derive(Deserialize)]
struct Outgoing {
    id: Option<IgnoredAny>,
    execute: Option<IgnoredAny>,
    #[serde(rename = "exec-oob")]
    out_of_band: Option<IgnoredAny>,
}

/// The progress of a call, for the case that it is cut off.
#[derive(Default)]
struct Progress {
    /// The link has the command, and may have to synchronise first.
    begun: AtomicBool,
    sent: AtomicBool,
    failure: Mutex<Option<SendError>>,
}

impl<'c> SocketCarrier<'c> {
    /// Creates a carrier over one link, to the VM's monitor or to its agent.
    pub fn new(connection: &'c SocketConnection) -> Self {
        SocketCarrier { links: [Some(connection), None] }
    }

    /// Adds the link to the other socket of the same VM.
    pub fn with(self, connection: &'c SocketConnection) -> Self {
        SocketCarrier { links: [self.links[0], Some(connection)] }
    }

    /// Returns the monitor's events from now until its link ends. Ends by `deadline`.
    ///
    /// # Errors
    /// [`NoChannel`](ProtocolError::NoChannel) without a link to a monitor, otherwise why there is no link.
    ///
    /// Cancel safe.
    pub async fn events(&self, deadline: Instant) -> Result<MonitorEvents> {
        let peer = Peer::Monitor;
        for connection in self.links.iter().flatten() {
            let subscribed = connection.call("events", None, async |link, _in_flight| match link.events() {
                Some(Err(_)) => Err(CallFailure::Lost { sent: false, source: None }),
                Some(Ok(events)) => Ok(Some(events)),
                None => Ok(None),
            });
            let subscribed = time::timeout_at(deadline, subscribed).await;
            if let Some(events) = subscribed.map_err(|_| ProtocolError::Timeout { peer, sent: false })?? {
                return Ok(events);
            }
        }
        Err(ProtocolError::NoChannel { peer })
    }
}

impl Carrier for SocketCarrier<'_> {
    /// Ends at `deadline`, at the lease's deadline or at the call's own time limit, whichever is first.
    ///
    /// The carrier sets the id of a monitor command itself.
    async fn send(&self, peer: Peer, command: &str, deadline: Instant) -> Result<String> {
        check(command)?;
        if Instant::now() >= deadline {
            return Err(ProtocolError::Timeout { peer, sent: false });
        }
        let progress = Progress::default();
        let work = async {
            for connection in self.links.iter().flatten() {
                if let Some(reply) = send_over(connection, peer, command, &progress).await? {
                    return Ok(reply);
                }
            }
            Err(ProtocolError::NoChannel { peer })
        };
        match time::timeout_at(deadline, work).await {
            Ok(result) => result,
            Err(_) => Err(progress.timed_out(peer)),
        }
    }

    fn command_max(&self, _peer: Peer) -> usize {
        let limits = self.links.iter().flatten().map(|link| link.connector().config().max_command);
        limits.min().unwrap_or(0)
    }
}

/// Returns none if this link leads to the other peer.
async fn send_over(
    connection: &SocketConnection,
    peer: Peer,
    command: &str,
    progress: &Progress,
) -> Result<Option<String>> {
    let operation = match peer {
        Peer::Monitor => "QMP command",
        Peer::Agent => "QGA command",
    };
    let call = connection.call(operation, None, async |link, _in_flight| {
        if link.peer() != peer {
            return Ok(None);
        }
        let limit = link.max_command();
        if command.len() > limit {
            return Ok(Some(Err(ProtocolError::CommandTooLarge { size: command.len(), limit })));
        }
        progress.begun.store(true, Ordering::Release);
        match link.send(command, || progress.sent.store(true, Ordering::Release)).await {
            Ok(reply) => Ok(Some(Ok(reply))),
            Err(SendError::TooLarge { .. }) => {
                Ok(Some(Err(ProtocolError::OutputTooLarge { peer, channel_lost: false, libvirt: None })))
            }
            Err(SendError::Ended { end, sent }) => {
                progress.fail(SendError::Ended { end, sent });
                Err(CallFailure::Lost { sent, source: None })
            }
        }
    });
    match call.await {
        Ok(reply) => reply.transpose(),
        Err(TransportError::CallTimeout { sent: true, .. }) => Err(progress.timed_out(peer)),
        Err(error) => Err(match progress.failure() {
            Some(SendError::Ended { end, sent }) => ProtocolError::LinkLost { peer, sent, end },
            _ => error.into(),
        }),
    }
}

impl Progress {
    fn fail(&self, error: SendError) {
        *self.failure.lock() = Some(error);
    }

    fn failure(&self) -> Option<SendError> {
        self.failure.lock().take()
    }

    /// The error of a call that was cut off. An agent that did not even answer the synchronisation was not asked.
    fn timed_out(&self, peer: Peer) -> ProtocolError {
        let sent = self.sent.load(Ordering::Acquire);
        if peer == Peer::Agent && !sent && self.begun.load(Ordering::Acquire) {
            return ProtocolError::AgentSilent;
        }
        ProtocolError::Timeout { peer, sent }
    }
}

/// Refuses text that would desynchronise the parser of the monitor or the agent.
fn check(command: &str) -> Result<()> {
    let invalid = |reason: String| Err(ProtocolError::InvalidCommand { reason });
    match serde_json::from_str::<Outgoing>(command) {
        Err(error) => invalid(error.to_string()),
        Ok(Outgoing { execute: None, out_of_band: None, .. }) => {
            invalid("it is not a JSON object with `execute`".to_owned())
        }
        Ok(Outgoing { id: Some(_), .. }) => invalid("it has an `id`, which the carrier sets".to_owned()),
        // serde would also accept a JSON list of the right length.
        Ok(_) if !command.trim_start().starts_with('{') => {
            invalid("it is not a JSON object with `execute`".to_owned())
        }
        Ok(_) => Ok(()),
    }
}
