//! Commands over direct sockets.

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

/// Carries commands to one VM over leased links to its sockets.
pub struct SocketCarrier<'c> {
    links: [Option<&'c SocketConnection>; 2],
}

/// The fields of a command that are looked at.
#[derive(Deserialize)]
struct Outgoing {
    id: Option<IgnoredAny>,
    execute: Option<IgnoredAny>,
    #[serde(rename = "exec-oob")]
    out_of_band: Option<IgnoredAny>,
}

/// How far a call got, for when it is cut off.
#[derive(Default)]
struct Progress {
    /// The link has the command, and may have to synchronise first.
    begun: AtomicBool,
    sent: AtomicBool,
    failure: Mutex<Option<SendError>>,
}

impl<'c> SocketCarrier<'c> {
    /// A carrier over one link: to the VM's monitor, or to its agent.
    pub fn new(connection: &'c SocketConnection) -> Self {
        SocketCarrier { links: [Some(connection), None] }
    }

    /// Adds the link to the same VM's other socket.
    pub fn with(self, connection: &'c SocketConnection) -> Self {
        SocketCarrier { links: [self.links[0], Some(connection)] }
    }

    /// The monitor's events from now on, for as long as its link lives. Ends by `deadline`.
    ///
    /// # Errors
    /// [`NoChannel`](ProtocolError::NoChannel) without a link to a monitor; else why there is no link.
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
    /// Ends at `deadline`, at the lease's deadline or when the call's own time is up, whichever is first.
    ///
    /// The id of a monitor command is the carrier's own.
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

    fn command_max(&self, _channel: Peer) -> usize {
        let limits = self.links.iter().flatten().map(|link| link.connector().config().max_command);
        limits.min().unwrap_or(0)
    }
}

/// None if this link leads to another channel.
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
        if link.channel() != peer {
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

    /// A call that was cut off: an agent that did not even answer the synchronisation was not asked.
    fn timed_out(&self, peer: Peer) -> ProtocolError {
        let sent = self.sent.load(Ordering::Acquire);
        if peer == Peer::Agent && !sent && self.begun.load(Ordering::Acquire) {
            return ProtocolError::AgentSilent;
        }
        ProtocolError::Timeout { peer, sent }
    }
}

/// Refuses what would put the monitor's or the agent's parser out of step.
fn check(command: &str) -> Result<()> {
    let invalid = |reason: String| Err(ProtocolError::InvalidCommand { reason });
    match serde_json::from_str::<Outgoing>(command) {
        Err(error) => invalid(error.to_string()),
        Ok(Outgoing { execute: None, out_of_band: None, .. }) => {
            invalid("it is no JSON object with `execute`".to_owned())
        }
        Ok(Outgoing { id: Some(_), .. }) => invalid("it has an `id`, which is the carrier's".to_owned()),
        // Any JSON sequence of the right length would do for serde.
        Ok(_) if !command.trim_start().starts_with('{') => {
            invalid("it is no JSON object with `execute`".to_owned())
        }
        Ok(_) => Ok(()),
    }
}
