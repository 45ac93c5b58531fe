//! One thread for each of a few things.

use std::thread;

use crate::error::{Error, Result};

/// Does something with all items at once; the first error of any, in their order, is the result.
pub(crate) fn each<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(|| work(item))).collect();
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        results.into_iter().try_for_each(|result| {
            result.unwrap_or_else(|_| Err(Error::State("a thread of the testbed panicked".into())))
        })
    })
}
