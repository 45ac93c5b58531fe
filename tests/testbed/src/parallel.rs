//! Runs a few operations in parallel, one thread each.

use std::thread;

use crate::error::{Error, Result};

/// Applies a function to all items in parallel. Returns the first error in the order of the items.
pub(crate) fn each<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(|| work(item))).collect();
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        results.into_iter().try_for_each(|result| {
            result.unwrap_or_else(|_| Err(Error::State("a thread of the testbed panicked".into())))
        })
    })
}
