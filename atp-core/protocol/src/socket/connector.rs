//! Opens sockets for a pool.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;

use atp_transport::{
    ConnectAttempt, ConnectError, Connector, ErrorKind, HostInfo, InFlight, PooledConnection, TransportConfig,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::address::{Place, SocketAddress};
use super::config::SocketConfig;
use super::link::SocketLink;
use crate::peer::Peer;

/// A lease of a link to a monitor or to an agent.
pub type SocketConnection = PooledConnection<SocketConnector>;

/// Opens links to the sockets of QEMU and of agents that libvirt does not own.
///
/// Each host of its manager is one such socket, and its URI is a [`SocketAddress`]. QEMU serves one client at a time on
/// a socket, so a host has at most one connection, whatever the configuration says, and its leases take turns on it.
///
/// ```no_run
/// use std::time::Duration;
///
/// use atp_protocol::socket::{SocketCarrier, SocketConfig, SocketConnector};
/// use atp_protocol::{ProtocolError, monitor};
/// use atp_transport::{HostInfo, TransportConfig, TransportManager};
/// use tokio::time::Instant;
///
/// # async fn example() -> Result<(), ProtocolError> {
/// let connector = SocketConnector::new(SocketConfig::default());
/// let manager = TransportManager::with_connector(TransportConfig::default(), connector);
/// manager.add_host(HostInfo::from_uri("vm7", "qmp+unix:///run/vm7.qmp")).await?;
///
/// let status = manager.execute_on_host("vm7", |connection| async move {
///     let deadline = Instant::now() + Duration::from_secs(5);
///     monitor::execute(&SocketCarrier::new(&connection), &qapi::qmp::query_status {}, deadline).await
/// });
/// println!("{:?}", status.await?.status);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SocketConnector {
    config: SocketConfig,
}

impl SocketConnector {
    /// Creates a connector whose links have these limits.
    pub fn new(config: SocketConfig) -> Self {
        SocketConnector { config }
    }

    /// The limits of this connector's links.
    pub fn config(&self) -> &SocketConfig {
        &self.config
    }
}

impl Connector for SocketConnector {
    type Link = SocketLink;

    fn validate(&self, host: &HostInfo) -> Result<(), String> {
        address(host).map(drop)
    }

    fn adapt(&self, _host: &HostInfo, mut config: TransportConfig) -> TransportConfig {
        config.pool.max_connections_per_host = 1;
        config.pool.min_connections_per_host = config.pool.min_connections_per_host.min(1);
        config
    }

    async fn connect(&self, host: &HostInfo, attempt: ConnectAttempt) -> Result<SocketLink, ConnectError> {
        let address = address(host).map_err(|reason| ConnectError::new(ErrorKind::InvalidUri, reason))?;
        let silent = ConnectError::new(ErrorKind::HostUnreachable, format!("{address} does not answer"));
        attempt.waits_for(silent.clone());
        let deadline = attempt.deadline();
        match &address.place {
            Place::Unix(path) => {
                let stream = timeout_at(deadline, UnixStream::connect(path)).await.map_err(|_| silent)?;
                let stream = stream.map_err(|error| refused(&address, &error))?;
                self.greet(stream.into_split(), &address, &attempt).await
            }
            Place::Tcp { host, port } => {
                let opened = timeout_at(deadline, tcp(host, *port, attempt)).await.map_err(|_| silent)?;
                let (stream, attempt) = opened.map_err(|error| refused(&address, &error))?;
                self.greet(stream.into_split(), &address, &attempt).await
            }
        }
    }

    /// Asks a monitor for its version. For an agent, only checks whether its socket is open: an agent that does not
    /// answer, for example because its guest is booting, is reported by the calls and is not a fault of the link.
    async fn probe(
        &self,
        link: &Arc<SocketLink>,
        _in_flight: InFlight,
        deadline: Instant,
    ) -> Result<(), ConnectError> {
        let lost = |reason: String| ConnectError::new(ErrorKind::ConnectionLost, reason);
        if let Some(end) = link.end() {
            return Err(lost(end.to_string()));
        }
        match link.peer() {
            Peer::Agent => Ok(()),
            Peer::Monitor => {
                match timeout_at(deadline, link.send(r#"{"execute":"query-version"}"#, || ())).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => Err(lost(error.to_string())),
                    Err(_) => {
                        Err(ConnectError::new(ErrorKind::CallTimeout, "QEMU does not answer on its monitor"))
                    }
                }
            }
        }
    }

    async fn lost(&self, link: &SocketLink) {
        link.ended().await;
    }

    fn is_open(&self, link: &SocketLink) -> bool {
        link.end().is_none()
    }
}

impl SocketConnector {
    /// Makes a link from the two halves of a connection. They must be the socket's own halves: the halves of a generic
    /// split share a lock, and wait for each other also while one of them is in a system call.
    async fn greet<R, W>(
        &self,
        halves: (R, W),
        address: &SocketAddress,
        attempt: &ConnectAttempt,
    ) -> Result<SocketLink, ConnectError>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        if address.peer == Peer::Agent {
            return Ok(SocketLink::agent(halves, self.config.clone()));
        }
        let silent = ConnectError::new(
            ErrorKind::ConnectTimeout,
            format!(
                "{address} accepts connections, but QEMU sends no greeting: it hangs, or serves another client"
            ),
        );
        attempt.waits_for(silent.clone());
        match timeout_at(attempt.deadline(), SocketLink::monitor(halves, self.config.clone())).await {
            Err(_) => Err(silent),
            Ok(Ok(link)) => Ok(link),
            Ok(Err(end)) => Err(ConnectError::new(
                ErrorKind::ConnectFailed,
                format!("{address} is not a QMP monitor: {end}"),
            )),
        }
    }
}

fn address(host: &HostInfo) -> Result<SocketAddress, String> {
    let uri = host.uri.as_ref().ok_or("a host that is a socket needs a URI, such as qmp+unix:///PATH")?;
    uri.parse().map_err(|error: super::InvalidSocketAddress| error.to_string())
}

/// Tries each address of the name. The last failure is the one reported.
async fn tcp(host: &str, port: u16, attempt: ConnectAttempt) -> io::Result<(TcpStream, ConnectAttempt)> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let (addresses, attempt) = resolve(host, port, attempt).await?;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Each command is one small write, and the caller waits for its reply.
                stream.set_nodelay(true)?;
                return Ok((stream, attempt));
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Resolves a name on a thread of its own: a resolver can hang, and in the runtime's threads that would delay the end
/// of the process. The attempt counts as under way until the thread returns, which limits the number of hung threads.
async fn resolve(
    host: &str,
    port: u16,
    attempt: ConnectAttempt,
) -> io::Result<(Vec<SocketAddr>, ConnectAttempt)> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok((vec![(address, port).into()], attempt));
    }
    let (answer, resolved) = oneshot::channel();
    let name = host.to_owned();
    thread::Builder::new().name("atp-resolve".to_owned()).spawn(move || {
        let addresses = (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // An error means that the caller no longer waits. The attempt ends here.
        let _left = answer.send((addresses, attempt));
    })?;
    match resolved.await {
        Ok((Ok(addresses), attempt)) => Ok((addresses, attempt)),
        Ok((Err(error), _)) => {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("cannot resolve {host}: {error}")))
        }
        Err(_) => Err(io::Error::other("the thread that resolves names ended")),
    }
}

/// Classifies a failure to connect.
fn refused(address: &SocketAddress, error: &io::Error) -> ConnectError {
    let is_unix = matches!(address.place, Place::Unix(_));
    let (kind, reason) = match error.kind() {
        io::ErrorKind::NotFound if is_unix => {
            (ErrorKind::ConnectionRefused, "the socket does not exist".to_owned())
        }
        io::ErrorKind::NotFound => (ErrorKind::NameNotResolved, error.to_string()),
        io::ErrorKind::ConnectionRefused => {
            (ErrorKind::ConnectionRefused, "no program listens there".to_owned())
        }
        io::ErrorKind::WouldBlock => {
            (ErrorKind::ConnectFailed, "its queue of waiting clients is full".to_owned())
        }
        io::ErrorKind::PermissionDenied => (ErrorKind::ConnectFailed, error.to_string()),
        _ => (ErrorKind::HostUnreachable, error.to_string()),
    };
    ConnectError::new(kind, format!("{address}: {reason}"))
}
