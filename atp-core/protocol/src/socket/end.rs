//! Why a link ended.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Why a link to a socket ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkEnd {
    /// The peer closed it: QEMU ended, or switched the socket to another client.
    #[error("the peer closed the connection")]
    PeerClosed,
    /// The peer closed it in the middle of a message.
    #[error("the peer closed the connection in the middle of a message")]
    CutOff,
    /// Reading or writing failed.
    #[error("the socket failed: {reason}")]
    Socket {
        /// The operating system's message.
        reason: String,
    },
    /// The peer sent something that is not a message of the protocol.
    #[error("the peer sent an invalid message: {begins:?}…")]
    NotAMessage {
        /// Its beginning.
        begins: String,
    },
    /// The peer sent a message longer than the limit.
    #[error("the peer sent a message of more than {limit} bytes")]
    TooLong {
        /// The limit, bytes.
        limit: usize,
    },
    /// This side closed it.
    #[error("this side closed the connection")]
    Closed,
}

impl LinkEnd {
    /// An invalid message, of which the beginning is kept.
    pub(super) fn not_a_message(text: &[u8]) -> Self {
        let begins = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
        LinkEnd::NotAMessage { begins }
    }
}

impl From<std::io::Error> for LinkEnd {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::UnexpectedEof => LinkEnd::CutOff,
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => LinkEnd::PeerClosed,
            _ => LinkEnd::Socket { reason: error.to_string() },
        }
    }
}

/// Why a command over a link failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SendError {
    /// The link ended.
    #[error("{end}")]
    Ended { end: LinkEnd, sent: bool },
    /// The command was answered, and the reply is longer than the limit.
    #[error("the reply has {size} bytes, and the limit is {limit}")]
    TooLarge { size: u64, limit: usize },
}

/// Whether a link has ended, and why.
#[derive(Clone, Default)]
pub(super) struct Ended {
    pub(super) reason: Arc<OnceLock<LinkEnd>>,
    pub(super) signal: CancellationToken,
}

impl Ended {
    /// Why the link ended. If no reason is set yet, this side is closing it.
    pub(super) fn reason(&self) -> LinkEnd {
        self.reason.get().cloned().unwrap_or(LinkEnd::Closed)
    }

    pub(super) fn set(&self, reason: LinkEnd) {
        // Only the reading task sets it, once.
        let _first = self.reason.set(reason);
        self.signal.cancel();
    }
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ended").field(&self.reason.get()).finish()
    }
}
