//! Reading what a host's settings name: files, which may be on a file system that hangs.

use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

/// How many are read at once, for all hosts. One that hangs keeps a thread of the runtime's, which has 512 by default, for longer
/// than its connect waits: the rest is left for others.
static UNDER_WAY: Semaphore = Semaphore::const_new(64);

/// Reads on a thread for blocking work. It counts among those under way until it ends, also if this future is dropped before.
pub(super) async fn reading<T: Send + 'static>(
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    let permit = UNDER_WAY.acquire().await;
    let work = move || {
        let _until_it_ends = permit;
        read()
    };
    spawn_blocking(work).await
}
