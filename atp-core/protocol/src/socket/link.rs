//! An open link to a socket, and the task that reads from it.

use std::fmt;
use std::sync::Arc;

use futures_util::StreamExt;
use qapi::qmp::QMP;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::codec::FramedRead;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::agent::Agent;
use super::codec::{Content, LineCodec};
use super::config::SocketConfig;
use super::end::{Ended, LinkEnd, SendError};
use super::events::MonitorEvents;
use super::monitor::Monitor;
use super::outbox::Outbox;
use crate::peer::Peer;

/// The command that ends the capabilities negotiation, before which QEMU accepts no other. No capability is requested:
/// out-of-band commands could overtake others.
const CAPABILITIES: &[u8] = b"{\"execute\":\"qmp_capabilities\",\"id\":0}\n";

/// An open link to a monitor or an agent. Dropping it closes it, and neither blocks nor panics.
///
/// A separate task reads from the socket for as long as the link is open, so unread data never blocks the link.
pub struct SocketLink {
    session: Arc<Session>,
    _closing: DropGuard,
}

/// The state that the callers and the reading task share.
struct Session {
    outbox: Outbox,
    kind: Kind,
    ended: Ended,
    limit: usize,
}

enum Kind {
    Monitor { session: Monitor, greeting: QMP },
    Agent(Agent),
}

/// QEMU's greeting.
#[derive(Deserialize)]
struct GreetingMessage {
    #[serde(rename = "QMP")]
    greeting: QMP,
}

#[derive(Deserialize)]
struct Negotiated {
    id: Option<Value>,
    error: Option<Value>,
}

impl SocketLink {
    /// Makes a link from the two halves of a connection to a monitor: waits for QEMU's greeting and negotiates.
    ///
    /// # Errors
    /// Why the peer's bytes are not the beginning of QMP.
    ///
    /// Waits without limit if the peer sends nothing. Cancel safe: the connection is closed. Must be called within a
    /// tokio runtime.
    pub async fn monitor<R, W>((reader, mut writer): (R, W), config: SocketConfig) -> Result<Self, LinkEnd>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let mut reader = FramedRead::new(reader, LineCodec::new(config.max_reply, config.oversized));
        let text = next_text(&mut reader, config.max_reply).await?;
        let greeting: GreetingMessage =
            serde_json::from_str(&text).map_err(|_| LinkEnd::not_a_message(text.as_bytes()))?;
        writer.write_all(CAPABILITIES).await?;
        loop {
            let text = next_text(&mut reader, config.max_reply).await?;
            let reply: Negotiated =
                serde_json::from_str(&text).map_err(|_| LinkEnd::not_a_message(text.as_bytes()))?;
            if reply.error.is_some() {
                return Err(LinkEnd::not_a_message(text.as_bytes()));
            }
            if reply.id.is_some_and(|id| id == 0) {
                break;
            }
        }
        let (ended, limit) = (Ended::default(), config.max_command);
        let session = Monitor::new(config, ended.clone());
        let kind = Kind::Monitor { session, greeting: greeting.greeting };
        Ok(SocketLink::start(reader, Outbox::new(writer), kind, ended, limit))
    }

    /// Makes a link from the two halves of a connection to an agent. Does not wait for the agent, which may not be
    /// running yet.
    ///
    /// Must be called within a tokio runtime.
    pub fn agent<R, W>((reader, writer): (R, W), config: SocketConfig) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let reader = FramedRead::new(reader, LineCodec::new(config.max_reply, config.oversized));
        let (ended, limit) = (Ended::default(), config.max_command);
        let kind = Kind::Agent(Agent::new(config, ended.clone()));
        SocketLink::start(reader, Outbox::new(writer), kind, ended, limit)
    }

    fn start<R>(
        reader: FramedRead<R, LineCodec>,
        outbox: Outbox,
        kind: Kind,
        ended: Ended,
        limit: usize,
    ) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let closing = CancellationToken::new();
        let session = Arc::new(Session { outbox, kind, ended, limit });
        tokio::spawn(serve(session.clone(), reader, closing.clone()));
        SocketLink { session, _closing: closing.drop_guard() }
    }

    /// The peer that answers on it.
    pub fn peer(&self) -> Peer {
        match self.session.kind {
            Kind::Monitor { .. } => Peer::Monitor,
            Kind::Agent(_) => Peer::Agent,
        }
    }

    /// QEMU's version and the capabilities of its monitor. None on an agent's link.
    pub fn greeting(&self) -> Option<&QMP> {
        match &self.session.kind {
            Kind::Monitor { greeting, .. } => Some(greeting),
            Kind::Agent(_) => None,
        }
    }

    /// The monitor's events from now on. None on an agent's link.
    ///
    /// # Errors
    /// Why the link has ended.
    pub fn events(&self) -> Option<Result<MonitorEvents, LinkEnd>> {
        match &self.session.kind {
            Kind::Monitor { session, .. } => Some(session.events()),
            Kind::Agent(_) => None,
        }
    }

    /// Why it has ended, or none if it is open.
    pub fn end(&self) -> Option<LinkEnd> {
        self.session.ended.reason.get().cloned()
    }

    /// Returns when it has ended. Cancel safe.
    pub async fn ended(&self) -> LinkEnd {
        self.session.ended.signal.cancelled().await;
        self.session.ended.reason()
    }

    /// The longest command that is sent, bytes.
    pub(super) fn max_command(&self) -> usize {
        self.session.limit
    }

    /// Sends a command and waits for its reply. `sent` is called when the command is being sent.
    ///
    /// Cancel safe: a later reply is dropped.
    pub(super) async fn send(&self, command: &str, sent: impl FnOnce()) -> Result<String, SendError> {
        match &self.session.kind {
            Kind::Monitor { session, .. } => session.send(&self.session.outbox, command, sent).await,
            Kind::Agent(session) => session.send(&self.session.outbox, command, sent).await,
        }
    }
}

impl fmt::Debug for SocketLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketLink").field("peer", &self.peer()).field("end", &self.end()).finish()
    }
}

impl Session {
    fn end(&self, reason: LinkEnd) {
        self.ended.set(reason);
        match &self.kind {
            Kind::Monitor { session, .. } => session.end(),
            Kind::Agent(session) => session.end(),
        }
        self.outbox.close();
    }
}

/// The task of a link: reads, and sends what could not be sent at once, until either fails or the link is dropped.
async fn serve<R>(session: Arc<Session>, reader: FramedRead<R, LineCodec>, closing: CancellationToken)
where
    R: AsyncRead + Send + Unpin,
{
    let reason = tokio::select! {
        biased;
        () = closing.cancelled() => LinkEnd::Closed,
        reason = read(&session.kind, reader) => reason,
        error = session.outbox.drain() => error.into(),
    };
    tracing::debug!(%reason, "a link ended");
    session.end(reason);
}

async fn read<R: AsyncRead + Unpin>(kind: &Kind, mut reader: FramedRead<R, LineCodec>) -> LinkEnd {
    loop {
        let received = match reader.next().await {
            Some(Ok(frame)) => match kind {
                Kind::Monitor { session, .. } => session.receive(frame),
                Kind::Agent(session) => session.receive(frame),
            },
            Some(Err(error)) => return error.into(),
            None => return LinkEnd::PeerClosed,
        };
        if let Err(end) = received {
            return end;
        }
    }
}

/// The next line of a negotiation.
async fn next_text<R: AsyncRead + Unpin>(
    reader: &mut FramedRead<R, LineCodec>,
    limit: usize,
) -> Result<String, LinkEnd> {
    match reader.next().await {
        None => Err(LinkEnd::PeerClosed),
        Some(frame) => match frame?.content {
            Content::Text(text) => Ok(text),
            Content::NotText(begins) => Err(LinkEnd::not_a_message(&begins)),
            Content::TooLong(_) => Err(LinkEnd::TooLong { limit }),
        },
    }
}
