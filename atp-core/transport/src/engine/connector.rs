//! How ATP reaches a libvirt daemon: the [`Connector`] whose links are [`LibvirtLink`]s.

use std::sync::Arc;

#[cfg(feature = "native")]
use atp_rpc::Dialler;
use tokio::time::{Instant, timeout_at};

use super::LibvirtLink;
#[cfg(feature = "library")]
use super::library::Library;
#[cfg(feature = "native")]
use super::native;
use super::reading::reading;
use super::uri::{LibvirtUri, Transport};
use crate::admission::calls::InFlight;
use crate::config::{Engine, TransportConfig};
use crate::connection::connector::Connector;
use crate::connection::reconnect::ConnectAttempt;
use crate::error::{ConnectError, ConnectStage, ErrorKind};
use crate::host::HostInfo;

/// The URI of clients that name none: as `LIBVIRT_DEFAULT_URI` says, or `uri_default` in `libvirt.conf`; none without
/// either. A `libvirt.conf` that cannot be read is passed over.
pub fn default_uri() -> Option<String> {
    #[cfg(feature = "native")]
    return atp_rpc::default_uri().ok().flatten();
    #[cfg(not(feature = "native"))]
    return std::env::var("LIBVIRT_DEFAULT_URI").ok().filter(|uri| !uri.is_empty());
}

/// How a daemon is reached, by its URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonWay {
    /// The transport: `unix`, `tcp`, `tls`, `ssh` or `ext`; for what is inside the C library `libssh` or `driver`.
    pub transport: &'static str,
    /// The host in the URI.
    pub host: Option<String>,
    /// The port of the daemon's own socket, where it is reached by TCP or TLS.
    pub port: Option<u16>,
}

impl DaemonWay {
    /// The way of a URI; none of what is no URI.
    pub fn of(uri: &str) -> Option<Self> {
        let uri = LibvirtUri::parse(uri).ok()?;
        let transport = match uri.transport {
            Transport::Unix => "unix",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Ssh => "ssh",
            Transport::LibSsh => "libssh",
            Transport::Ext => "ext",
            Transport::Driver => "driver",
        };
        match uri.socket {
            Some((host, port)) => Some(DaemonWay { transport, host: Some(host), port: Some(port) }),
            None => Some(DaemonWay { transport, host: uri.host, port: None }),
        }
    }
}

/// Calls in flight that a connection of the native engine has at most: at the daemon's `max_client_requests`, 5 by default,
/// it stops reading the connection, pings included. Where that is lower, the connection finds it out.
const NATIVE_CALLS: usize = 4;
/// Calls that overran that such a connection allows: with two, two places are left, and no more may hang before the daemon
/// stops reading.
const NATIVE_OVERRUN: usize = 2;

/// Opens connections to libvirt daemons, by the engine that each host's configuration names.
pub struct LibvirtConnector {
    #[cfg(feature = "library")]
    library: Library,
    #[cfg(feature = "native")]
    dialler: Option<Dialler>,
}

impl LibvirtConnector {
    /// A connector with threads of its own: one that closes connections, and those for calls as there is work.
    pub fn new(config: &TransportConfig) -> Self {
        let _of_all_engines = config;
        LibvirtConnector {
            #[cfg(feature = "library")]
            library: Library::new(config),
            #[cfg(feature = "native")]
            dialler: None,
        }
    }

    /// Has the native engine open the ways to daemons by `dialler` in place of the URIs' transports: for tests with daemons in the
    /// same process.
    #[cfg(feature = "native")]
    pub fn with_dialler(mut self, dialler: Dialler) -> Self {
        self.dialler = Some(dialler);
        self
    }
}

impl Connector for LibvirtConnector {
    type Link = LibvirtLink;

    fn validate(&self, host: &HostInfo) -> Result<(), String> {
        LibvirtUri::parse(&host.effective_uri()).map(drop)
    }

    fn configure(&self, config: &TransportConfig) {
        let _of_all_engines = config;
        #[cfg(feature = "library")]
        self.library.configure(config);
    }

    /// Settles which engine the host has, and how many calls its connections allow.
    fn adapt(&self, host: &HostInfo, mut config: TransportConfig) -> TransportConfig {
        config.engine = config.engine.for_uri(&host.effective_uri());
        let (most, borne) = match config.engine {
            Engine::Native => (NATIVE_CALLS, NATIVE_OVERRUN),
            Engine::Library | Engine::Auto => (1, 1),
        };
        if config.calls.max_per_connection == 0 {
            config.calls.max_per_connection = most;
        }
        if config.calls.suspect_after == 0 {
            config.calls.suspect_after = borne;
        }
        config
    }

    async fn connect(&self, host: &HostInfo, attempt: ConnectAttempt) -> Result<LibvirtLink, ConnectError> {
        let text = host.effective_uri();
        let parsed = match text.contains(':') {
            true => LibvirtUri::parse(&text),
            // A name is looked up in a file.
            false => {
                reading(move || LibvirtUri::parse(&text)).await.unwrap_or_else(|error| Err(error.to_string()))
            }
        };
        let uri = parsed
            .map_err(|reason| ConnectError::new(ErrorKind::InvalidUri, reason).at(ConnectStage::Settings))?;
        match attempt.config().engine {
            #[cfg(feature = "library")]
            Engine::Library => self.library.connect(uri, host, attempt).await.map(LibvirtLink::Library),
            #[cfg(feature = "native")]
            Engine::Native => {
                let dialler = self.dialler.clone();
                native::connect(uri, host, attempt, dialler).await.map(LibvirtLink::Native)
            }
            // Configurations are checked before, so that this is a program without any engine.
            engine => {
                let reason = format!("{}: this program was built without the engine {engine}", uri.shown);
                Err(ConnectError::new(ErrorKind::InvalidUri, reason))
            }
        }
    }

    async fn probe(
        &self,
        link: &Arc<LibvirtLink>,
        in_flight: InFlight,
        deadline: Instant,
    ) -> Result<(), ConnectError> {
        match timeout_at(deadline, link.lib_version(in_flight)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(failure)) => {
                Err(failure
                    .into_connect_error(ErrorKind::ConnectionLost, "the daemon did not answer the probe"))
            }
            Err(_) => Err(ConnectError::new(ErrorKind::CallTimeout, "the daemon does not answer")),
        }
    }

    async fn lost(&self, link: &LibvirtLink) {
        link.closed().await;
    }

    fn max_in_flight(&self, link: &LibvirtLink) -> usize {
        link.max_in_flight()
    }

    fn is_measured(&self, link: &LibvirtLink) -> bool {
        link.is_measured()
    }

    async fn measure(&self, link: &LibvirtLink) -> usize {
        link.measure().await
    }

    fn is_open(&self, link: &LibvirtLink) -> bool {
        link.is_open()
    }
}

#[cfg(all(test, feature = "library", feature = "native"))]
mod tests {
    use super::*;

    #[test]
    fn each_engine_has_limits_of_its_own_unless_they_are_set() {
        let connector = LibvirtConnector::new(&TransportConfig::default());
        let host = HostInfo::new("h1", "192.0.2.1");
        let limits_of = |host: &HostInfo, config: TransportConfig| {
            let TransportConfig { engine, calls, .. } = connector.adapt(host, config);
            (engine, calls.max_per_connection, calls.suspect_after)
        };
        let limits = |config| limits_of(&host, config);
        let of = |engine| TransportConfig { engine, ..TransportConfig::default() };
        assert_eq!(limits(of(Engine::Auto)), (Engine::Native, 4, 2));
        let inside = HostInfo::from_uri("h2", "test:///default");
        assert_eq!(limits_of(&inside, of(Engine::Auto)), (Engine::Library, 1, 1));
        assert_eq!(limits(of(Engine::Library)), (Engine::Library, 1, 1));
        assert_eq!(limits(of(Engine::Native)), (Engine::Native, 4, 2));
        let mut set = of(Engine::Native);
        (set.calls.max_per_connection, set.calls.suspect_after) = (3, 1);
        assert_eq!(limits(set), (Engine::Native, 3, 1));
    }
}
