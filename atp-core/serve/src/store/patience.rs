//! The time that a server has for an answer.

use std::io;
use std::time::Duration;

use sqlx::Error;
use tokio::time::timeout;

/// The most time of a statement, or of connecting: a server that hangs is as one that is away.
pub(super) const TIME: Duration = Duration::from_secs(10);

/// Waits for one answer of the server, for the time that it has. A transaction has no bound of its own: a server that answers each
/// statement, however slowly, is working.
pub(super) async fn in_time<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(TIME, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Io(io::Error::new(io::ErrorKind::TimedOut, format!("no answer for {TIME:?}")))),
    }
}
