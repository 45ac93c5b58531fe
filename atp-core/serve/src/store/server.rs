//! The store in PostgreSQL: opened by one service for itself, or by controllers that share it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::{Instant, sleep};

use crate::time::{Clock, millis};

use super::link::Link;
use super::patience::{TIME, in_time};
use super::session::{Database, LOCKED, Session, locked, try_lock, unlock};
use super::sql::{Db, Readers, values};
use super::{Store, StoreError, failed, recover, schema, writer};

/// The version of this program. Controllers read what others have written about a run, so that all are of one version.
const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// Reading connections.
const READERS: u32 = 8;

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
        locked(&mut db, &name, false).await?;
        schema::migrate_database(&mut db, &name).await?;
        let statement =
            "UPDATE atp_store SET generation = generation + 1, is_shared = FALSE RETURNING generation";
        let generation = db.number(statement, values![]).await.map_err(bad)?;
        recover::recover(&mut db, millis(clock.now())).await.map_err(bad)?;
        Ok(Store::over(db, Session { database, generation, is_shared: false }, clock))
    }

    /// Opens the store in a database for one of several controllers. Runs under way go on.
    ///
    /// # Errors
    /// As of [`open_database`](Self::open_database); a service has the store for itself, or controllers of another version
    /// share it.
    ///
    /// Must be called within a tokio runtime.
    pub(crate) async fn open_shared(database: Database, clock: Clock) -> Result<(Store, Shared), StoreError> {
        let database = database.for_controllers();
        let name = Arc::clone(&database.name);
        let bad = |source| failed(&name, source);
        let mut db = database.connect().await.map_err(bad)?;
        let until = Instant::now() + LOCKED;
        while !is_ready(&mut db, &name).await? {
            if try_lock(&mut db, false).await.map_err(bad)? {
                prepare(&mut db, &name, &clock).await?;
                unlock(&mut db).await.map_err(bad)?;
            } else if Instant::now() >= until {
                return Err(StoreError::InUse { path: PathBuf::from(&*name) });
            } else {
                sleep(Duration::from_millis(100)).await;
            }
        }
        locked(&mut db, &name, true).await?;
        if !is_ready(&mut db, &name).await? {
            // Controllers of another version were faster.
            return Err(StoreError::InUse { path: PathBuf::from(&*name) });
        }
        let generation = db.number("SELECT generation FROM atp_store", values![]).await.map_err(bad)?;
        let session = Session { database, generation, is_shared: true };
        let shared = Shared { session: session.clone() };
        Ok((Store::over(db, session, clock), shared))
    }

    fn over(db: Db, session: Session, clock: Clock) -> Store {
        let name = Arc::clone(&session.database.name);
        let readers = PgPoolOptions::new().max_connections(READERS).min_connections(0).acquire_timeout(TIME);
        let options = session.database.options.clone().options([("default_transaction_read_only", "on")]);
        let readers = Readers::Postgres(readers.connect_lazy_with(options));
        let writer =
            writer::Writer::start(db, writer::Hold::Session(Box::new(session)), Arc::clone(&name), clock);
        Store { writer, readers, name }
    }
}

/// Whether controllers of this version can use the store as it is.
async fn is_ready(db: &mut Db, name: &str) -> Result<bool, StoreError> {
    let statement = "SELECT count(*) FROM atp_store WHERE is_shared AND program = $1";
    let is_ready = schema::is_present(db, name).await?
        && db.number(statement, values![PROGRAM]).await.map_err(|source| failed(name, source))? > 0;
    Ok(is_ready)
}

/// Makes the store one of controllers of this version, while no service has it. What another version, or a service that had it
/// for itself, left under way does not go on.
async fn prepare(db: &mut Db, name: &str, clock: &Clock) -> Result<(), StoreError> {
    if is_ready(db, name).await? {
        return Ok(());
    }
    schema::migrate_database(db, name).await?;
    let bad = |source| failed(name, source);
    recover::recover(db, millis(clock.now())).await.map_err(bad)?;
    let statement = "UPDATE atp_store SET generation = generation + 1, is_shared = TRUE, program = $1";
    db.execute(statement, values![PROGRAM]).await.map(drop).map_err(bad)
}

/// A store that several controllers have.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    session: Session,
}

impl Shared {
    /// A connection of its own.
    pub(crate) fn link(&self) -> Link {
        let database = self.session.database.clone().for_links();
        Link::new(Session { database, ..self.session.clone() })
    }

    /// Hears of changes that controllers make. It connects again by itself.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub(crate) async fn listener(&self) -> Result<PgListener, StoreError> {
        let failed = |source| failed(self.session.name(), source);
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(TIME);
        let pool = pool.connect_lazy_with(self.session.database.options.clone());
        let mut listener = in_time(PgListener::connect_with(&pool)).await.map_err(failed)?;
        in_time(listener.listen("atp")).await.map_err(failed)?;
        Ok(listener)
    }
}
