//! Work in several threads.

use std::thread;

use anyhow::{Result, anyhow};

/// Runs a job in each thread, with the thread's number.
pub(crate) fn in_parallel<T: Send>(
    threads: usize,
    job: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let job = &job;
        let threads: Vec<_> = (0..threads).map(|caller| scope.spawn(move || job(caller))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?).collect()
    })
}
