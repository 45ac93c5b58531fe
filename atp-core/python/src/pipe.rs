//! A serial console or a virtio-serial channel of one VM: bytes both ways.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atp_api::{Effect, ErrorKind, OutcomeError};
use atp_client::{Client, ClientError, VmDevice};
use atp_executor::Target;
use atp_transport::{ChannelError, ChannelOptions, DomainChannel, TransportManager};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bridge::{Answer, Bridge};
use crate::driver::Spawner;
use crate::error::{self, Failure};
use crate::feed::Items;
use crate::forked::Forked;
use crate::wait::{wait, wait_for};

/// One read, bytes.
const READ: usize = 16 << 10;

/// Reads that are passed on before they are taken. What comes then waits where it comes from, which has a bound.
const AHEAD: usize = 16;

/// The longest limit, in seconds.
const LONGEST: f64 = 1e9;

/// An open console or channel. Dropping it closes it, with what was sent and not taken yet.
#[pyclass(frozen)]
pub(crate) struct Pipe(Forked<Parts>);

struct Parts {
    spawner: Spawner,
    end: CancellationToken,
    received: Arc<Items<Vec<u8>, Failure>>,
    /// What is to be sent. A caller has one under way.
    writes: UnboundedSender<Write>,
    has_written: AtomicBool,
    lost: Arc<Lost>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// Why a stream was lost, if it was.
#[derive(Default)]
struct Lost {
    failure: Mutex<Option<Failure>>,
    /// Whether a caller has heard of it, or that not all is taken.
    is_told: AtomicBool,
}

impl Lost {
    /// Takes note that a caller gets this.
    fn tell<T>(&self, answer: Result<T, Failure>) -> Result<T, Failure> {
        if answer.is_err() {
            self.is_told.store(true, Ordering::SeqCst);
        }
        answer
    }
}

/// Bytes to send, or the end of them.
struct Write {
    bytes: Option<Vec<u8>>,
    /// Dropped by a caller that waits no longer.
    done: oneshot::Sender<Result<(), Failure>>,
}

/// What opens a device of a VM.
pub(crate) enum Way {
    Hosts(TransportManager),
    Service(Box<Client>),
}

/// What is to be opened.
pub(crate) struct Opening {
    pub(crate) way: Way,
    pub(crate) target: Target,
    pub(crate) device: VmDevice,
    /// Take it from another client of the daemon.
    pub(crate) force: bool,
    pub(crate) limit: Duration,
}

impl Opening {
    /// Opens it. It is closed at once with `end`.
    ///
    /// Cancel safe.
    pub(crate) async fn open(
        self,
        spawner: Spawner,
        runs: TaskTracker,
        end: CancellationToken,
    ) -> Result<Pipe, Failure> {
        let Opening { way, target: Target { host, domain }, device, force, limit } = self;
        let (host, domain) = (host.as_str(), domain.ok_or_else(|| error::invalid("a host has no console"))?);
        match way {
            Way::Hosts(manager) => {
                let options = ChannelOptions { force, ..ChannelOptions::default() };
                let (vm, deadline) = (domain.uuid, Instant::now() + limit);
                let opened = match device {
                    VmDevice::Console(alias) => {
                        manager.open_console(host, vm, alias.as_deref(), &options, deadline).await
                    }
                    VmDevice::Channel(name) => {
                        manager.open_channel(host, vm, &name, &options, deadline).await
                    }
                };
                let opened = opened.map_err(|error| unopened(OutcomeError::from(&error), force))?;
                Ok(Pipe::begin(opened, spawner, &runs, end))
            }
            Way::Service(client) => {
                let opening = client.open_device(host, &domain.name, &device, force);
                let late = |_| {
                    let message = "the service has not opened it within the time limit";
                    let error = OutcomeError::new(ErrorKind::RequestTimeout, message).retryable();
                    Failure { is_of_target: false, ..unopened(error, force) }
                };
                let opened = timeout(limit, opening).await.map_err(late)?;
                let opened = opened.map_err(|error| refused(&error))?;
                Ok(Pipe::begin(opened, spawner, &runs, end))
            }
        }
    }
}

impl Pipe {
    /// Passes bytes on until the other side ends, or at most until `end`.
    fn begin(
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        spawner: Spawner,
        runs: &TaskTracker,
        end: CancellationToken,
    ) -> Self {
        let (sender, received) = Items::channel(AHEAD);
        let (writes, asked) = unbounded_channel();
        let (received, has_written, lost) =
            (Arc::new(received), AtomicBool::new(false), Arc::<Lost>::default());
        let (until, why) = (end.clone(), Arc::clone(&lost));
        spawner.spawn(runs.track_future(async move {
            tokio::select! {
                () = pass(stream, sender, asked, &why.failure) => {}
                () = until.cancelled() => {}
            }
        }));
        Pipe(Forked::new(Parts { spawner, end, received, writes, has_written, lost }))
    }
}

#[pymethods]
impl Pipe {
    /// Waits for the next bytes; there are none at the end. None if none came within so many seconds.
    #[pyo3(signature = (limit=None))]
    fn next<'py>(&self, py: Python<'py>, limit: Option<f64>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let parts = self.0.get(py)?;
        let next = wait_for(py, duration(py, limit)?, parts.received.next())?;
        let next = next.map(|next| parts.lost.tell(next)).transpose();
        let next = next.map_err(|failure| error::failed(py, &failure))?;
        Ok(next.map(|reads| PyBytes::new(py, &reads.concat())))
    }

    /// As `next`, for an event loop, without a limit: the answer comes under this id.
    fn next_into(&self, py: Python<'_>, bridge: &Bridge, id: u64) -> PyResult<()> {
        let parts = self.0.get(py)?;
        let (received, lost) = (parts.received.clone(), parts.lost.clone());
        let promise = bridge.promise(id, Effect::None);
        parts.spawner.spawn(async move {
            let next = lost.tell(received.next().await).map(|reads| reads.concat());
            promise.keep(
                next.map(|bytes| Answer::made(move |py| Ok(PyBytes::new(py, &bytes).into_any().unbind()))),
            );
        });
        Ok(())
    }

    /// Sends bytes, within so many seconds. Returns when the daemon or the service has taken them.
    #[pyo3(signature = (data, limit=None))]
    fn write(&self, py: Python<'_>, data: &[u8], limit: Option<f64>) -> PyResult<()> {
        let parts = self.0.get(py)?;
        let written = wait_for(py, duration(py, limit)?, parts.ask(Some(data.to_vec())))?;
        let written = parts.lost.tell(written.unwrap_or_else(|| Err(untaken())));
        written.map_err(|failure| error::failed(py, &failure))
    }

    /// As `write`, for an event loop: the answer comes under this id.
    fn write_into(
        &self,
        py: Python<'_>,
        data: &[u8],
        limit: Option<f64>,
        bridge: &Bridge,
        id: u64,
    ) -> PyResult<()> {
        let parts = self.0.get(py)?;
        let (limit, asking) = (duration(py, limit)?, parts.ask(Some(data.to_vec())));
        let (promise, lost) = (bridge.promise(id, Effect::Unknown), parts.lost.clone());
        parts.spawner.spawn(async move {
            let written = match limit {
                Some(limit) => timeout(limit, asking).await.unwrap_or_else(|_| Err(untaken())),
                None => asking.await,
            };
            promise.keep(lost.tell(written).map(done));
        });
        Ok(())
    }

    /// Closes it when the guest has taken what was sent. If that fails, it is closed all the same.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        let parts = self.0.get(py)?;
        let (sender, receiver) = oneshot::channel();
        let finishing = parts.finish();
        parts.spawner.spawn(async move {
            // Fails if the caller was interrupted.
            let _unheard = sender.send(finishing.await);
        });
        // There is no answer if the fleet was closed.
        let finished = wait(py, receiver)?.unwrap_or(Ok(()));
        finished.map_err(|failure| error::failed(py, &failure))
    }

    /// As `finish`, for an event loop: the answer comes under this id.
    fn finish_into(&self, py: Python<'_>, bridge: &Bridge, id: u64) -> PyResult<()> {
        let parts = self.0.get(py)?;
        let (promise, finishing) = (bridge.promise(id, Effect::Unknown), parts.finish());
        parts.spawner.spawn(async move { promise.keep(finishing.await.map(done)) });
        Ok(())
    }

    /// Closes it at once.
    fn abort(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get(py)?.end.cancel();
        Ok(())
    }
}

impl Parts {
    /// Has bytes sent, or with none the stream finished. What is not sent when this is dropped is not sent any more.
    fn ask(&self, bytes: Option<Vec<u8>>) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        if bytes.is_some() {
            self.has_written.store(true, Ordering::SeqCst);
        }
        let (writes, end, lost) = (self.writes.clone(), self.end.clone(), self.lost.clone());
        async move {
            let over =
                |effect| Failure { effect, ..lost.failure.lock().clone().unwrap_or_else(|| ended(&end)) };
            let (done, answer) = oneshot::channel();
            if writes.send(Write { bytes, done }).is_err() {
                return Err(over(Effect::None));
            }
            answer.await.unwrap_or_else(|_| Err(over(Effect::Unknown)))
        }
    }

    /// Has it closed when the guest has taken what was sent, or after a while. That it was lost is told once.
    fn finish(&self) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        let is_told = self.lost.is_told.load(Ordering::SeqCst) || !self.has_written.load(Ordering::SeqCst);
        let (end, asking) = (self.end.clone(), self.ask(None));
        async move {
            let finished = timeout(DomainChannel::REST, asking).await.unwrap_or_else(|_| Err(untaken()));
            end.cancel();
            match finished {
                // It has ended before.
                Err(failure) if matches!(failure.error.kind, ErrorKind::Closed | ErrorKind::Aborted) => {
                    Ok(())
                }
                Err(failure) if !is_told => Err(Failure { effect: Effect::Unknown, ..failure }),
                _ => Ok(()),
            }
        }
    }
}

/// Passes bytes both ways, until the stream ends or is finished.
async fn pass(
    stream: impl AsyncRead + AsyncWrite,
    received: Sender<Result<Vec<u8>, Failure>>,
    mut asked: UnboundedReceiver<Write>,
    why: &Mutex<Option<Failure>>,
) {
    let (mut from_guest, mut to_guest) = tokio::io::split(stream);
    let receive = async {
        let mut buffer = vec![0; READ];
        loop {
            let read = match from_guest.read(&mut buffer).await {
                Ok(0) => return,
                Ok(read) => Ok(buffer[..read].to_vec()),
                Err(error) => Err(lost(&error, Effect::None)),
            };
            let is_last = read.is_err();
            *why.lock() = read.as_ref().err().cloned();
            if received.send(read).await.is_err() || is_last {
                return;
            }
        }
    };
    let send = async {
        while let Some(Write { bytes, mut done }) = asked.recv().await {
            let Some(bytes) = bytes else { return Some(done) };
            let writing = async {
                to_guest.write_all(&bytes).await?;
                to_guest.flush().await
            };
            let written = tokio::select! {
                biased;
                () = done.closed() => continue,
                written = writing => written,
            };
            let _unheard = done.send(written.map_err(|error| lost(&error, Effect::Unknown)));
        }
        None
    };
    let finish = tokio::select! {
        // The end of the stream may be known to both.
        biased;
        () = receive => None,
        finish = send => finish,
    };
    if let Some(done) = finish {
        let finished = to_guest.shutdown().await;
        let _unheard = done.send(finished.map_err(|error| lost(&error, Effect::Unknown)));
    }
}

/// Why it was not opened. With force another client may have lost it, if there was no answer.
fn unopened(error: OutcomeError, force: bool) -> Failure {
    let effect = match error.kind {
        ErrorKind::CallTimeout | ErrorKind::ConnectionLost | ErrorKind::RequestTimeout if force => {
            Effect::Unknown
        }
        _ => Effect::None,
    };
    of_target(error, effect)
}

/// A stream that was closed here, or has ended at its other side.
fn ended(end: &CancellationToken) -> Failure {
    if end.is_cancelled() {
        return OutcomeError::new(ErrorKind::Aborted, "the stream or its fleet was closed").into();
    }
    let error = OutcomeError::new(ErrorKind::Closed, "the stream has ended");
    of_target(
        error.with_hint("the VM was stopped, or another client has taken the stream: open it again"),
        Effect::None,
    )
}

/// A guest that takes nothing.
fn untaken() -> Failure {
    let error =
        OutcomeError::new(ErrorKind::ConditionNotMet, "the guest has not taken all that was sent to it");
    of_target(error.with_hint("check that a program in the guest reads it"), Effect::Unknown)
}

/// A stream that was lost, for this reason.
fn lost(error: &io::Error, effect: Effect) -> Failure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ChannelError>());
    let kind = match inner {
        Some(ChannelError::Overflow { .. }) => ErrorKind::OutputTooLarge,
        Some(ChannelError::NoThread { .. }) => ErrorKind::ThreadsExhausted,
        Some(ChannelError::Closed) => ErrorKind::Closed,
        // A lost connection may be an error of libvirt as well.
        _ => ErrorKind::ConnectionLost,
    };
    let libvirt = match inner {
        Some(ChannelError::Libvirt(source)) => Some(source.into()),
        _ => None,
    };
    let causes = vec![OutcomeError::in_full(error)];
    let error = OutcomeError { causes, libvirt, ..OutcomeError::new(kind, "the stream was lost") };
    of_target(error.retryable(), effect)
}

fn of_target(error: OutcomeError, effect: Effect) -> Failure {
    Failure { error, effect, is_of_target: true }
}

/// Why a service has not opened a stream: for a reason of its own, or of the VM or its host.
fn refused(error: &ClientError) -> Failure {
    let is_of_service = match error {
        ClientError::Refused(problem) => matches!(
            problem.kind,
            ErrorKind::InvalidRequest
                | ErrorKind::NotAuthenticated
                | ErrorKind::PermissionDenied
                | ErrorKind::RateLimited
                | ErrorKind::ReadOnly
                | ErrorKind::ServiceStopping
                | ErrorKind::StorageFailed
        ),
        _ => true,
    };
    let mut error = error::of_client(error);
    // A service does not say which refusals may pass. This one does when the other client leaves.
    error.retryable |= error.kind == ErrorKind::ChannelInUse;
    Failure { is_of_target: !is_of_service, ..Failure::from(error) }
}

/// The answer that something is done.
fn done((): ()) -> Answer {
    Answer::made(|py| Ok(py.None()))
}

/// Seconds, as Python gives them.
pub(crate) fn duration(py: Python<'_>, seconds: Option<f64>) -> PyResult<Option<Duration>> {
    let Some(seconds) = seconds else { return Ok(None) };
    let duration = Duration::try_from_secs_f64(seconds.clamp(0.0, LONGEST));
    duration.map(Some).map_err(|error| error::exception(py, &error::invalid(error.to_string())))
}
