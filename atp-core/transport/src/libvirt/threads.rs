//! Threads for calls that block and cannot be stopped.
//!
//! They are our own and not tokio's: a call that never returns must neither hold up the runtime's shutdown
//! nor the process's exit. Nothing queues here. A job gets an idle thread or a new one, because a job that
//! waited behind a stuck one would let a hung host hurt the others; how many jobs there may be is decided
//! per host, before they come here.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::moment::Span;

/// libvirt's client keeps its buffers on the heap; a quarter of the usual stack is plenty.
const STACK_BYTES: usize = 512 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// Runs blocking jobs. Cheap to clone; clones share their threads.
#[derive(Clone)]
pub(crate) struct CallThreads {
    shared: Arc<Shared>,
}

struct Shared {
    max: AtomicUsize,
    /// How long a thread waits for its next job before it ends.
    idle: Span,
    crew: Mutex<Crew>,
    work: Condvar,
}

#[derive(Default)]
struct Crew {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
}

/// All threads are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadsExhausted {
    pub(crate) threads: usize,
}

impl CallThreads {
    pub(crate) fn new(max: usize, idle: Duration) -> Self {
        let (max, idle) = (AtomicUsize::new(max), Span::new(idle));
        CallThreads { shared: Arc::new(Shared { max, idle, crew: Mutex::default(), work: Condvar::new() }) }
    }

    /// Has there be at most `max` threads from now on, and each kept for as long as `idle`. Those that are too many end
    /// when they have been idle for so long.
    pub(crate) fn resize(&self, max: usize, idle: Duration) {
        self.shared.max.store(max, Ordering::Relaxed);
        self.shared.idle.set(idle);
    }

    /// Starts a job at once, on an idle thread or a new one.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) -> Result<(), ThreadsExhausted> {
        let mut crew = self.shared.crew();
        // Each queued job has an idle thread that is just waking up for it.
        if crew.idle > crew.jobs.len() {
            crew.jobs.push_back(Box::new(job));
            drop(crew);
            self.shared.work.notify_one();
            return Ok(());
        }
        let exhausted = ThreadsExhausted { threads: crew.threads };
        if crew.threads >= self.shared.max.load(Ordering::Relaxed) {
            return Err(exhausted);
        }
        crew.threads += 1;
        drop(crew);
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name("atp-call".to_owned()).stack_size(STACK_BYTES);
        let job: Job = Box::new(job);
        thread.spawn(move || shared.work(job)).map(drop).map_err(|error| {
            tracing::error!(%error, "cannot start a thread");
            self.shared.crew().threads -= 1;
            exhausted
        })
    }
}

impl Shared {
    fn work(&self, first: Job) {
        let mut next = Some(first);
        while let Some(job) = next {
            // A job answers for its own panics; this keeps the count of threads right whatever it does.
            let _contained = catch_unwind(AssertUnwindSafe(job));
            next = self.next_job();
        }
    }

    /// The next job, or none when the thread should end; it is no longer counted then.
    fn next_job(&self) -> Option<Job> {
        let mut crew = self.crew();
        crew.idle += 1;
        let (mut crew, _) = self
            .work
            .wait_timeout_while(crew, self.idle.get(), |crew| crew.jobs.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        crew.idle -= 1;
        let job = crew.jobs.pop_front();
        if job.is_none() {
            crew.threads -= 1;
        }
        job
    }

    fn crew(&self) -> MutexGuard<'_, Crew> {
        // No job runs under this lock, so a poisoned one still guards sound data.
        self.crew.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn a_stuck_job_holds_up_no_other() {
        let threads = CallThreads::new(8, PATIENCE);
        let (release, stuck) = mpsc::channel::<()>();
        threads.run(move || stuck.recv().unwrap_or(())).unwrap();
        let (done, result) = mpsc::channel();
        for n in 0..100 {
            let done = done.clone();
            threads.run(move || done.send(n).unwrap()).unwrap();
            assert_eq!(result.recv_timeout(PATIENCE).unwrap(), n);
        }
        drop(release);
    }

    #[test]
    fn beyond_the_cap_a_job_is_refused() {
        let threads = CallThreads::new(2, PATIENCE);
        let (release, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        for _ in 0..2 {
            let gate = gate.clone();
            threads.run(move || gate.lock().unwrap().recv().unwrap_or(())).unwrap();
        }
        assert_eq!(threads.run(|| {}), Err(ThreadsExhausted { threads: 2 }));
        drop(release);
    }

    #[test]
    fn a_panic_costs_no_thread() {
        let threads = CallThreads::new(1, PATIENCE);
        threads.run(|| std::panic::resume_unwind(Box::new("expected"))).unwrap();
        let (done, result) = mpsc::channel();
        // The one thread comes back for more after the panic, however long that takes.
        while threads
            .run({
                let done = done.clone();
                move || done.send(()).unwrap()
            })
            .is_err()
        {
            std::thread::yield_now();
        }
        result.recv_timeout(PATIENCE).unwrap();
    }
}
