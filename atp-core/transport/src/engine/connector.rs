//! How ATP reaches a libvirt daemon: the [`Connector`] whose links are [`LibvirtLink`]s.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::LibvirtLink;
#[cfg(feature = "library")]
use super::library::Library;
#[cfg(feature = "native")]
use super::native;
use super::uri::LibvirtUri;
use crate::admission::calls::InFlight;
use crate::config::{Engine, TransportConfig};
use crate::connection::connector::Connector;
use crate::connection::reconnect::ConnectAttempt;
use crate::error::{ConnectError, ErrorKind};
use crate::host::HostInfo;

/// Name and port of the daemon's own socket in a URI, where it is reached by TCP or TLS; none by other ways, and of what
/// is no URI.
pub fn daemon_socket(uri: &str) -> Option<(String, u16)> {
    LibvirtUri::parse(uri).ok()?.socket
}

/// Calls in flight that a connection of the native engine has at most: at the daemon's `max_client_requests`, 5 by default,
/// it stops reading the connection, pings included. Where that is lower, the connection says so when it is open.
const NATIVE_CALLS: usize = 4;
/// Calls that overran that such a connection bears: with two, two places are left, and no more may hang before the daemon
/// stops reading.
const NATIVE_OVERRUN: usize = 2;

/// Opens connections to libvirt daemons, by the engine that each host's configuration names.
pub struct LibvirtConnector {
    #[cfg(feature = "library")]
    library: Library,
}

impl LibvirtConnector {
    /// A connector with threads of its own: one that closes connections, and those for calls as there is work.
    pub fn new(config: &TransportConfig) -> Self {
        let _of_all_engines = config;
        LibvirtConnector {
            #[cfg(feature = "library")]
            library: Library::new(config),
        }
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

    /// Settles which engine the host has, and how many calls its connections bear.
    fn adapt(&self, _: &HostInfo, mut config: TransportConfig) -> TransportConfig {
        config.engine = config.engine.resolve();
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
        let uri = LibvirtUri::parse(&host.effective_uri())
            .map_err(|reason| ConnectError::new(ErrorKind::InvalidUri, reason))?;
        match attempt.config().engine {
            #[cfg(feature = "library")]
            Engine::Library => self.library.connect(uri, host, attempt).await.map(LibvirtLink::Library),
            #[cfg(feature = "native")]
            Engine::Native => native::connect(uri, host, attempt).await.map(LibvirtLink::Native),
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

    fn bears(&self, link: &LibvirtLink) -> usize {
        link.bears()
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
        let limits = |config: TransportConfig| {
            let TransportConfig { engine, calls, .. } = connector.adapt(&host, config);
            (engine, calls.max_per_connection, calls.suspect_after)
        };
        let of = |engine| TransportConfig { engine, ..TransportConfig::default() };
        assert_eq!(limits(of(Engine::Auto)), (Engine::Library, 1, 1));
        assert_eq!(limits(of(Engine::Library)), (Engine::Library, 1, 1));
        assert_eq!(limits(of(Engine::Native)), (Engine::Native, 4, 2));
        let mut set = of(Engine::Native);
        (set.calls.max_per_connection, set.calls.suspect_after) = (3, 1);
        assert_eq!(limits(set), (Engine::Native, 3, 1));
    }
}
