//! The runtime of a fleet: one thread at a time drives it, and that is the one that waits for it.
//!
//! A call that is waited for in a thread of Python drives sockets and timers in that thread, so that neither its request nor the
//! answer passes from one thread to another. While no such call is under way a thread of the runtime's own drives it. That takes back
//! over when calls have not followed each other for [`PATIENCE`]; until then nothing is driven between them, for twice that time at
//! most. As long as other work is under way, which nobody may be waiting for, it does not leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use atp_api::{ErrorKind, OutcomeError};
use parking_lot::Mutex;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::wait::SIGNAL_INTERVAL;

/// How long after a call the next one is waited for, before the own thread drives again. While calls follow each other it wakes as
/// often as that, which takes processor time from them.
const PATIENCE: Duration = Duration::from_millis(10);

/// A runtime. Dropping it ends its thread, and leaves what is under way.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    spawner: Spawner,
}

/// Has a runtime work on what nobody may be waiting for.
#[derive(Clone)]
pub(crate) struct Spawner {
    handle: Handle,
    background: Arc<Background>,
}

/// The work that nobody may be waiting for, and the thread that sees to it.
struct Background {
    under_way: AtomicUsize,
    thread: Mutex<Option<Thread>>,
}

struct Shared {
    /// None while it is dropped.
    runtime: Option<Runtime>,
    background: Arc<Background>,
    /// The calls that drive.
    calling: AtomicUsize,
    /// Whether there was a call since it was looked at.
    was_called: AtomicBool,
    /// Whether the own thread drives.
    is_driven: AtomicBool,
    /// Whether the own thread waits for the end of a call.
    is_resting: AtomicBool,
    /// Has the own thread stop driving.
    leave: Notify,
    is_over: AtomicBool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.shared.leave.notify_one();
        self.shared.background.wake();
    }
}

impl Driver {
    /// # Errors
    /// The operating system has no thread or descriptor for it.
    pub(crate) fn new() -> Result<Self, OutcomeError> {
        let failed = |error: std::io::Error| OutcomeError::of(ErrorKind::Unknown, &error);
        let runtime =
            Builder::new_current_thread().thread_name("atp").enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let background = Arc::new(Background { under_way: AtomicUsize::new(0), thread: Mutex::new(None) });
        let shared = Arc::new(Shared {
            runtime: Some(runtime),
            background: background.clone(),
            calling: AtomicUsize::new(0),
            was_called: AtomicBool::new(false),
            is_driven: AtomicBool::new(false),
            is_resting: AtomicBool::new(false),
            leave: Notify::new(),
            is_over: AtomicBool::new(false),
        });
        let kept = shared.clone();
        let thread =
            thread::Builder::new().name("atp".to_owned()).spawn(move || kept.keep()).map_err(failed)?;
        *background.thread.lock() = Some(thread.thread().clone());
        Ok(Driver { shared, spawner: Spawner { handle, background } })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.spawner.handle
    }

    pub(crate) fn spawner(&self) -> &Spawner {
        &self.spawner
    }

    /// Drives the runtime until a future is ready. Must not be called by its threads.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.shared.call(future)
    }

    /// Waits for a future without the interpreter's lock, and runs handlers of signals meanwhile.
    ///
    /// # Errors
    /// What the handler of a signal raised, such as `KeyboardInterrupt`. The future is dropped.
    pub(crate) fn wait<T: Send>(
        &self,
        py: Python<'_>,
        future: impl Future<Output = T> + Send,
    ) -> PyResult<T> {
        let mut future = std::pin::pin!(future);
        loop {
            let slice = || self.shared.call(async { timeout(SIGNAL_INTERVAL, future.as_mut()).await });
            if let Ok(value) = py.detach(slice) {
                return Ok(value);
            }
            // Does nothing in threads other than the interpreter's main one.
            py.check_signals()?;
        }
    }
}

impl Spawner {
    /// Works on a future, whether or not anything waits for it.
    pub(crate) fn spawn<F>(&self, future: F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let under_way = UnderWay::new(&self.background);
        self.handle.spawn(async move {
            let _under_way = under_way;
            future.await
        });
    }
}

/// Work that nobody may be waiting for.
struct UnderWay(Arc<Background>);

impl UnderWay {
    fn new(background: &Arc<Background>) -> Self {
        background.under_way.fetch_add(1, Ordering::SeqCst);
        background.wake();
        UnderWay(background.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Background {
    fn is_under_way(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) > 0
    }

    /// Has the thread look again at what it waits for.
    fn wake(&self) {
        if let Some(thread) = &*self.thread.lock() {
            thread.unpark();
        }
    }
}

impl Shared {
    fn call<F: Future>(&self, future: F) -> F::Output {
        /// Counts to the end, also of a panic.
        struct Calling<'a>(&'a Shared);
        impl Drop for Calling<'_> {
            fn drop(&mut self) {
                self.0.calling.fetch_sub(1, Ordering::SeqCst);
                if self.0.is_resting.swap(false, Ordering::SeqCst) {
                    // The next one is waited for as after any call.
                    self.0.was_called.store(true, Ordering::SeqCst);
                    self.0.background.wake();
                }
            }
        }
        self.calling.fetch_add(1, Ordering::SeqCst);
        let _calling = Calling(self);
        self.was_called.store(true, Ordering::SeqCst);
        // Until it has left the call is only woken by it, which costs the same as if it stayed.
        if self.is_driven.load(Ordering::SeqCst) && !self.background.is_under_way() {
            self.leave.notify_one();
        }
        self.runtime().block_on(future)
    }

    /// The work of the own thread.
    fn keep(&self) {
        while !self.is_over() {
            self.is_driven.store(true, Ordering::SeqCst);
            self.runtime().block_on(self.leave.notified());
            self.is_driven.store(false, Ordering::SeqCst);
            while !self.is_over() && !self.background.is_under_way() {
                if self.was_called.swap(false, Ordering::SeqCst) {
                    thread::park_timeout(PATIENCE);
                    continue;
                }
                // The calls under way take long: one that ends wakes this, or has ended before it is looked at.
                self.is_resting.store(true, Ordering::SeqCst);
                if self.calling.load(Ordering::SeqCst) == 0 {
                    break;
                }
                thread::park();
            }
            self.is_resting.store(false, Ordering::SeqCst);
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    #[expect(clippy::expect_used, reason = "only `drop` takes it")]
    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is not dropped yet")
    }
}
