//! How a link to a host is opened, probed and closed: the seam between the pool and libvirt.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::admission::calls::InFlight;
use crate::config::TransportConfig;
use crate::connection::reconnect::ConnectAttempt;
use crate::error::{ConnectError, ErrorKind, LibvirtError, TransportError};
use crate::host::{HostId, HostInfo};

/// Opens links to hosts.
///
/// Everything above this trait (states, reconnects, heartbeat, pool, limits) knows nothing of libvirt.
/// [`LibvirtConnector`](crate::LibvirtConnector) is the implementation for real hosts; tests script their own.
pub trait Connector: Send + Sync + 'static {
    /// An open link. Dropping the last handle closes it; that must neither block nor panic.
    type Link: Send + Sync + 'static;

    /// Checks what can be checked about a host without contacting it.
    ///
    /// # Errors
    /// A sentence about what is wrong with the host's URI.
    fn validate(&self, host: &HostInfo) -> Result<(), String>;

    /// Takes over what the configuration of all hosts together says of the connector.
    /// Called whenever the manager gets another configuration.
    fn configure(&self, config: &TransportConfig) {
        let _nothing_to_configure = config;
    }

    /// A host's configuration, with what links to this host cannot do taken out: for one that can be opened only
    /// once, a pool of one connection.
    fn adapt(&self, host: &HostInfo, config: TransportConfig) -> TransportConfig {
        let _all_alike = host;
        config
    }

    /// Opens a link. The future ends by the attempt's deadline, whatever hangs below.
    ///
    /// Cancel safe: a link whose caller has left is closed.
    fn connect(
        &self,
        host: &HostInfo,
        attempt: ConnectAttempt,
    ) -> impl Future<Output = Result<Self::Link, ConnectError>> + Send;

    /// Makes a cheap real call over the link, to learn whether the far side answers. Ends by `deadline`. `in_flight` is
    /// dropped when the call is really over, however long after the future was dropped.
    ///
    /// # Errors
    /// Why the link counts as lost.
    fn probe(
        &self,
        link: &Arc<Self::Link>,
        in_flight: InFlight,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), ConnectError>> + Send;

    /// Returns when the link has noticed by itself that it is lost; never, for links that cannot. Cancel safe.
    fn lost(&self, link: &Self::Link) -> impl Future<Output = ()> + Send {
        let _cannot = link;
        std::future::pending()
    }

    /// How many calls in flight the far side allows on this link, as far as is known, at least one; as many as are configured,
    /// for links that cannot tell.
    fn max_in_flight(&self, link: &Self::Link) -> usize {
        let _cannot = link;
        usize::MAX
    }

    /// Whether [`max_in_flight`](Self::max_in_flight) is all that the link can allow: [`measure`](Self::measure) has nothing to find out.
    fn is_measured(&self, link: &Self::Link) -> bool {
        let _cannot = link;
        true
    }

    /// Finds out how many calls in flight the far side allows on this link, when more than one is wanted. Asked at most once for
    /// each link, which may have calls in flight. Cancel safe.
    fn measure(&self, link: &Self::Link) -> impl Future<Output = usize> + Send {
        std::future::ready(self.max_in_flight(link))
    }

    /// Whether the link's socket is open, as far as is known here; does not ask the far side.
    fn is_open(&self, link: &Self::Link) -> bool;
}

/// How a call over a link failed, other than by its deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallFailure {
    /// The far side answered with an error.
    Refused {
        /// The kind of the error.
        kind: ErrorKind,
        /// The error itself.
        source: LibvirtError,
    },
    /// The link broke.
    Lost {
        /// Whether the request may have been sent.
        sent: bool,
        /// What the library said of it.
        source: Option<LibvirtError>,
    },
    /// Nothing was sent: another command, anybody's, occupies the VM.
    Busy {
        /// For how long it has.
        occupied_for: Duration,
    },
    /// No thread could be had to make the call on; nothing was sent.
    NoThread {
        /// Threads in use for calls, all hosts together.
        threads: usize,
    },
    /// Only the engine on libvirt's C library can do it, and the link is another's; nothing was sent.
    #[cfg(feature = "library")]
    NeedsLibrary,
    /// The code of the call panicked.
    Panicked {
        /// The panic's message.
        message: String,
    },
}

impl CallFailure {
    /// The failure of something that a link needs to be of use, as those who wait for the link see it.
    pub(crate) fn into_connect_error(self, kind: ErrorKind, what: &str) -> ConnectError {
        match self {
            CallFailure::Refused { source, .. } | CallFailure::Lost { source: Some(source), .. } => {
                ConnectError { source: Some(source), ..ConnectError::new(kind, what) }
            }
            CallFailure::Lost { source: None, .. } => {
                ConnectError::new(kind, format!("{what}: the connection was lost"))
            }
            CallFailure::Busy { occupied_for } => {
                ConnectError::new(kind, format!("{what}: occupied for {occupied_for:.1?}"))
            }
            CallFailure::NoThread { threads } => ConnectError::no_thread(threads),
            #[cfg(feature = "library")]
            CallFailure::NeedsLibrary => {
                ConnectError::new(kind, format!("{what}: it needs libvirt's C library"))
            }
            CallFailure::Panicked { message } => {
                ConnectError::new(kind, format!("{what}: panicked: {message}"))
            }
        }
    }

    /// The failure of `operation` on `host`, as callers see it.
    pub(crate) fn into_error(self, host: HostId, operation: &'static str) -> TransportError {
        match self {
            CallFailure::Refused { kind, source } => {
                let kind = source.kind_of(operation, kind);
                TransportError::Libvirt { host, operation, kind, source }
            }
            CallFailure::Lost { sent, source } => {
                TransportError::ConnectionLost { host, operation, sent, source }
            }
            CallFailure::Busy { occupied_for } => {
                TransportError::MonitorBusy { host, operation, occupied_for }
            }
            CallFailure::NoThread { threads } => TransportError::NoThread { host, operation, threads },
            #[cfg(feature = "library")]
            CallFailure::NeedsLibrary => TransportError::NeedsLibrary { host, operation },
            CallFailure::Panicked { message } => TransportError::Panicked { host, message },
        }
    }
}
