//! Listening: connections with limits of number and time, TLS, and an orderly end.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::RwLock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::task::TaskTracker;

use crate::auth::Peer;
use crate::cluster;
use crate::router::router;
use crate::settings::ServeConfig;
use crate::state::Service;

/// The most bytes of a request's head, and of what is written before the client takes it.
const BUFFER: usize = 64 << 10;

/// How long accepting waits after a failure that is not one connection's: no more files can be opened.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why the service cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address is not one.
    #[error("serve.listen: {listen:?} is not an address and port, such as 127.0.0.1:9440")]
    Address {
        /// The setting.
        listen: String,
    },
    /// The address is not a loopback one, and there is no TLS.
    #[error(
        "serve.listen: {address} can be reached from other machines, and without TLS tokens would be sent in clear text: set \
         serve.tls_cert and serve.tls_key, listen on 127.0.0.1 behind a proxy, or set serve.insecure_listen = true"
    )]
    Insecure {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be used.
    #[error(
        "cannot listen on {address}: choose another address or port, or stop the program that uses this one"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("{}: {problem}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
    max_connections: usize,
}

/// The certificate, which may be replaced while the service runs. Cheap to clone; clones are the same.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

impl Tls {
    /// Reads the certificate and its key; none if the settings name none. Blocks.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn read(config: &ServeConfig) -> Result<Option<Self>, ListenError> {
        if config.tls_cert.is_empty() && config.tls_key.is_empty() {
            return Ok(None);
        }
        let config = Arc::new(RwLock::new(Arc::new(tls_config(config)?)));
        Ok(Some(Tls { config }))
    }

    /// Reads them again, for connections that are accepted from then on. Blocks.
    ///
    /// # Errors
    /// A file cannot be used; the certificate before stays.
    pub fn reload(&self, config: &ServeConfig) -> Result<(), ListenError> {
        let read = tls_config(config)?;
        *self.config.write() = Arc::new(read);
        Ok(())
    }
}

fn tls_config(config: &ServeConfig) -> Result<ServerConfig, ListenError> {
    let failed = |path: &str, problem: String| ListenError::Tls { path: PathBuf::from(path), problem };
    for (path, key) in [(&config.tls_cert, "serve.tls_cert"), (&config.tls_key, "serve.tls_key")] {
        if path.is_empty() {
            return Err(failed(
                path,
                format!("{key} is not set, and TLS needs both a certificate and its key"),
            ));
        }
    }
    let certificates = CertificateDer::pem_file_iter(Path::new(&config.tls_cert))
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(&config.tls_cert, format!("no certificates can be read: {error}")))?;
    if certificates.is_empty() {
        return Err(failed(&config.tls_cert, "has no certificate (PEM)".to_owned()));
    }
    // The error says what is wrong with the form, and nothing of the key.
    let key = PrivateKeyDer::from_pem_file(Path::new(&config.tls_key))
        .map_err(|error| failed(&config.tls_key, format!("no private key can be read: {error}")))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&config.tls_cert, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| failed(&config.tls_cert, format!("does not fit the key: {error}")))?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

impl Listener {
    /// Binds the address of the settings. Blocks while it reads the certificate.
    ///
    /// # Errors
    /// The address cannot be used, or may not be used without TLS.
    pub async fn bind(config: &ServeConfig) -> Result<Self, ListenError> {
        let tls = Tls::read(config)?;
        let no_address = || ListenError::Address { listen: config.listen.clone() };
        let address = config.listen.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
        let address = address.ok_or_else(no_address)?;
        if tls.is_none() && !address.ip().is_loopback() && !config.insecure_listen {
            return Err(ListenError::Insecure { address });
        }
        let failed = |source| ListenError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let max_connections = config.max_connections.clamp(1, Semaphore::MAX_PERMITS);
        Ok(Listener { listener, address, tls, max_connections })
    }

    /// The address, with the port that was chosen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate, if there is one.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Serves until `service` is [stopping](Service::stopping). Then no connection is accepted any more; requests under way
    /// and the service's [tasks](Service::tasks) have the time of `drain` to end. Returns whether all of them had ended.
    pub async fn serve(self, service: Service) -> bool {
        let Listener { listener, tls, max_connections, .. } = self;
        let router = router(&service);
        cluster::begin(&service);
        let slots = Arc::new(Semaphore::new(max_connections));
        let connections = TaskTracker::new();
        let stopping = service.stopping().clone();
        loop {
            let accepted = tokio::select! {
                () = stopping.cancelled() => break,
                accepted = accept(&listener, &slots) => accepted,
            };
            match accepted {
                Ok((stream, peer, slot)) => {
                    let (service, router, tls) = (service.clone(), router.clone(), tls.clone());
                    connections.spawn(async move {
                        connection(stream, peer, tls, &service, router).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        connections.close();
        service.tasks().close();
        let drained = async {
            connections.wait().await;
            service.tasks().wait().await;
        };
        timeout(service.config().drain, drained).await.is_ok()
    }
}

/// Accepts a connection when there is room for one. Until then those that come wait in the system's queue.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return Ok((stream, peer, slot)),
            // The client left while it waited.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Tls>,
    service: &Service,
    router: Router,
) {
    // An event is sent when it happens; the system would wait for more.
    let _ = stream.set_nodelay(true);
    let config = service.config();
    // A client whose machine or network is gone takes its pings never, and fills no buffer. Where the system has no such limit,
    // its own counts.
    let unheard = u32::try_from(config.stall_timeout.as_millis()).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, unheard);
    let _counted = service.metrics().connection();
    let stream = Stalling::new(stream, config.stall_timeout);
    match tls {
        None => http(stream, peer, service, router).await,
        Some(tls) => {
            let acceptor = TlsAcceptor::from(tls.config.read().clone());
            match timeout(config.request_timeout, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => http(stream, peer, service, router).await,
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS"),
                Err(_) => tracing::debug!(%peer, "TLS was not begun in time"),
            }
        }
    }
}

async fn http<S>(stream: S, peer: SocketAddr, service: &Service, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handler = TowerToHyperService::new(router);
    let handler = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        handler.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(service.config().request_timeout).max_buf_size(BUFFER);
    let mut served = std::pin::pin!(http.serve_connection(TokioIo::new(stream), handler).with_upgrades());
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = service.stopping().cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection failed");
    }
}

/// A stream whose writes fail when the other side takes nothing for too long: a client that never reads must not keep its
/// connection, and what is to be sent on it, forever.
#[derive(Debug)]
struct Stalling<S> {
    stream: S,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Stalling<S> {
    fn new(stream: S, limit: Duration) -> Self {
        Stalling { stream, limit, stalled: None }
    }

    /// The result of a write, or a failure if there has been none for too long.
    fn judge<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.limit;
        let stalled =
            self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, buffer);
        self.judge(written, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(closed, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.judge(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_write_fails_when_the_other_side_takes_nothing() {
        let (one, mut other) = duplex(16);
        let mut stream = Stalling::new(one, Duration::from_secs(30));
        let began = Instant::now();
        let error = stream.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, Duration::from_secs(30)));
        let mut taken = [0; 16];
        other.read_exact(&mut taken).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_little_is_slow_and_not_gone() {
        let (one, mut other) = duplex(16);
        let mut stream = Stalling::new(one, Duration::from_secs(30));
        let reader = tokio::spawn(async move {
            for _ in 0..4 {
                sleep(Duration::from_secs(20)).await;
                other.read_exact(&mut [0; 16]).await.unwrap();
            }
        });
        stream.write_all(&[0; 64]).await.unwrap();
        reader.await.unwrap();
    }
}
