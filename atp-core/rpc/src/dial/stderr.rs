//! What the command that carries a connection writes to its stderr: for errors, its last lines are kept.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How much is kept, bytes: the end of it.
const KEPT: usize = 4096;

/// How long the rest is waited for once the connection has ended.
const REST: Duration = Duration::from_secs(1);

/// The stderr of a command. It is always read, so that the command is never held up.
pub(crate) struct Stderr {
    text: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Stderr {
    pub(crate) fn read(mut from: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let to = text.clone();
        let reader = tokio::spawn(async move {
            let mut chunk = [0; 1024];
            while let Ok(count @ 1..) = from.read(&mut chunk).await {
                let mut kept = to.lock();
                kept.extend_from_slice(&chunk[..count]);
                let surplus = kept.len().saturating_sub(KEPT);
                kept.drain(..surplus);
            }
        });
        Stderr { text, reader }
    }

    /// All that was kept, when the command has closed it, or shortly after the connection has ended.
    pub(crate) async fn complete(mut self) -> String {
        let _late = timeout(REST, &mut self.reader).await;
        String::from_utf8_lossy(&self.text.lock()).trim().to_owned()
    }
}

impl Drop for Stderr {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
