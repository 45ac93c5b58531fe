//! A domain's virtio-serial channel or serial console, opened through libvirt: bytes to and from the guest.
//!
//! Each open channel has a connection of its own. A daemon that cannot pass on what a channel is sent, because
//! no process in the guest reads it, stops reading that client's connection altogether after a few packets; on a
//! shared connection that would stop every other call. What comes is read at once, up to a bound; a write waits until the
//! daemon takes it. With the native engine both are tasks. With the library, writes block and so run on the threads for
//! calls; reading is driven by libvirt's event loop and costs no thread.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::connection::connector::CallFailure;
use crate::engine::connector::LibvirtConnector;
use crate::engine::{ByteDevice, Closed, Inbox, LibvirtLink};
use crate::error::{LibvirtError, Result, TransportError};
use crate::manager::TransportManager;

/// How a channel or a console is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelOptions {
    /// Most bytes kept for a reader that does not read. When more come the channel is closed: libvirt has no
    /// way to make the guest wait. Default 4 MiB.
    pub receive_buffer: usize,
    /// Most bytes sent at once, from 1 to 256,000; a write of more returns when these are taken. Default 64 KiB.
    pub write_bytes: usize,
    /// Take it from another client of the daemon that has it open.
    pub force: bool,
}

impl ChannelOptions {
    /// What fits into one message of libvirt's streams.
    const MOST_WRITTEN: usize = 256_000;
}

impl Default for ChannelOptions {
    fn default() -> Self {
        ChannelOptions { receive_buffer: 4 << 20, write_bytes: 64 << 10, force: false }
    }
}

/// Why an open channel is of no more use; it is inside the [`io::Error`]s of [`DomainChannel`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// More came than was read.
    #[error("the guest sent more than was read: over {limit} bytes waited")]
    Overflow {
        /// The most bytes that may wait.
        limit: usize,
    },
    /// libvirt reported an error.
    #[error("libvirt: {0}")]
    Libvirt(LibvirtError),
    /// The connection to the daemon was lost.
    #[error("the connection to the host was lost")]
    Lost,
    /// No thread could be had to write on.
    #[error("all {threads} threads for blocking calls are in use")]
    NoThread {
        /// Threads in use.
        threads: usize,
    },
    /// The channel was closed.
    #[error("the channel is closed")]
    Closed,
}

impl ChannelError {
    fn into_io(self) -> io::Error {
        let kind = match self {
            ChannelError::Overflow { .. } | ChannelError::NoThread { .. } => io::ErrorKind::OutOfMemory,
            ChannelError::Libvirt(_) => io::ErrorKind::Other,
            ChannelError::Lost => io::ErrorKind::ConnectionReset,
            ChannelError::Closed => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, self)
    }
}

impl From<CallFailure> for ChannelError {
    fn from(failure: CallFailure) -> Self {
        match failure {
            CallFailure::Refused { source, .. } | CallFailure::Lost { source: Some(source), .. } => {
                ChannelError::Libvirt(source)
            }
            CallFailure::NoThread { threads } => ChannelError::NoThread { threads },
            #[cfg(feature = "library")]
            CallFailure::NeedsLibrary => ChannelError::Lost,
            CallFailure::Lost { source: None, .. }
            | CallFailure::Busy { .. }
            | CallFailure::Panicked { .. } => ChannelError::Lost,
        }
    }
}

impl TransportManager<LibvirtConnector> {
    /// Opens the virtio-serial channel of that name in a domain (`virDomainOpenChannel`), over a connection of
    /// its own that no pool counts. The domain must run; whether a process in the guest has the port open
    /// is not known.
    ///
    /// # Errors
    /// [`TransportError::Connect`]; kinds [`VmNotFound`](crate::ErrorKind::VmNotFound),
    /// [`VmNotRunning`](crate::ErrorKind::VmNotRunning), [`ChannelInUse`](crate::ErrorKind::ChannelInUse) for one that
    /// another client of the daemon has open, and [`LibvirtError`](crate::ErrorKind::LibvirtError) for one that is not
    /// there; [`TransportError::CallTimeout`] at `deadline`.
    ///
    /// Cancel safe.
    pub async fn open_channel(
        &self,
        host: &str,
        domain: Uuid,
        name: &str,
        options: &ChannelOptions,
        deadline: Instant,
    ) -> Result<DomainChannel> {
        let device = ByteDevice::Channel(name.to_owned());
        self.open_device(host, domain, device, options, deadline).await
    }

    /// Opens a serial console of a domain (`virDomainOpenConsole`), by its alias or the first, over a connection of its own
    /// that no pool counts. The domain must run. What the guest wrote before is not sent again. The daemon gives a console to
    /// one client at a time.
    ///
    /// # Errors
    /// As [`open_channel`](Self::open_channel).
    ///
    /// Cancel safe.
    pub async fn open_console(
        &self,
        host: &str,
        domain: Uuid,
        alias: Option<&str>,
        options: &ChannelOptions,
        deadline: Instant,
    ) -> Result<DomainChannel> {
        let device = ByteDevice::Console(alias.map(str::to_owned));
        self.open_device(host, domain, device, options, deadline).await
    }

    async fn open_device(
        &self,
        host: &str,
        domain: Uuid,
        device: ByteDevice,
        options: &ChannelOptions,
        deadline: Instant,
    ) -> Result<DomainChannel> {
        let operation = device.function();
        let dedicated = self.pool(host)?.dedicated();
        let asked = Instant::now();
        let link = dedicated.open_by(deadline).await?;
        let shared = Arc::new(ChannelShared::new(options.receive_buffer));
        let open = link.open_device((), domain, device, options.force, shared.clone());
        match timeout_at(deadline, open).await {
            Ok(Ok(())) => Ok(DomainChannel::new(shared, link, options.write_bytes)),
            Ok(Err(failure)) => Err(failure.into_error(dedicated.host().clone(), operation)),
            Err(_) => Err(TransportError::CallTimeout {
                host: dedicated.host().clone(),
                operation,
                after: asked.elapsed(),
                sent: true,
            }),
        }
    }
}

/// An open virtio-serial channel or serial console: what is written the guest reads, and the other way round.
///
/// What was written is on its way when `flush` returns. A write waits for the one
/// before it, which waits for the guest, so give writes a time-out. The end of what can be read
/// says that the VM has stopped, or that the daemon closed the channel. Errors carry a [`ChannelError`].
///
/// Dropping it closes the channel, in the background.
pub struct DomainChannel {
    shared: Arc<ChannelShared>,
    /// Completes when the connection has ended; none once that is known, as a future that has completed must not be polled.
    lost: Option<Closed>,
    writing: Option<Writing>,
    write_bytes: usize,
}

type Writing = Pin<Box<dyn Future<Output = std::result::Result<(), CallFailure>> + Send>>;

/// What the channel and its callback share.
struct ChannelShared {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    received: VecDeque<u8>,
    /// Why nothing more comes.
    end: Option<End>,
    reader: Option<Waker>,
    /// The connection. The first to see the channel's end drops it, and the stream with it.
    link: Option<Arc<LibvirtLink>>,
}

#[derive(Clone)]
enum End {
    /// The far end closed it.
    Far,
    Error(ChannelError),
}

impl DomainChannel {
    /// How long to wait for the guest to take what was sent to it, when nothing more is: for a [time-out](tokio::time::timeout) of
    /// `shutdown`.
    pub const REST: Duration = Duration::from_secs(10);

    fn new(shared: Arc<ChannelShared>, link: Arc<LibvirtLink>, write_bytes: usize) -> Self {
        let lost = Some(link.closed());
        let mut state = shared.state.lock();
        if state.end.is_none() {
            state.link = Some(link);
        }
        drop(state);
        let write_bytes = write_bytes.clamp(1, ChannelOptions::MOST_WRITTEN);
        DomainChannel { shared, lost, writing: None, write_bytes }
    }

    /// The connection, while the channel is open.
    fn link(&self) -> io::Result<Arc<LibvirtLink>> {
        let state = self.shared.state.lock();
        match (&state.link, &state.end) {
            (Some(link), _) => Ok(link.clone()),
            (None, Some(End::Error(error))) => Err(error.clone().into_io()),
            (None, Some(End::Far) | None) => Err(ChannelError::Closed.into_io()),
        }
    }

    /// Waits for the call under way.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(writing) = &mut self.writing else { return Poll::Ready(Ok(())) };
        let result = ready!(writing.as_mut().poll(cx));
        self.writing = None;
        Poll::Ready(result.map_err(|failure| ChannelError::from(failure).into_io()))
    }
}

impl AsyncRead for DomainChannel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.lost.as_mut().is_some_and(|lost| lost.as_mut().poll(cx).is_ready()) {
            self.lost = None;
            self.shared.end(End::Error(ChannelError::Lost));
        }
        let mut state = self.shared.state.lock();
        if !state.received.is_empty() {
            let (first, _) = state.received.as_slices();
            let taken = first.len().min(buf.remaining());
            buf.put_slice(&first[..taken]);
            state.received.drain(..taken);
            return Poll::Ready(Ok(()));
        }
        match &state.end {
            Some(End::Far) => Poll::Ready(Ok(())),
            Some(End::Error(error)) => Poll::Ready(Err(error.clone().into_io())),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for DomainChannel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_written(cx))?;
        let taken = buf.len().min(self.write_bytes);
        let bytes = buf[..taken].to_vec();
        let link = self.link()?;
        self.writing = Some(Box::pin(async move { link.channel_send((), bytes).await }));
        // A request begins when it is first polled, and a caller need not flush.
        match self.poll_written(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_written(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_written(cx))?;
        if self.shared.state.lock().end.is_some() {
            return Poll::Ready(Ok(()));
        }
        let link = self.link()?;
        self.writing = Some(Box::pin(async move { link.channel_finish(()).await }));
        self.shared.end(End::Error(ChannelError::Closed));
        self.poll_written(cx)
    }
}

impl Drop for DomainChannel {
    fn drop(&mut self) {
        self.shared.end(End::Error(ChannelError::Closed));
    }
}

impl ChannelShared {
    fn new(limit: usize) -> Self {
        ChannelShared { limit, state: Mutex::default() }
    }

    /// Takes note that nothing more comes, unless that is known, and lets go of the connection.
    fn end(&self, end: End) {
        let mut state = self.state.lock();
        state.end.get_or_insert(end);
        let (link, reader) = (state.link.take(), state.reader.take());
        drop(state);
        // Outside the lock. The last handle goes to the thread that closes connections.
        drop(link);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Inbox for ChannelShared {
    fn take(&self, bytes: &[u8]) -> bool {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return false;
        }
        if state.received.len() + bytes.len() > self.limit {
            drop(state);
            self.end(End::Error(ChannelError::Overflow { limit: self.limit }));
            return false;
        }
        state.received.extend(bytes);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        true
    }

    fn ended(&self, error: Option<LibvirtError>) {
        self.end(match error {
            None => End::Far,
            Some(error) => End::Error(ChannelError::Libvirt(error)),
        });
    }
}
