//! Why a link came to its end.

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
