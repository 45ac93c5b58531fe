//! A way to daemons that the program opens itself.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Dialled, Io};
use crate::connect_error::ConnectFailure;
use crate::uri::Uri;

type Stream = Box<dyn Io + Unpin>;
type Dialling = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

/// Opens byte streams to daemons in place of the transports that are here: to a daemon in the same process, for tests in virtual
/// time, or through a tunnel.
///
/// It is called for each connection, and for each look at a daemon, with the URI that is opened. No password is sent over such
/// a stream.
#[derive(Clone)]
pub struct Dialler(Arc<dyn Fn(Uri) -> Dialling + Send + Sync>);

impl Dialler {
    /// Dials by this function. Dropping its future has to leave nothing behind.
    pub fn new<F, D, S>(dial: F) -> Self
    where
        F: Fn(Uri) -> D + Send + Sync + 'static,
        D: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Dialler(Arc::new(move |uri| {
            let dialling = dial(uri);
            Box::pin(async move { dialling.await.map(|stream| Box::new(stream) as Stream) })
        }))
    }

    pub(super) async fn dial(&self, uri: &Uri) -> Result<Dialled, ConnectFailure> {
        match (self.0)(uri.clone()).await {
            // What the stream is made of is not known here.
            Ok(io) => Ok(Dialled { io, private: false, separate: true, stderr: None }),
            Err(source) => Err(ConnectFailure::Dial { to: uri.to_string(), source }),
        }
    }
}

impl fmt::Debug for Dialler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialler")
    }
}
