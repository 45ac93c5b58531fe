//! Ways to a daemon: each gives a byte stream that the protocol is spoken over.

mod command;
mod dialler;
mod session;
mod stderr;
mod tcp;
mod tls;
mod unix;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::connect_error::{ConnectFailure, Progress, Stage};
use crate::options::ConnectOptions;
use crate::uri::{Transport, Uri};

pub use dialler::Dialler;
pub(crate) use stderr::Stderr;
pub(crate) use tls::may_be_no_tls;

/// Whether what listens for TCP at the host of a URI speaks TLS. Not asked of a way that a program opened itself.
pub(crate) async fn speaks_tls(uri: &Uri, options: &ConnectOptions) -> bool {
    if options.dialler.is_some() {
        return false;
    }
    match tcp::connect(uri, tcp::PORT, &Progress::new(&|_| {})).await {
        Ok(socket) => tls::answers(socket).await,
        Err(_) => false,
    }
}

/// A connection in the clear to the port that a URI means for TLS.
pub(crate) async fn clear(uri: &Uri) -> Option<Dialled> {
    let silent = Progress::new(&|_| {});
    tcp::connect(uri, tls::PORT, &silent).await.ok().map(|socket| Dialled::new(socket, false))
}

/// A byte stream.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Io for T {}

/// A way to a daemon that is open.
pub(crate) struct Dialled {
    pub(crate) io: Box<dyn Io + Unpin>,
    /// Whether no third party can read what is sent or act as the daemon. A password may be sent only then.
    pub(crate) private: bool,
    /// Whether each message has to be written by itself. Of several in one TLS record a daemon reads the first, and the others
    /// only when more data comes.
    pub(crate) separate: bool,
    pub(crate) stderr: Option<Stderr>,
}

impl Dialled {
    fn new(io: impl Io + Unpin + 'static, private: bool) -> Self {
        Dialled { io: Box::new(io), private, separate: false, stderr: None }
    }
}

/// Whether the far end of TLS or ssh is verified. Without that it may be anyone.
fn is_verified(uri: &Uri) -> bool {
    !uri.flag("no_verify")
}

/// Opens the way that a URI names. Dropping the future leaves nothing behind.
pub(crate) async fn dial(
    uri: &Uri,
    options: &ConnectOptions,
    progress: &Progress<'_>,
) -> Result<Dialled, ConnectFailure> {
    progress.set(Stage::Dial);
    if let Some(dialler) = &options.dialler {
        return dialler.dial(uri).await;
    }
    match uri.transport {
        Transport::Tcp => Ok(Dialled::new(tcp::connect(uri, tcp::PORT, progress).await?, false)),
        Transport::Tls => {
            let socket = tcp::connect(uri, tls::PORT, progress).await?;
            let dialled = Dialled::new(tls::negotiate(socket, uri, progress).await?, is_verified(uri));
            Ok(Dialled { separate: true, ..dialled })
        }
        Transport::Unix => Ok(Dialled::new(unix::connect(uri, options.read_only, progress).await?, true)),
        Transport::Ssh => command::ssh(uri, options, progress).await,
        Transport::Ext => command::ext(uri, progress),
    }
}
