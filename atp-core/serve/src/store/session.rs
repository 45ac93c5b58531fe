//! Connections to a database, and the lock by which a service has it.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, fs};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Error};
use tokio::time::{Instant, sleep};

use super::patience::in_time;
use super::sql::{Db, values};
use super::{StoreError, failed};

/// How long the service that had the store before is waited for: its connection ends when its process does.
pub(super) const LOCKED: Duration = Duration::from_secs(5);

/// How long it is asked whether a commit that was not answered was made: longer than the server keeps the transaction of a
/// connection that is gone.
const UNSURE: Duration = Duration::from_secs(30);

/// The number of the lock that a service holds: "ATPr".
const LOCK: i64 = 0x4154_5072;

/// Where the store is, and how to log in.
#[derive(Clone)]
pub(crate) struct Database {
    pub(super) options: PgConnectOptions,
    /// Without a password.
    pub(super) name: Arc<str>,
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
        // Nor must one whose network broke, of which the server hears nothing for hours by itself.
        let options = options.application_name("atp serve").disable_statement_logging().options([
            ("statement_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "10s"),
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
        ]);
        Ok(Database { options, name: name.into() })
    }

    /// A controller that hangs within a transaction has locked a run, for which others wait.
    pub(super) fn for_controllers(self) -> Self {
        // The time for a lock is longer than that.
        let options =
            self.options.options([("idle_in_transaction_session_timeout", "2s"), ("lock_timeout", "5s")]);
        Database { options, ..self }
    }

    /// A controller's own work does not wait for long for what another has locked: it has other runs.
    pub(super) fn for_links(self) -> Self {
        let options = self.options.options([("lock_timeout", "2500ms")]);
        Database { options, ..self }
    }

    pub(super) async fn connect(&self) -> Result<Db, Error> {
        in_time(self.options.connect()).await.map(Db::Postgres)
    }
}

/// How the writer finds its store again.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) database: Database,
    /// The number of the service that has the store: it rises with each that opens it for itself.
    pub(super) generation: i64,
    /// Whether other controllers have it too.
    pub(super) is_shared: bool,
}

impl Session {
    /// Connects again, if no other service has opened the store meanwhile.
    pub(super) async fn reconnect(&self) -> Result<Db, StoreError> {
        let name = &self.database.name;
        let mut db = self.database.connect().await.map_err(|source| failed(name, source))?;
        if try_lock(&mut db, self.is_shared).await.map_err(|source| failed(name, source))? {
            return Ok(db);
        }
        let generation = db.number("SELECT generation FROM atp_store", values![]).await;
        if self.is_shared || generation.map_err(|source| failed(name, source))? != self.generation {
            return Err(StoreError::TakenOver { name: name.to_string() });
        }
        // No other service has opened it: the lock is that of this service's own connection, which the server still counts as there.
        let reason = "the server still holds the lock of the connection that broke";
        Err(failed(name, Error::Io(io::Error::new(io::ErrorKind::WouldBlock, reason))))
    }

    pub(super) fn name(&self) -> &str {
        &self.database.name
    }

    /// The database's time, milliseconds since 1970, if the store is still this service's, within a transaction that is to change
    /// it.
    pub(super) async fn is_present(&self, db: &mut Db) -> Result<Option<i64>, Error> {
        let statement = "SELECT generation, atp_now() AS now FROM atp_store FOR SHARE";
        let row = db.row(statement, values![]).await?.ok_or(Error::RowNotFound)?;
        let is_present = row.int("generation")? == self.generation;
        is_present.then(|| row.int("now")).transpose()
    }

    /// Whether a transaction whose commit was not answered was made, read with a new connection; none if that is not known in
    /// time.
    pub(super) async fn was_made(&self, transaction: i64) -> Option<(Db, bool)> {
        let until = Instant::now() + UNSURE;
        loop {
            match self.reconnect().await {
                Ok(mut db) => {
                    let status = db.row("SELECT txid_status($1) AS status", values![transaction]).await;
                    match status.and_then(|row| row.map_or(Ok(None), |row| row.some_text("status"))) {
                        Ok(Some(status)) if status == "committed" => return Some((db, true)),
                        Ok(Some(status)) if status == "aborted" => return Some((db, false)),
                        // The server has not heard that its connection is gone, or waits for its standby.
                        _ => db.close().await,
                    }
                }
                Err(StoreError::TakenOver { .. }) => return None,
                Err(_) => {}
            }
            if Instant::now() >= until {
                return None;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Waits for the lock that one service has for itself, or controllers share.
pub(super) async fn locked(db: &mut Db, name: &str, is_shared: bool) -> Result<(), StoreError> {
    let until = Instant::now() + LOCKED;
    while !try_lock(db, is_shared).await.map_err(|source| failed(name, source))? {
        if Instant::now() >= until {
            return Err(StoreError::InUse { path: PathBuf::from(name) });
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

pub(super) async fn unlock(db: &mut Db) -> Result<(), Error> {
    in_time(db.rows("SELECT pg_advisory_unlock($1)", values![LOCK])).await.map(drop)
}

/// Takes the lock, until the connection ends.
pub(super) async fn try_lock(db: &mut Db, is_shared: bool) -> Result<bool, Error> {
    let statement = match is_shared {
        false => "SELECT pg_try_advisory_lock($1) AS is_mine",
        true => "SELECT pg_try_advisory_lock_shared($1) AS is_mine",
    };
    let asked = async { db.row(statement, values![LOCK]).await };
    in_time(asked).await?.ok_or(Error::RowNotFound)?.bool("is_mine")
}
