//! The one writer: changes that wait are made as one transaction, so that one wait for the disk serves all of them.
//!
//! Where controllers share the store, each change is a transaction of its own: it would wait for the rows of one run, and hold those
//! of others meanwhile. There, no change is one of many: targets are started and finished by [`Link`](super::Link).

use std::fs::File;
use std::io;
use std::sync::Arc;

use sqlx::Error;
use tokio::sync::{mpsc, oneshot};

use super::change::{Change, apply};
use super::session::Session;
use super::sql::{Db, is_of_statement, values};
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

impl Hold {
    fn session(&self) -> Option<&Session> {
        match self {
            Hold::File(_) => None,
            Hold::Session(session) => Some(session),
        }
    }
}

async fn write(db: Db, hold: &Hold, path: &str, clock: &Clock, mut waiting: mpsc::Receiver<Asked>) {
    let mut batch = Vec::new();
    let mut connected = Some(db);
    let most = if hold.session().is_some_and(|session| session.is_shared) { 1 } else { WAITING };
    while waiting.recv_many(&mut batch, most).await > 0 {
        let now = millis(clock.now());
        let answers = match commit(&mut connected, hold, path, &batch, now).await {
            Ok(answers) => answers,
            // One that the database refuses must not take the others with it.
            Err(error) if batch.len() > 1 && error.is_of_statement() => {
                one_by_one(&mut connected, hold, path, &batch, now).await
            }
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

/// Makes each change by itself. When the database is away, none is tried after that.
async fn one_by_one(
    connected: &mut Option<Db>,
    hold: &Hold,
    path: &str,
    batch: &[Asked],
    now: i64,
) -> Vec<Result<i64, StoreError>> {
    let mut answers = Vec::with_capacity(batch.len());
    let mut away: Option<StoreError> = None;
    for asked in batch {
        if let Some(error) = &away {
            answers.push(Err(error.clone()));
            continue;
        }
        let made = commit(connected, hold, path, std::slice::from_ref(asked), now).await;
        away = made.as_ref().err().filter(|error| !error.is_of_statement()).cloned();
        answers.push(made.and_then(|mut answers| answers.pop().unwrap_or(Err(StoreError::Closed))));
    }
    answers
}

/// Makes all changes of a batch, but for those that are refused. After a failure none is made; if it is not known whether they
/// were, the error says so.
async fn commit(
    connected: &mut Option<Db>,
    hold: &Hold,
    path: &str,
    batch: &[Asked],
    now: i64,
) -> Result<Vec<Result<i64, StoreError>>, StoreError> {
    let session = hold.session();
    let mut db = match (connected.take(), session) {
        (Some(db), _) => db,
        (None, Some(session)) => session.reconnect().await?,
        (None, None) => return Err(StoreError::Closed),
    };
    let made = match make(&mut db, session, batch, now).await {
        Ok(Some(made)) => made,
        Ok(None) => return Err(StoreError::TakenOver { name: path.to_owned() }),
        Err(source) => {
            // Fails if there is nothing left to roll back. A connection that may be broken is made again.
            let is_usable = session.is_none() || is_of_statement(&source);
            if is_usable && (db.raw("ROLLBACK").await.is_ok() || session.is_none()) {
                *connected = Some(db);
            }
            return Err(failed(path, source));
        }
    };
    let Err(source) = db.raw("COMMIT").await else {
        *connected = Some(db);
        return Ok(made.answers);
    };
    let Some((session, transaction)) = session.zip(made.transaction) else {
        let _ = db.raw("ROLLBACK").await;
        *connected = Some(db);
        return Err(failed(path, source));
    };
    // It may have been made all the same.
    drop(db);
    match session.was_made(transaction).await {
        Some((db, was_made)) => {
            *connected = Some(db);
            if was_made { Ok(made.answers) } else { Err(failed(path, source)) }
        }
        None => {
            let reason = format!("whether the change was made is not known: {source}");
            Err(failed(path, Error::Io(io::Error::new(io::ErrorKind::TimedOut, reason))))
        }
    }
}

/// Changes that are made when their transaction is committed.
struct Made {
    answers: Vec<Result<i64, StoreError>>,
    /// By what a server knows the transaction.
    transaction: Option<i64>,
}

/// None if the store is another service's.
async fn make(
    db: &mut Db,
    session: Option<&Session>,
    batch: &[Asked],
    mut now: i64,
) -> Result<Option<Made>, Error> {
    db.begin().await?;
    if let Some(session) = session {
        // The times in a database are its own: the clocks of those who use it may differ.
        let Some(time) = session.is_present(db).await? else { return Ok(None) };
        now = time;
    }
    let mut answers = Vec::with_capacity(batch.len());
    for asked in batch {
        answers.push(match apply(db, &asked.change, now).await {
            Ok(answer) => Ok(answer),
            Err(Unmade::Refused(error)) => Err(error),
            Err(Unmade::Failed(error)) => return Err(error),
        });
    }
    let transaction = match session {
        Some(_) => Some(db.number("SELECT txid_current()", values![]).await?),
        None => None,
    };
    Ok(Some(Made { answers, transaction }))
}
