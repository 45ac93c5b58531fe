//! Waits with time limits.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime;

/// The interval between checks of a condition.
const POLL: Duration = Duration::from_millis(20);

/// Runs async work of a test on a separate runtime, which ends with it.
///
/// Fails the test if the work takes longer than `limit`. This only keeps a test from hanging: a test of promises
/// about time checks them itself.
#[track_caller]
pub fn within<F: Future>(limit: Duration, work: F) -> F::Output {
    let runtime = match runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime: {error}"),
    };
    let result = runtime.block_on(async { tokio::time::timeout(limit, work).await });
    runtime.shutdown_background();
    match result {
        Ok(result) => result,
        Err(_) => panic!("the test hangs: not done after {limit:?}"),
    }
}

/// Waits until `look` returns a value, and returns it. On failure the message has the last other observation.
///
/// Fails the test after `limit`. Blocks the thread; other tasks of a runtime continue on its other threads.
#[track_caller]
pub fn eventually<T, S: Debug>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, S>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(start.elapsed() < limit, "{what}: not after {limit:?}, but {seen:?}"),
        }
        thread::sleep(POLL);
    }
}

/// Waits until a value is the expected one.
#[track_caller]
pub fn becomes<T: Debug + PartialEq>(what: &str, limit: Duration, expected: T, mut look: impl FnMut() -> T) {
    eventually(what, limit, || {
        let seen = look();
        if seen == expected { Ok(()) } else { Err(seen) }
    });
}
