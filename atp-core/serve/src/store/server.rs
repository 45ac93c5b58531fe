//! The store in PostgreSQL, which one service has open at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use tokio::time::{Instant, sleep};

use crate::time::{Clock, millis};

use super::patience::TIME;
use super::session::{Database, Session, try_lock};
use super::sql::{Readers, values};
use super::{Store, StoreError, failed, recover, schema, writer};

/// Reading connections.
const READERS: u32 = 8;

/// How long the service that had the store before is waited for: its connection ends when its process does.
const LOCKED: Duration = Duration::from_secs(5);

impl Store {
    /// Opens the store in a database, or makes it. Runs that were under way when the service ended become interrupted.
    ///
    /// # Errors
    /// The server cannot be reached or refuses, another service has the store, or it is something else or of a later
    /// version.
    ///
    /// Must be called within a tokio runtime.
    pub(crate) async fn open_database(database: Database, clock: Clock) -> Result<Store, StoreError> {
        let name = Arc::clone(&database.name);
        let bad = |source| failed(&name, source);
        let mut db = database.connect().await.map_err(bad)?;
        let until = Instant::now() + LOCKED;
        while !try_lock(&mut db).await.map_err(bad)? {
            if Instant::now() >= until {
                return Err(StoreError::InUse { path: PathBuf::from(&*name) });
            }
            sleep(Duration::from_millis(100)).await;
        }
        schema::migrate_database(&mut db, &name).await?;
        let statement = "UPDATE atp_store SET generation = generation + 1 RETURNING generation";
        let generation = db.number(statement, values![]).await.map_err(bad)?;
        recover::recover(&mut db, millis(clock.now())).await.map_err(bad)?;
        let readers = PgPoolOptions::new().max_connections(READERS).min_connections(0).acquire_timeout(TIME);
        let options = database.options.clone().options([("default_transaction_read_only", "on")]);
        let readers = Readers::Postgres(readers.connect_lazy_with(options));
        let session = Session { database, generation };
        let writer =
            writer::Writer::start(db, writer::Hold::Session(Box::new(session)), Arc::clone(&name), clock);
        Ok(Store { writer, readers, name })
    }
}
