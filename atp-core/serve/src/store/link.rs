//! A connection of a controller to the database that it shares with others.

use sqlx::Error;

use super::patience::in_time;
use super::session::Session;
use super::sql::Db;
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
        let begun = in_time(async {
            db.begin().await?;
            self.session.is_present(&mut db).await
        });
        match begun.await {
            Ok(true) => Ok(db),
            Ok(false) => Err(StoreError::TakenOver { name: self.session.name().to_owned() }),
            Err(source) => Err(failed(self.session.name(), source)),
        }
    }

    /// Commits a transaction whose statements were made. If it fails, the connection is closed, and with it the transaction;
    /// where it broke just now, all of it may have been made.
    pub(super) async fn end<T>(&mut self, mut db: Db, made: Result<T, Error>) -> Result<T, StoreError> {
        let failed = |source| failed(self.session.name(), source);
        let made = made.map_err(failed)?;
        in_time(db.raw("COMMIT")).await.map_err(failed)?;
        self.connected = Some(db);
        Ok(made)
    }
}
