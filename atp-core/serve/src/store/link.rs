//! A connection of a controller to the database that it shares with others.

use sqlx::Error;

use super::session::Session;
use super::sql::{Db, is_of_statement};
use super::{StoreError, failed};

/// A connection, which is made again after it broke.
#[derive(Debug)]
pub(crate) struct Link {
    session: Session,
    connected: Option<Db>,
}

impl Link {
    pub(super) fn new(session: Session) -> Self {
        Link { session, connected: None }
    }

    /// Begins a transaction.
    pub(super) async fn begin(&mut self) -> Result<Db, StoreError> {
        let mut db = match self.connected.take() {
            Some(db) => db,
            None => self.session.reconnect().await?,
        };
        let begun = async {
            db.begin().await?;
            self.session.is_present(&mut db).await
        };
        match begun.await {
            Ok(Some(_)) => Ok(db),
            Ok(None) => Err(StoreError::TakenOver { name: self.session.name().to_owned() }),
            Err(source) => Err(failed(self.session.name(), source)),
        }
    }

    /// Commits a transaction whose statements were made, or rolls it back. If the commit fails, all of it may have been made.
    /// So what a link changes is guarded and made again, or read back: see `compare` of the worker.
    pub(super) async fn end<T>(&mut self, mut db: Db, made: Result<T, Error>) -> Result<T, StoreError> {
        let failed = |source| failed(self.session.name(), source);
        let made = match made {
            Ok(made) => made,
            Err(source) => {
                // Otherwise the connection is closed, and with it the transaction.
                if is_of_statement(&source) && db.raw("ROLLBACK").await.is_ok() {
                    self.connected = Some(db);
                }
                return Err(failed(source));
            }
        };
        db.raw("COMMIT").await.map_err(failed)?;
        self.connected = Some(db);
        Ok(made)
    }
}
