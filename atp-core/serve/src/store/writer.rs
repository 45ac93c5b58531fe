//! The one writer: changes that wait are made as one transaction.

use std::fs::File;
use std::sync::Arc;

use sqlx::Error;
use tokio::sync::{mpsc, oneshot};

use super::change::{Change, apply};
use super::patience::batch_in_time;
use super::session::Session;
use super::sql::Db;
use super::{StoreError, Unmade, failed};
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
    pub(super) fn start(db: Db, hold: Hold, path: Arc<str>, clock: Clock) -> Self {
        let (changes, waiting) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            write(db, &hold, &path, &clock, waiting).await;
            drop(hold);
        });
        Writer { changes }
    }

    pub(super) async fn change(&self, change: Change) -> Result<i64, StoreError> {
        let (made, answer) = oneshot::channel();
        self.changes.send(Asked { change, made }).await.map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }
}

/// What makes the store this service's alone.
#[derive(Debug)]
pub(super) enum Hold {
    /// The lock of the file, while it is open.
    File(#[expect(dead_code, reason = "held for its lock")] File),
    Session(Box<Session>),
}

async fn write(db: Db, hold: &Hold, path: &str, clock: &Clock, mut waiting: mpsc::Receiver<Asked>) {
    let mut batch = Vec::new();
    let mut connected = Some(db);
    while waiting.recv_many(&mut batch, WAITING).await > 0 {
        let answers = match commit(&mut connected, hold, path, &batch, millis(clock.now())).await {
            Ok(answers) => answers,
            // Nothing of the batch was made: the transaction was rolled back. Where a connection broke, all of it may
            // have been made; callers make it again, which changes nothing then.
            Err(error) => batch.iter().map(|_| Err(error.clone())).collect(),
        };
        for (asked, answer) in batch.drain(..).zip(answers) {
            // Fails if the caller does not wait any more.
            let _ = asked.made.send(answer);
        }
    }
    if let Some(db) = connected {
        db.close().await;
    }
}

/// Makes all changes of a batch, but for those that are refused. After a failure none is made.
async fn commit(
    connected: &mut Option<Db>,
    hold: &Hold,
    path: &str,
    batch: &[Asked],
    now: i64,
) -> Result<Vec<Result<i64, StoreError>>, StoreError> {
    let session = match hold {
        Hold::File(_) => None,
        Hold::Session(session) => Some(&**session),
    };
    let mut db = match (connected.take(), session) {
        (Some(db), _) => db,
        (None, Some(session)) => session.reconnect().await?,
        (None, None) => return Err(StoreError::Closed),
    };
    let made = match session {
        None => make(&mut db, None, batch, now).await,
        Some(session) => batch_in_time(make(&mut db, Some(session), batch, now)).await,
    };
    match made {
        Ok(Some(answers)) => {
            *connected = Some(db);
            Ok(answers)
        }
        Ok(None) => Err(StoreError::TakenOver { name: path.to_owned() }),
        Err(source) => {
            // A connection to a server is made again, as it may be broken.
            if session.is_none() {
                // Fails if there is nothing left to roll back.
                let _ = db.raw("ROLLBACK").await;
                *connected = Some(db);
            }
            Err(failed(path, source))
        }
    }
}

/// None if the store is another service's.
async fn make(
    db: &mut Db,
    session: Option<&Session>,
    batch: &[Asked],
    now: i64,
) -> Result<Option<Vec<Result<i64, StoreError>>>, Error> {
    db.begin().await?;
    if let Some(session) = session
        && !session.is_present(db).await?
    {
        return Ok(None);
    }
    let mut answers = Vec::with_capacity(batch.len());
    for asked in batch {
        answers.push(match apply(db, &asked.change, now).await {
            Ok(answer) => Ok(answer),
            Err(Unmade::Refused(error)) => Err(error),
            Err(Unmade::Failed(error)) => return Err(error),
        });
    }
    db.raw("COMMIT").await?;
    Ok(Some(answers))
}
