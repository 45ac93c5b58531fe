//! Why a link came to its end.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Why a link to a socket came to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkEnd {
    /// The peer closed it: QEMU ended, or gave the socket to another client.
    #[error("the peer closed the connection")]
    PeerClosed,
    /// The peer closed it within a message.
    #[error("the peer closed the connection in the middle of a message")]
    CutOff,
    /// Reading or writing failed.
    #[error("the socket failed: {reason}")]
    Socket {
        /// The operating system's words.
        reason: String,
    },
    /// The peer sent something that is no message of the protocol.
    #[error("the peer sent what is no message: {begins:?}…")]
    NotAMessage {
        /// How it begins.
        begins: String,
    },
    /// The peer sent a message longer than is taken.
    #[error("the peer sent a message of more than {limit} bytes")]
    TooLong {
        /// The most that is taken, bytes.
        limit: usize,
    },
    /// We closed it.
    #[error("it was closed here")]
    Closed,
}

impl LinkEnd {
    /// Something that is no message, of which the beginning is kept.
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

/// How a command over a link failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SendError {
    /// The link ended.
    #[error("{end}")]
    Ended { end: LinkEnd, sent: bool },
    /// The command was answered, by more than is taken.
    #[error("the reply has {size} bytes, and at most {limit} are taken")]
    TooLarge { size: u64, limit: usize },
}

/// How a link ended, if it has.
#[derive(Clone, Default)]
pub(super) struct Ended {
    pub(super) reason: Arc<OnceLock<LinkEnd>>,
    pub(super) signal: CancellationToken,
}

impl Ended {
    /// Why; a link that is just being closed has been closed here.
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
