//! The time that a server has for an answer.

use std::io;
use std::time::Duration;

use sqlx::Error;
use tokio::time::timeout;

/// The most time of a statement, or of connecting: a server that hangs is as one that is away.
pub(super) const TIME: Duration = Duration::from_secs(10);

/// Waits for an answer of the server, for the time that it has.
pub(super) async fn in_time<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    within(TIME, answer).await
}

/// Waits for a batch of changes: a run of a whole fleet has a row for each target.
pub(super) async fn batch_in_time<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    within(TIME * 6, answer).await
}

async fn within<T>(time: Duration, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(time, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Io(io::Error::new(io::ErrorKind::TimedOut, format!("no answer for {time:?}")))),
    }
}
