//! Hosts reached through libvirt. The only place that knows the `virt` crate.

mod auth;
mod channel;
mod close_notice;
mod closer;
mod control_info;
mod domain;
mod domain_events;
mod domain_stats;
mod error;
mod event_loop;
mod labels;
mod link;
mod machine;
mod screenshot;
mod stream;
mod threads;
mod uri;
mod watch;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use virt::connect::Connect;

use crate::admission::calls::InFlight;
use crate::config::{KeepaliveConfig, TransportConfig};
use crate::connection::connector::Connector;
use crate::connection::reconnect::ConnectAttempt;
use crate::error::{ConnectError, ErrorKind};
use crate::host::Credentials;
use crate::host::HostInfo;
use crate::pool::PooledConnection;
use closer::Unused;
use link::Handles;
use threads::{CallThreads, ThreadsExhausted};
use uri::LibvirtUri;

pub use channel::{ChannelError, ChannelOptions, DomainChannel};
pub use domain::{Hypervisor, Version};
pub use labels::read_labels;
pub use link::LibvirtLink;
pub use screenshot::RawImage;
pub use watch::{DomainEvents, WatchItem, WatchOptions};

/// Name and port of the daemon's own socket in a URI, where it is reached by TCP or TLS; none by other ways, and of what
/// is no URI.
pub fn daemon_socket(uri: &str) -> Option<(String, u16)> {
    LibvirtUri::parse(uri).ok()?.socket
}

/// A lease of a libvirt connection: what closures run by a [`TransportManager`](crate::TransportManager) get.
pub type LibvirtConnection = PooledConnection<LibvirtConnector>;

/// Opens libvirt connections, and runs the C library's blocking calls on threads of its own.
pub struct LibvirtConnector {
    threads: CallThreads,
    keepalive: Mutex<KeepaliveConfig>,
    closer: mpsc::Sender<Unused<Handles>>,
}

impl LibvirtConnector {
    /// A connector with its own threads, for calls and for closing connections, as there is work.
    pub fn new(config: &TransportConfig) -> Self {
        let threads = CallThreads::new(config.calls.max_threads, config.calls.thread_idle_timeout);
        LibvirtConnector { threads, keepalive: Mutex::new(config.keepalive.clone()), closer: closer::start() }
    }

    fn keepalive(&self) -> MutexGuard<'_, KeepaliveConfig> {
        // Nothing under this lock can panic.
        self.keepalive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out by a plain TCP connection, within the deadline, whether anything listens there: the C
    /// library would try for minutes, and say less. Gives the attempt back, to go on.
    async fn check_tcp(
        &self,
        host: &str,
        port: u16,
        attempt: ConnectAttempt,
    ) -> Result<ConnectAttempt, ConnectError> {
        let name = host.to_owned();
        let look_up = move || (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
        let (addresses, attempt) = self.resolve(host, attempt, look_up).await?;
        let mut failure = ConnectError::new(ErrorKind::NameNotResolved, format!("{host} has no address"));
        for (tried, address) in addresses.iter().enumerate() {
            let silent = ConnectError::new(ErrorKind::HostUnreachable, format!("{address} does not answer"));
            attempt.waits_for(silent.clone());
            let now = Instant::now();
            // The addresses share what time is left, so that a dead one does not use up that of the others.
            let share = attempt.deadline().saturating_duration_since(now) / (addresses.len() - tried) as u32;
            failure = match timeout_at(now + share, TcpStream::connect(address)).await {
                Ok(Ok(_)) => return Ok(attempt),
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    ConnectError::new(ErrorKind::ConnectionRefused, format!("{address} refuses connections"))
                }
                Ok(Err(error)) => {
                    ConnectError::new(ErrorKind::HostUnreachable, format!("{address}: {error}"))
                }
                Err(_) => silent,
            };
        }
        Err(failure)
    }

    /// Resolves a name on a thread of ours: a resolver can hang for as long as any C call. The attempt is under way
    /// until it returns, so that those that hang are counted, and there is an end to them.
    async fn resolve(
        &self,
        host: &str,
        attempt: ConnectAttempt,
        look_up: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> Result<(Vec<SocketAddr>, ConnectAttempt), ConnectError> {
        let silent = ConnectError::new(
            ErrorKind::NameNotResolved,
            format!("cannot resolve {host}: no answer from the resolver"),
        );
        attempt.waits_for(silent.clone());
        let deadline = attempt.deadline();
        let (answer, resolved) = oneshot::channel();
        self.threads
            .run(
                move || (look_up(), attempt),
                // Fails when nobody waits any more, and the attempt ends here.
                move |resolved| drop(answer.send(resolved)),
            )
            .map_err(no_thread)?;
        match timeout_at(deadline, resolved).await {
            Ok(Ok((Ok(addresses), attempt))) => Ok((addresses, attempt)),
            Ok(Ok((Err(error), _))) => {
                Err(ConnectError::new(ErrorKind::NameNotResolved, format!("cannot resolve {host}: {error}")))
            }
            Ok(Err(_)) | Err(_) => Err(silent),
        }
    }
}

impl Connector for LibvirtConnector {
    type Link = LibvirtLink;

    fn validate(&self, host: &HostInfo) -> Result<(), String> {
        LibvirtUri::parse(&host.effective_uri()).map(drop)
    }

    fn configure(&self, config: &TransportConfig) {
        self.threads.resize(config.calls.max_threads, config.calls.thread_idle_timeout);
        *self.keepalive() = config.keepalive.clone();
    }

    async fn connect(
        &self,
        host: &HostInfo,
        mut attempt: ConnectAttempt,
    ) -> Result<LibvirtLink, ConnectError> {
        event_loop::start().map_err(|reason| ConnectError::new(ErrorKind::ConnectFailed, reason))?;
        let uri = LibvirtUri::parse(&host.effective_uri())
            .map_err(|reason| ConnectError::new(ErrorKind::InvalidUri, reason))?;
        if let Some((host, port)) = &uri.socket {
            attempt = self.check_tcp(host, *port, attempt).await.map_err(|error| uri.advise(error))?;
        }
        let silent = ConnectError::new(
            ErrorKind::ConnectTimeout,
            format!("{} accepts connections, and the daemon does not answer", uri.shown),
        );
        attempt.waits_for(silent.clone());
        let deadline = attempt.deadline();
        let in_flight = attempt.into_in_flight();
        let (answer, opened) = oneshot::channel();
        let shown = uri.shown.clone();
        let keepalive =
            host.config.as_ref().map_or_else(|| self.keepalive().clone(), |own| own.keepalive.clone());
        let (threads, closer) = (self.threads.clone(), self.closer.clone());
        let credentials = host.credentials.clone();
        self.threads
            .run(
                move || {
                    let link = open(&uri, credentials.as_ref(), &keepalive);
                    (link.map(|connect| LibvirtLink::new(connect, &uri.shown, threads, closer)), in_flight)
                },
                move |(link, in_flight)| {
                    drop(in_flight);
                    // When nobody waits any more the link comes back, and is closed by its drop.
                    drop(answer.send(link));
                },
            )
            .map_err(no_thread)?;
        match timeout_at(deadline, opened).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => {
                Err(ConnectError::new(ErrorKind::ConnectFailed, format!("opening {shown} panicked")))
            }
            Err(_) => Err(silent),
        }
    }

    async fn probe(
        &self,
        link: &Arc<LibvirtLink>,
        in_flight: InFlight,
        deadline: Instant,
    ) -> Result<(), ConnectError> {
        let call = link.clone().start(Some(in_flight), |handles| Ok(handles.connect.lib_version()?));
        match timeout_at(deadline, call).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(failure)) => {
                Err(failure.into_connect_error(ErrorKind::ConnectionLost, "the daemon gave no sign of life"))
            }
            Err(_) => Err(ConnectError::new(ErrorKind::CallTimeout, "the daemon does not answer")),
        }
    }

    async fn lost(&self, link: &LibvirtLink) {
        link.closed().await;
    }

    fn is_open(&self, link: &LibvirtLink) -> bool {
        link.is_open()
    }
}

/// Opens a connection and turns keepalive on, where there is a wire to keep alive. Blocks.
fn open(
    uri: &LibvirtUri,
    credentials: Option<&Credentials>,
    keepalive: &KeepaliveConfig,
) -> Result<Connect, ConnectError> {
    let explain = |error: &virt::error::Error| uri.advise(error::connect_error(&uri.shown, error));
    let connect = match credentials {
        Some(credentials) => auth::open(&uri.text, credentials, explain)?,
        None => Connect::open(Some(&uri.text)).map_err(|error| explain(&error))?,
    };
    let interval = i32::try_from(keepalive.interval.as_secs()).unwrap_or(i32::MAX);
    if interval > 0
        && let Err(error) = connect.set_keep_alive(interval, keepalive.count)
    {
        // Drivers inside the library have no wire and say so.
        tracing::debug!(uri = uri.shown, error = error.message(), "no keepalive");
    }
    Ok(connect)
}

fn no_thread(ThreadsExhausted { threads }: ThreadsExhausted) -> ConnectError {
    ConnectError::no_thread(threads)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::admission::calls::HostCalls;

    #[tokio::test]
    async fn a_resolver_that_hangs_is_an_attempt_that_hangs() {
        let config = TransportConfig::default();
        let connector = LibvirtConnector::new(&config);
        let calls = HostCalls::new(&config.calls, &config.reconnect);
        let deadline = Instant::now() + Duration::from_millis(20);
        let attempt =
            ConnectAttempt::new(deadline, calls.begin_attempt(deadline).unwrap(), Default::default());
        let (release, hangs) = channel::<()>();
        let look_up = move || {
            let _released = hangs.recv();
            Ok(Vec::new())
        };
        let error = connector.resolve("h1", attempt, look_up).await.map(drop).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NameNotResolved, "{error}");
        assert_eq!(calls.stuck_attempts(), 1, "its thread is nobody's");
        drop(release);
        while calls.stuck_attempts() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
