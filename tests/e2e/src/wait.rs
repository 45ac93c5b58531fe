//! Waiting, never without end.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Runs async work of a test on a runtime of its own, which ends with it.
///
/// Fails the test if the work takes longer than that: promises about time are the test's to check, this only keeps
/// it from hanging.
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

/// Waits until `look` finds something, and returns that; what it sees instead is told when the test fails.
///
/// Fails the test if it has not after `limit`. Blocks the thread; whatever else a runtime has to do goes on on its
/// other threads.
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

/// Waits until a value is what it should be.
#[track_caller]
pub fn becomes<T: Debug + PartialEq>(what: &str, limit: Duration, expected: T, mut look: impl FnMut() -> T) {
    eventually(what, limit, || {
        let seen = look();
        if seen == expected { Ok(()) } else { Err(seen) }
    });
}
