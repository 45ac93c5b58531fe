//! Ways to a daemon: each gives a byte stream that the protocol is spoken over.

mod stderr;
mod tcp;
mod unix;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::connect::ConnectOptions;
use crate::connect_error::{ConnectFailure, Progress, Stage};
use crate::uri::{Transport, Uri};

pub(crate) use stderr::Stderr;

/// A byte stream.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Io for T {}

/// A way to a daemon that is open.
pub(crate) struct Dialled {
    pub(crate) io: Box<dyn Io + Unpin>,
    /// Whether nobody else can read along or pretend to be the daemon, so that a password may be sent.
    pub(crate) private: bool,
    pub(crate) stderr: Option<Stderr>,
}

impl Dialled {
    fn new(io: impl Io + Unpin + 'static, private: bool) -> Self {
        Dialled { io: Box::new(io), private, stderr: None }
    }
}

/// Opens the way that a URI names. Dropping the future leaves nothing behind.
pub(crate) async fn dial(
    uri: &Uri,
    options: &ConnectOptions,
    progress: &Progress,
) -> Result<Dialled, ConnectFailure> {
    progress.set(Stage::Dial);
    match uri.transport {
        Transport::Tcp => Ok(Dialled::new(tcp::connect(uri, tcp::PORT, options, progress).await?, false)),
        Transport::Unix => Ok(Dialled::new(unix::connect(uri, options.read_only).await?, true)),
        _ => Err(ConnectFailure::Unsupported("this transport is not built in".into())),
    }
}
