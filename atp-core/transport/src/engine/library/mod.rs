//! The engine on libvirt's C library, by the crates `virt` and `virt-sys`. All C and all `unsafe` of this crate is here.
//!
//! The library's calls block, some for ever, so each runs on a thread of our own that may be abandoned.

mod auth;
mod close_notice;
mod closer;
mod control_info;
mod domain_events;
mod domain_stats;
mod event_loop;
mod link;
mod operations;
mod stream;
mod threads;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc;

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use virt::connect::Connect;

use super::error;
use super::uri::LibvirtUri;
use crate::config::{KeepaliveConfig, TransportConfig};
use crate::connection::reconnect::ConnectAttempt;
use crate::error::{ConnectError, ErrorKind, LibvirtError};
use crate::host::{Credentials, HostInfo};
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
        if let Some((host, port)) = &uri.socket {
            attempt = self.check_tcp(host, *port, attempt).await.map_err(|error| uri.advise(error))?;
        }
        let silent = ConnectError::new(
            ErrorKind::ConnectTimeout,
            format!("{} accepts connections, and the daemon does not answer", uri.shown),
        );
        attempt.waits_for(silent.clone());
        let deadline = attempt.deadline();
        let keepalive = attempt.config().keepalive.clone();
        let in_flight = attempt.into_in_flight();
        let (answer, opened) = oneshot::channel();
        let shown = uri.shown.clone();
        let (threads, closer) = (self.threads.clone(), self.closer.clone());
        let credentials = host.credentials.clone();
        self.threads
            .run(
                move || {
                    let link = open(&uri, credentials.as_ref(), &keepalive);
                    (link.map(|connect| LibraryLink::new(connect, &uri.shown, threads, closer)), in_flight)
                },
                move |(link, in_flight)| {
                    drop(in_flight);
                    // If the caller has left, the link comes back here, and its drop closes it.
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
                // Fails if the caller has left, and then the attempt ends here.
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

/// Opens a connection and turns keepalive on, where there is a wire to keep alive. Blocks.
fn open(
    uri: &LibvirtUri,
    credentials: Option<&Credentials>,
    keepalive: &KeepaliveConfig,
) -> Result<Connect, ConnectError> {
    let explain =
        |error: &virt::error::Error| uri.advise(error::connect_error(&uri.shown, LibvirtError::from(error)));
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
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::admission::calls::HostCalls;

    #[tokio::test]
    async fn a_resolver_that_hangs_is_an_attempt_that_hangs() {
        let config = TransportConfig::default();
        let library = Library::new(&config);
        let calls = HostCalls::new(&config.calls, &config.reconnect);
        let deadline = Instant::now() + Duration::from_millis(20);
        let config = Arc::new(config);
        let attempt =
            ConnectAttempt::new(deadline, config, calls.begin_attempt(deadline).unwrap(), Default::default());
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
}
