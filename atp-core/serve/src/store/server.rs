//! The store in PostgreSQL: opened by one service at a time, and found again after the connection was lost.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, fs};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, Error};
use tokio::time::{Instant, sleep, timeout};

use super::sql::{Db, Readers, values};
use super::{Store, StoreError, failed, recover, schema, writer};

/// Reading connections.
const READERS: u32 = 8;

/// The most time of a statement, or of connecting: a server that hangs is as one that is away.
const TIME: Duration = Duration::from_secs(10);

/// How long the service that had the store before is waited for: its connection ends when its process does.
const LOCKED: Duration = Duration::from_secs(5);

/// The number of the lock that a service holds: "ATPr".
const LOCK: i64 = 0x4154_5072;

/// Where the store is, and how to log in.
#[derive(Clone)]
pub(crate) struct Database {
    options: PgConnectOptions,
    /// Without a password.
    name: Arc<str>,
}

impl fmt::Debug for Database {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database").field(&self.name).finish()
    }
}

impl Database {
    /// Reads an address such as `postgres://atp@db.example.com/atp`. The password is in a file, in `PGPASSWORD`, or in
    /// `~/.pgpass`. Blocks.
    ///
    /// # Errors
    /// It is no such address, has a password in it, or the file cannot be read.
    pub(crate) fn read(address: &str, password_file: &str) -> Result<Self, StoreError> {
        let invalid = |problem: &str| StoreError::Address { problem: problem.to_owned() };
        let rest = address.strip_prefix("postgres://").or_else(|| address.strip_prefix("postgresql://"));
        let rest = rest.ok_or_else(|| invalid("expected postgres://USER@HOST/DATABASE"))?;
        let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let user = place.rsplit_once('@').map_or("", |(user, _)| user);
        if user.contains(':') || parameters.split('&').any(|pair| pair.starts_with("password=")) {
            return Err(invalid(
                "has a password, which settings may not have: put it into the file of serve.database_password_file, or into PGPASSWORD",
            ));
        }
        let options = PgConnectOptions::from_str(address)
            .map_err(|_| invalid("expected postgres://USER@HOST/DATABASE"))?;
        let options = match password_file {
            "" => options,
            path => {
                let cannot = |source: io::Error| StoreError::Open {
                    path: PathBuf::from(path),
                    source: Arc::new(source),
                };
                let text = fs::read_to_string(Path::new(path)).map_err(cannot)?;
                options.password(text.trim_end_matches(['\r', '\n']))
            }
        };
        let name = format!(
            "postgres://{}@{}:{}/{}",
            options.get_username(),
            options.get_socket().map_or(options.get_host().to_owned(), |path| path.display().to_string()),
            options.get_port(),
            options.get_database().unwrap_or_default()
        );
        // A service that hangs within a transaction must not hold its locks.
        let options = options
            .application_name("atp serve")
            .disable_statement_logging()
            .options([("statement_timeout", "10s"), ("idle_in_transaction_session_timeout", "10s")]);
        Ok(Database { options, name: name.into() })
    }

    async fn connect(&self) -> Result<Db, Error> {
        in_time(self.options.connect()).await.map(Db::Postgres)
    }
}

/// How the writer finds its store again.
#[derive(Debug, Clone)]
pub(super) struct Session {
    database: Database,
    /// The number of the service that has the store: it rises with each that opens it.
    generation: i64,
}

impl Session {
    /// Connects again, if no other service has opened the store meanwhile.
    pub(super) async fn reconnect(&self) -> Result<Db, StoreError> {
        let name = &self.database.name;
        let mut db = self.database.connect().await.map_err(|source| failed(name, source))?;
        if !try_lock(&mut db).await.map_err(|source| failed(name, source))? {
            return Err(StoreError::TakenOver { name: name.to_string() });
        }
        Ok(db)
    }

    /// Whether the store is still this service's, within a transaction that is to change it.
    pub(super) async fn is_present(&self, db: &mut Db) -> Result<bool, Error> {
        Ok(db.number("SELECT generation FROM atp_store FOR SHARE", values![]).await? == self.generation)
    }
}

impl Store {
    /// Opens the store in a database, or makes it. Runs that were under way when the service ended become interrupted.
    ///
    /// # Errors
    /// The server cannot be reached or refuses, another service has the store, or it is something else or of a later
    /// version.
    ///
    /// Must be called within a tokio runtime.
    pub(crate) async fn open_database(database: Database) -> Result<Store, StoreError> {
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
        recover::recover(&mut db).await.map_err(bad)?;
        let readers = PgPoolOptions::new().max_connections(READERS).min_connections(0).acquire_timeout(TIME);
        let options = database.options.clone().options([("default_transaction_read_only", "on")]);
        let readers = Readers::Postgres(readers.connect_lazy_with(options));
        let session = Session { database, generation };
        let writer = writer::Writer::start(db, writer::Hold::Session(session), Arc::clone(&name));
        Ok(Store { writer, readers, name })
    }
}

/// Takes the lock that one connection at a time has, until it ends.
async fn try_lock(db: &mut Db) -> Result<bool, Error> {
    let asked = async { db.row("SELECT pg_try_advisory_lock($1) AS is_mine", values![LOCK]).await };
    in_time(asked).await?.ok_or(Error::RowNotFound)?.bool("is_mine")
}

/// Waits for an answer of the server, for the time that it has.
pub(super) async fn in_time<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(TIME, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Io(io::Error::new(io::ErrorKind::TimedOut, format!("no answer for {TIME:?}")))),
    }
}
