//! Direct sockets through a pool, against a scripted peer, over real sockets.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test that calls it")]

mod faults;
mod peer;
mod pool;

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use atp_protocol::socket::{SocketCarrier, SocketConfig, SocketConnection, SocketConnector};
use atp_protocol::{ProtocolError, RawCommand, monitor};
use atp_transport::{ExecuteOptions, HostInfo, TransportConfig, TransportManager};
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use peer::Peer;

/// The longest time for steps that should be fast. The machine may be busy.
const SOON: Duration = Duration::from_secs(60);
/// A deadline that is meant to pass, and long enough for the steps before it.
const SHORT: Duration = Duration::from_secs(2);

/// A socket on which the test plays the part of QEMU or of an agent.
pub(crate) struct Socket {
    listener: Listener,
    folder: Option<PathBuf>,
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Socket {
    pub(crate) fn unix() -> Self {
        let name = format!("atp-peer-{}", uuid::Uuid::from_u128(fastrand::u128(..)));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).unwrap();
        let listener = Listener::Unix(UnixListener::bind(folder.join("socket")).unwrap());
        Socket { listener, folder: Some(folder) }
    }

    pub(crate) async fn tcp() -> Self {
        Socket { listener: Listener::Tcp(TcpListener::bind("127.0.0.1:0").await.unwrap()), folder: None }
    }

    /// `qmp+unix:///…` and so on.
    pub(crate) fn uri(&self, protocol: &str) -> String {
        match &self.listener {
            Listener::Unix(_) => {
                format!("{protocol}+unix://{}/socket", self.folder.as_ref().unwrap().display())
            }
            Listener::Tcp(listener) => {
                format!("{protocol}+tcp://localhost:{}", listener.local_addr().unwrap().port())
            }
        }
    }

    /// The next client.
    pub(crate) async fn accept(&self) -> Peer {
        match &self.listener {
            Listener::Unix(listener) => Peer::new(listener.accept().await.unwrap().0),
            Listener::Tcp(listener) => Peer::new(listener.accept().await.unwrap().0),
        }
    }

    /// The next client, after its greeting.
    pub(crate) async fn monitor(&self) -> Peer {
        let mut peer = self.accept().await;
        peer.negotiate().await;
        peer
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
}

/// A configuration that reconnects quickly.
pub(crate) fn config() -> TransportConfig {
    let mut config =
        TransportConfig { connect_timeout: Duration::from_secs(5), ..TransportConfig::default() };
    config.reconnect.initial_delay = Duration::from_millis(10);
    config.reconnect.max_delay = Duration::from_millis(100);
    // The handling of a host whose calls fail one after another is tested elsewhere.
    config.breaker.enabled = false;
    config
}

/// A manager of one host, called `vm`.
pub(crate) async fn manager(uri: &str, sockets: SocketConfig) -> TransportManager<SocketConnector> {
    let manager = TransportManager::with_connector(config(), SocketConnector::new(sockets));
    manager.add_host(HostInfo::from_uri("vm", uri)).await.unwrap();
    manager
}

/// A monitor command through the pool.
pub(crate) async fn qmp(
    manager: &TransportManager<SocketConnector>,
    command: &str,
    limit: Duration,
) -> Result<Value, ProtocolError> {
    let deadline = Instant::now() + limit;
    let command = RawCommand::from_words([command]).unwrap();
    let work = |connection: SocketConnection| async move {
        monitor::execute_raw(&SocketCarrier::new(&connection), &command, deadline).await
    };
    manager.execute_on_host_with("vm", ExecuteOptions::by(deadline), work).await
}

/// Runs a peer's part next to the test. A panic in it fails the test when it is awaited.
pub(crate) fn play<F>(part: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    tokio::spawn(part)
}

/// Answers every command with its name, until the link is closed.
pub(crate) async fn echo(peer: &mut Peer) {
    loop {
        let command = peer.command().await;
        if command.is_null() {
            return;
        }
        peer.answer(&command, json!(command["execute"])).await;
    }
}
