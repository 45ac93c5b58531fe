//! The one writer: changes that wait are made as one transaction.

use std::fs::File;
use std::sync::Arc;

use sqlx::{Connection as _, Error, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::change::{Change, Unmade, apply};
use super::{StoreError, failed};
use crate::time::{Clock, millis};

/// The changes that wait. Further callers wait for room.
const WAITING: usize = 1024;

/// Hands changes to the task that makes them, which ends with the last clone.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    changes: mpsc::Sender<Asked>,
}

#[derive(Debug)]
struct Asked {
    change: Change,
    made: oneshot::Sender<Result<i64, StoreError>>,
}

impl Writer {
    pub(super) fn start(connection: SqliteConnection, lock: File, path: Arc<str>, clock: Clock) -> Self {
        let (changes, waiting) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            write(connection, &path, &clock, waiting).await;
            drop(lock);
        });
        Writer { changes }
    }

    pub(super) async fn change(&self, change: Change) -> Result<i64, StoreError> {
        let (made, answer) = oneshot::channel();
        self.changes.send(Asked { change, made }).await.map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }
}

async fn write(
    mut connection: SqliteConnection,
    path: &str,
    clock: &Clock,
    mut waiting: mpsc::Receiver<Asked>,
) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, WAITING).await > 0 {
        let answers = match commit(&mut connection, &batch, millis(clock.now())).await {
            Ok(answers) => answers,
            Err(source) => {
                // Nothing of the batch was made: the transaction was rolled back.
                let error = failed(path, source);
                batch.iter().map(|_| Err(error.clone())).collect()
            }
        };
        for (asked, answer) in batch.drain(..).zip(answers) {
            // Fails if the caller does not wait any more.
            let _ = asked.made.send(answer);
        }
    }
    let _ = connection.close().await;
}

/// Makes all changes of a batch, but for those that are refused. After a failure none is made.
///
/// SQLite itself rolls a transaction back when the disk is full; sqlx would still count it as open. So the transaction is begun
/// and ended by statements.
async fn commit(
    connection: &mut SqliteConnection,
    batch: &[Asked],
    now: i64,
) -> Result<Vec<Result<i64, StoreError>>, Error> {
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    let made = make(connection, batch, now).await;
    if made.is_err() {
        // Fails if there is nothing left to roll back.
        let _ = sqlx::raw_sql("ROLLBACK").execute(connection).await;
    }
    made
}

async fn make(
    connection: &mut SqliteConnection,
    batch: &[Asked],
    now: i64,
) -> Result<Vec<Result<i64, StoreError>>, Error> {
    let mut answers = Vec::with_capacity(batch.len());
    for asked in batch {
        answers.push(match apply(connection, &asked.change, now).await {
            Ok(answer) => Ok(answer),
            Err(Unmade::Refused(error)) => Err(error),
            Err(Unmade::Failed(error)) => return Err(error),
        });
    }
    sqlx::raw_sql("COMMIT").execute(connection).await?;
    Ok(answers)
}
