//! Threads for calls that block and cannot be stopped.
//!
//! They are our own and not tokio's: a call that never returns must neither hold up the runtime's shutdown
//! nor the process's exit. Nothing queues here. A job gets an idle thread or a new one, because a job that
//! waited behind a stuck one would let a hung host hurt the others; how many jobs there may be is decided
//! per host, before they come here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::sync::atomic_time::AtomicDuration;

/// libvirt's client keeps its buffers on the heap; a quarter of the usual stack is plenty.
const STACK_BYTES: usize = 512 * 1024;

type Job = Box<dyn FnOnce(Busy<'_>) + Send>;

/// Runs blocking jobs. Cheap to clone; clones share their threads.
#[derive(Clone)]
pub(crate) struct CallThreads {
    shared: Arc<ThreadsShared>,
}

struct ThreadsShared {
    max: AtomicUsize,
    /// How long a thread waits for its next job before it ends.
    idle_timeout: AtomicDuration,
    /// No job runs under this lock.
    workers: Mutex<Workers>,
}

#[derive(Default)]
struct Workers {
    /// The last to become idle is the first to get a job: it is the quickest to wake, and those that are too
    /// many stay idle until they end.
    idle: Vec<Arc<WorkerSlot>>,
    threads: usize,
}

/// Where a thread finds its next job.
struct WorkerSlot {
    thread: Thread,
    job: Mutex<Option<Job>>,
}

/// Marks its thread as busy: while this exists, the thread gets no other job.
struct Busy<'a> {
    shared: &'a ThreadsShared,
    slot: &'a Arc<WorkerSlot>,
}

/// All threads are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadsExhausted {
    pub(crate) threads: usize,
}

impl CallThreads {
    pub(crate) fn new(max: usize, idle_timeout: Duration) -> Self {
        let (max, idle_timeout) = (AtomicUsize::new(max), AtomicDuration::new(idle_timeout));
        CallThreads { shared: Arc::new(ThreadsShared { max, idle_timeout, workers: Mutex::default() }) }
    }

    /// Sets the maximum number of threads, and how long each is kept after its last job.
    pub(crate) fn resize(&self, max: usize, idle_timeout: Duration) {
        self.shared.max.store(max, Ordering::Relaxed);
        self.shared.idle_timeout.set(idle_timeout);
    }

    /// Starts a job at once, on an idle thread or a new one. What comes of it is handed to `answer`, which must
    /// not block.
    ///
    /// The thread counts as idle before it answers: the receiver of the answer may have the next job for it, and
    /// then it need not go to sleep.
    pub(crate) fn run<T>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
        answer: impl FnOnce(T) + Send + 'static,
    ) -> Result<(), ThreadsExhausted> {
        let job: Job = Box::new(move |busy| {
            let result = job();
            drop(busy);
            answer(result);
        });
        let mut workers = self.shared.workers.lock();
        if let Some(slot) = workers.idle.pop() {
            drop(workers);
            slot.put(job);
            return Ok(());
        }
        let exhausted = ThreadsExhausted { threads: workers.threads };
        if workers.threads >= self.shared.max.load(Ordering::Relaxed) {
            return Err(exhausted);
        }
        workers.threads += 1;
        drop(workers);
        let shared = self.shared.clone();
        let thread = thread::Builder::new().name("atp-call".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(move || shared.work(job)).map(drop).map_err(|error| {
            tracing::error!(%error, "cannot start a thread");
            self.shared.workers.lock().threads -= 1;
            exhausted
        })
    }
}

impl WorkerSlot {
    /// Hands over a job, and wakes the thread if it sleeps.
    fn put(&self, job: Job) {
        *self.job.lock() = Some(job);
        self.thread.unpark();
    }

    fn take(&self) -> Option<Job> {
        self.job.lock().take()
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.shared.workers.lock().idle.push(self.slot.clone());
    }
}

impl ThreadsShared {
    fn work(&self, first: Job) {
        let slot = Arc::new(WorkerSlot { thread: thread::current(), job: Mutex::new(Some(first)) });
        while let Some(job) = self.next_job(&slot) {
            // A job answers for its own panics; this keeps the count of threads right whatever it does.
            let busy = Busy { shared: self, slot: &slot };
            let _contained = catch_unwind(AssertUnwindSafe(|| job(busy)));
        }
    }

    /// The next job, or none when the thread should end; it is no longer counted then.
    fn next_job(&self, slot: &Arc<WorkerSlot>) -> Option<Job> {
        let idle_since = Instant::now();
        loop {
            if let Some(job) = slot.take() {
                return Some(job);
            }
            match self.idle_timeout.get().checked_sub(idle_since.elapsed()) {
                Some(left) if !left.is_zero() => thread::park_timeout(left),
                _ if self.leave(slot) => return None,
                // Somebody is just bringing a job.
                _ => thread::park(),
            }
        }
    }

    /// Removes an idle thread from the workers, unless it is about to get a job.
    fn leave(&self, slot: &Arc<WorkerSlot>) -> bool {
        let mut workers = self.workers.lock();
        let Some(place) = workers.idle.iter().position(|idle| Arc::ptr_eq(idle, slot)) else { return false };
        workers.idle.remove(place);
        workers.threads -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const WAIT_LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn a_stuck_job_holds_up_no_other() {
        let threads = CallThreads::new(8, WAIT_LIMIT);
        let (release, stuck) = mpsc::channel::<()>();
        threads.run(move || stuck.recv().unwrap_or(()), drop).unwrap();
        let (done, result) = mpsc::channel();
        for n in 0..100 {
            let done = done.clone();
            threads.run(move || n, move |n| done.send(n).unwrap()).unwrap();
            assert_eq!(result.recv_timeout(WAIT_LIMIT).unwrap(), n);
        }
        drop(release);
    }

    #[test]
    fn beyond_the_cap_a_job_is_refused() {
        let threads = CallThreads::new(2, WAIT_LIMIT);
        let (release, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        for _ in 0..2 {
            let gate = gate.clone();
            threads.run(move || gate.lock().recv().unwrap_or(()), drop).unwrap();
        }
        assert_eq!(threads.run(|| {}, drop), Err(ThreadsExhausted { threads: 2 }));
        drop(release);
    }

    #[test]
    fn the_thread_that_answered_can_have_the_next_job() {
        let threads = CallThreads::new(1, WAIT_LIMIT);
        let (done, result) = mpsc::channel();
        for n in 0..1000 {
            let done = done.clone();
            // There is but one thread, and nothing queues: it must be free as soon as it has answered.
            threads.run(move || n, move |n| done.send(n).unwrap()).unwrap();
            assert_eq!(result.recv_timeout(WAIT_LIMIT).unwrap(), n);
        }
    }

    #[test]
    fn a_panic_costs_no_thread() {
        let threads = CallThreads::new(1, WAIT_LIMIT);
        threads.run(|| std::panic::resume_unwind(Box::new("expected")), drop::<()>).unwrap();
        let (done, result) = mpsc::channel();
        // The one thread comes back for more after the panic, however long that takes.
        let again = || {
            let done = done.clone();
            threads.run(|| {}, move |()| done.send(()).unwrap())
        };
        while again().is_err() {
            thread::yield_now();
        }
        result.recv_timeout(WAIT_LIMIT).unwrap();
    }

    #[test]
    fn threads_that_are_too_many_end_though_there_is_work() {
        let threads = CallThreads::new(4, Duration::from_millis(20));
        let (release, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        for _ in 0..4 {
            let gate = gate.clone();
            threads.run(move || gate.lock().recv().unwrap_or(()), drop).unwrap();
        }
        drop(release);
        let (done, result) = mpsc::channel();
        let start = Instant::now();
        // One job at a time, and never a pause as long as a thread waits for one.
        while threads.shared.workers.lock().threads > 2 {
            assert!(start.elapsed() < WAIT_LIMIT, "threads with nothing to do stay");
            let done = done.clone();
            if threads.run(|| {}, move |()| done.send(()).unwrap()).is_ok() {
                result.recv_timeout(WAIT_LIMIT).unwrap();
            }
        }
    }
}
