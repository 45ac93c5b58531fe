//! The engine on libvirt's C library, by the crates `virt` and `virt-sys`. All C and all `unsafe` of this crate is here.
//!
//! The library's calls block, some for ever, so each runs on a thread of our own that may be abandoned.

mod auth;
#[cfg(feature = "native")]
mod bridge;
mod close_notice;
mod closer;
mod control_info;
mod domain_events;
mod domain_stats;
mod event_loop;
mod link;
mod log_lines;
mod open_failure;
mod operations;
mod stream;
mod threads;
mod uri;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Once, mpsc};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use virt::connect::Connect;

use super::uri::{LibvirtUri, Transport};
#[cfg(feature = "native")]
use super::way;
use crate::config::{KeepaliveConfig, TransportConfig};
use crate::connection::reconnect::ConnectAttempt;
use crate::error::{ConnectError, ConnectStage, ErrorKind, LibvirtError};
use crate::host::{Credentials, HostInfo};
#[cfg(feature = "native")]
use crate::host::{Password, PasswordSource};
#[cfg(feature = "native")]
use bridge::Bridge;
use closer::Unused;
use link::Handles;
use threads::{CallThreads, ThreadsExhausted};

pub(crate) use link::LibraryLink;

/// Opens connections by the C library, and runs its blocking calls on threads of its own.
pub(super) struct Library {
    threads: CallThreads,
    closer: mpsc::Sender<Unused<Handles>>,
}

impl Library {
    pub(super) fn new(config: &TransportConfig) -> Self {
        let threads = CallThreads::new(config.calls.max_threads, config.calls.thread_idle_timeout);
        Library { threads, closer: closer::start() }
    }

    /// Takes over what the configuration of all hosts together says of threads.
    pub(super) fn configure(&self, config: &TransportConfig) {
        self.threads.resize(config.calls.max_threads, config.calls.thread_idle_timeout);
    }

    /// Opens a connection. The future ends by the attempt's deadline, whatever hangs below.
    ///
    /// Cancel safe: a connection that is opened after the future was dropped is closed.
    pub(super) async fn connect(
        &self,
        uri: LibvirtUri,
        host: &HostInfo,
        mut attempt: ConnectAttempt,
    ) -> Result<LibraryLink, ConnectError> {
        event_loop::start().map_err(|reason| ConnectError::new(ErrorKind::ConnectFailed, reason))?;
        static LOG: Once = Once::new();
        LOG.call_once(log_lines::take_over);
        let mut opened_at = uri.text.clone();
        #[cfg(feature = "native")]
        let mut bridge = None;
        #[cfg(feature = "native")]
        if matches!(uri.transport, Transport::Ssh | Transport::Ext) {
            (bridge, opened_at) = self.bridge(&uri, &attempt).await?;
        }
        if let Some((host, port)) = uri.socket.clone() {
            let found = self.check_tcp(&host, port, attempt).await.map_err(|error| uri.advise(error))?;
            attempt = found.attempt;
            // The library would first try one that does not answer.
            if !found.is_first {
                match uri.transport {
                    // The daemon's certificate is checked against the host in the URI.
                    #[cfg(feature = "native")]
                    Transport::Tls => (bridge, opened_at) = self.bridge(&uri, &attempt).await?,
                    Transport::Tcp => {
                        let address = found.address.ip().to_string();
                        opened_at = uri.with_host(&address).unwrap_or(opened_at);
                    }
                    _ => {}
                }
            }
        }
        let silent = uri.no_answer();
        attempt.waits_for(silent.clone());
        let deadline = attempt.deadline();
        let keepalive = attempt.config().keepalive.clone();
        let in_flight = attempt.into_in_flight();
        let (answer, opened) = oneshot::channel();
        let shown = uri.shown.clone();
        let (threads, closer) = (self.threads.clone(), self.closer.clone());
        let credentials = answers(host, &uri);
        #[cfg(feature = "native")]
        let credentials = if bridge.is_some() { in_auth_conf(credentials, &uri).await } else { credentials };
        let opening = shown.clone();
        self.threads
            .run(
                move || {
                    let link = open(&opened_at, &opening, &credentials, &keepalive);
                    (link.map(|connect| LibraryLink::new(connect, &opening, threads, closer)), in_flight)
                },
                move |(link, in_flight)| {
                    drop(in_flight);
                    // If the caller has left, the link comes back here, and its drop closes it.
                    drop(answer.send(link));
                },
            )
            .map_err(no_thread)?;
        #[cfg(feature = "native")]
        let bridged = bridge.is_some();
        #[cfg(not(feature = "native"))]
        let bridged = false;
        match timeout_at(deadline, opened).await {
            Ok(Ok(Ok(link))) => {
                #[cfg(feature = "native")]
                if let Some(bridge) = bridge {
                    bridge.hand_over();
                }
                Ok(link)
            }
            Ok(Ok(Err(OpenFailure::Ours(error)))) => Err(error),
            Ok(Ok(Err(OpenFailure::Libvirt(source)))) => Err(explain(&uri, source, bridged, deadline).await),
            Ok(Err(_)) => {
                Err(ConnectError::new(ErrorKind::ConnectFailed, format!("opening {shown} panicked")))
            }
            Err(_) => Err(silent),
        }
    }

    /// Opens the way with `atp-rpc`, and gives the URI of the socket at which the library finds it.
    #[cfg(feature = "native")]
    async fn bridge(
        &self,
        uri: &LibvirtUri,
        attempt: &ConnectAttempt,
    ) -> Result<(Option<Bridge>, String), ConnectError> {
        let on_stage = |stage| attempt.waits_for(way::silent(uri, stage));
        let way = atp_rpc::Way::open(&uri.text, &way_options(attempt.deadline()), on_stage).await;
        let way = way.map_err(|error| way::connect_error(uri, error))?;
        let bridge = Bridge::open(way).map_err(|error| {
            let reason = format!("{}: no socket can be made for the way: {error}", uri.shown);
            ConnectError::new(ErrorKind::ConnectFailed, reason)
                .advise("check the folder for temporary files, and its free space")
        })?;
        let [socket, auth_file] = [bridge.socket(), bridge.auth_file()];
        let opened_at = uri.at_socket(&socket.to_string_lossy(), &auth_file.to_string_lossy());
        Ok((Some(bridge), opened_at))
    }

    /// Finds out by a plain TCP connection, within the deadline, which address listens there: the C library would try
    /// each for minutes, and say less. Gives the attempt back, to go on.
    async fn check_tcp(
        &self,
        host: &str,
        port: u16,
        attempt: ConnectAttempt,
    ) -> Result<Listening, ConnectError> {
        let name = host.to_owned();
        let look_up = move || (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
        let (addresses, attempt) = self.resolve(host, attempt, look_up).await?;
        let Some(first) = addresses.first().copied() else {
            let reason = format!("{host} has no address");
            return Err(ConnectError::new(ErrorKind::NameNotResolved, reason).at(ConnectStage::Name));
        };
        let silent = ConnectError::new(ErrorKind::HostUnreachable, format!("{first} does not answer"))
            .at(ConnectStage::Dial);
        attempt.waits_for(silent.clone());
        match timeout_at(attempt.deadline(), race(addresses)).await {
            Ok(Ok(address)) => Ok(Listening { is_first: address == first, address, attempt }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(silent),
        }
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
        )
        .at(ConnectStage::Name);
        attempt.waits_for(silent.clone());
        let deadline = attempt.deadline();
        let (answer, resolved) = oneshot::channel();
        self.threads
            .run(
                move || (look_up(), attempt),
                // Fails if the caller has left, and then the attempt ends here.
                move |resolved| drop(answer.send(resolved)),
            )
            .map_err(no_thread)?;
        match timeout_at(deadline, resolved).await {
            Ok(Ok((Ok(addresses), attempt))) => Ok((addresses, attempt)),
            Ok(Ok((Err(error), _))) => {
                let reason = format!("cannot resolve {host}: {error}");
                Err(ConnectError::new(ErrorKind::NameNotResolved, reason).at(ConnectStage::Name))
            }
            Ok(Err(_)) | Err(_) => Err(silent),
        }
    }
}

/// An address that accepts connections.
struct Listening {
    address: SocketAddr,
    /// Whether it is the first of its name's.
    is_first: bool,
    attempt: ConnectAttempt,
}

/// How long an address is alone before the next is tried beside it (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);

/// The most addresses of a name that are tried.
const MOST: usize = 16;

/// The first address that accepts a connection; else the failure of the first address.
async fn race(addresses: Vec<SocketAddr>) -> Result<SocketAddr, ConnectError> {
    let mut attempts = FuturesUnordered::new();
    for (n, address) in addresses.into_iter().take(MOST).enumerate() {
        let delay = HEAD_START * n as u32;
        attempts.push(async move {
            sleep(delay).await;
            (n, address, TcpStream::connect(address).await)
        });
    }
    let mut failure: Option<(usize, ConnectError)> = None;
    while let Some((n, address, result)) = attempts.next().await {
        let error = match result {
            Ok(_) => return Ok(address),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                ConnectError::new(ErrorKind::ConnectionRefused, format!("{address} refuses connections"))
            }
            Err(error) => ConnectError::new(ErrorKind::HostUnreachable, format!("{address}: {error}")),
        };
        if failure.as_ref().is_none_or(|(of, _)| n < *of) {
            failure = Some((n, error.at(ConnectStage::Dial)));
        }
    }
    let none = || ConnectError::new(ErrorKind::NameNotResolved, "the name has no address");
    Err(failure.map_or_else(none, |(_, error)| error))
}

/// Why the library did not open a connection.
enum OpenFailure {
    Libvirt(LibvirtError),
    /// It was not asked.
    Ours(ConnectError),
}

/// Opens a connection and turns keepalive on, where there is a wire to keep alive. Blocks.
fn open(
    uri: &str,
    shown: &str,
    credentials: &Credentials,
    keepalive: &KeepaliveConfig,
) -> Result<Connect, OpenFailure> {
    let connect = auth::open(uri, credentials)?;
    let interval = i32::try_from(keepalive.interval.as_secs()).unwrap_or(i32::MAX);
    if interval > 0
        && let Err(error) = connect.set_keep_alive(interval, keepalive.count)
    {
        // Drivers inside the library have no wire and say so.
        tracing::debug!(uri = shown, error = error.message(), "no keepalive");
    }
    Ok(connect)
}

/// What a daemon is answered. What is missing is in libvirt's `auth.conf`, in which the library looks first; the user in a URI is
/// used too where no other is given.
fn answers(host: &HostInfo, uri: &LibvirtUri) -> Credentials {
    let mut credentials = host.credentials.clone().unwrap_or_default();
    if matches!(uri.transport, Transport::Tcp | Transport::Tls | Transport::Unix) {
        credentials.username = credentials.username.or_else(|| uri.user.clone());
    }
    credentials
}

/// What libvirt's `auth.conf` has for the host of a way that the library finds at a socket: it would look for this machine's.
#[cfg(feature = "native")]
async fn in_auth_conf(given: Credentials, uri: &LibvirtUri) -> Credentials {
    if given.username.is_some() && given.password.is_some() {
        return given;
    }
    match atp_rpc::Credentials::in_file_for(&uri.text).await {
        Ok(found) => Credentials {
            username: Some(found.user),
            password: Some(PasswordSource::Given(Password::new(found.password))),
        },
        // If the daemon asks, the library says that there is no answer.
        Err(_) => given,
    }
}

/// How long the way is looked at once more at most.
#[cfg(feature = "native")]
const LOOK: Duration = Duration::from_secs(3);

/// Why the library could not open a connection. Its words say little of the way, so the way is looked at once more, without
/// credentials. A way that hangs then costs half of the time that is left at most: what the library says is not lost.
async fn explain(uri: &LibvirtUri, source: LibvirtError, bridged: bool, deadline: Instant) -> ConnectError {
    let listens = uri.socket.is_some();
    #[cfg(feature = "native")]
    if !bridged && matches!(uri.transport, Transport::Unix | Transport::Tcp | Transport::Tls) {
        use atp_rpc::{CertificateFault, ConnectFailure};
        let look = LOOK.min(deadline.saturating_duration_since(Instant::now()) / 2);
        let error = match atp_rpc::Way::open(&uri.text, &way_options(Instant::now() + look), |_| {}).await {
            Ok(_) => return open_failure::connect_error(uri, source, true),
            Err(error) => error,
        };
        match error.failure {
            // These are no obstacles to the library.
            ConnectFailure::TlsCertificate { fault: CertificateFault::NoName, .. }
            | ConnectFailure::Unsupported(_)
            | ConnectFailure::Timeout(_) => {}
            _ => {
                let found = way::connect_error(uri, error);
                return ConnectError { source: Some(source), ..found };
            }
        }
    }
    let _used_with_the_other_engine_only = deadline;
    open_failure::connect_error(uri, source, bridged || listens && uri.transport == Transport::Tcp)
}

/// How a way is opened.
#[cfg(feature = "native")]
fn way_options(deadline: Instant) -> atp_rpc::ConnectOptions {
    let timeout = deadline.saturating_duration_since(Instant::now());
    atp_rpc::ConnectOptions { timeout, ..atp_rpc::ConnectOptions::default() }
}

fn no_thread(ThreadsExhausted { threads }: ThreadsExhausted) -> ConnectError {
    ConnectError::no_thread(threads)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::admission::calls::HostCalls;

    #[tokio::test]
    async fn a_resolver_that_hangs_is_an_attempt_that_hangs() {
        let config = TransportConfig::default();
        let library = Library::new(&config);
        let calls = HostCalls::new(&config.calls, &config.reconnect);
        let deadline = Instant::now() + Duration::from_millis(20);
        let config = Arc::new(config);
        let attempt = ConnectAttempt::alone(deadline, config, calls.begin_attempt(deadline).unwrap());
        let (release, hangs) = channel::<()>();
        let look_up = move || {
            let _released = hangs.recv();
            Ok(Vec::new())
        };
        let error = library.resolve("h1", attempt, look_up).await.map(drop).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NameNotResolved, "{error}");
        assert_eq!(calls.stuck_attempts(), 1, "its thread is not counted");
        drop(release);
        while calls.stuck_attempts() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[cfg(feature = "native")]
    #[tokio::test]
    async fn a_way_that_hangs_when_it_is_looked_at_does_not_hide_what_the_library_says() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("qemu+tcp://{}/system", listener.local_addr().unwrap());
        let uri = LibvirtUri::parse(&uri).unwrap();
        let source = LibvirtError { code: 45, domain: 7, level: 2, message: "refused".to_owned() };
        let deadline = Instant::now() + Duration::from_secs(1);
        let error = explain(&uri, source, false, deadline).await;
        assert!(Instant::now() < deadline);
        assert_eq!(error.kind, ErrorKind::AuthFailed, "{error}");
    }

    #[tokio::test]
    async fn an_address_that_drops_packets_does_not_keep_from_a_living_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.3:0").await.unwrap();
        let living = listener.local_addr().unwrap();
        // With a full queue the system drops what comes to a socket that accepts nothing.
        let full = tokio::net::TcpSocket::new_v4().unwrap();
        full.bind("127.0.0.4:0".parse().unwrap()).unwrap();
        let full = full.listen(1).unwrap();
        let silent = full.local_addr().unwrap();
        let mut queued = Vec::new();
        for _ in 0..2 {
            queued.push(TcpStream::connect(silent).await.unwrap());
        }
        assert_eq!(race(vec![silent, living]).await.unwrap(), living);
    }

    #[tokio::test]
    async fn a_dead_address_does_not_keep_from_a_living_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.3:0").await.unwrap();
        let living = listener.local_addr().unwrap();
        let refused = SocketAddr::new("127.0.0.4".parse().unwrap(), living.port());
        assert_eq!(race(vec![refused, living]).await.unwrap(), living);
        let error = race(vec![refused]).await.unwrap_err();
        assert_eq!((error.kind, error.stage), (ErrorKind::ConnectionRefused, Some(ConnectStage::Dial)));
    }
}
