//! Opening the store.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Error};

use crate::settings::private_folder;
use crate::time::{Clock, millis};

use super::sql::{Db, Readers};
use super::{Store, StoreError, failed, lock, recover, schema, writer};

/// Reading connections. More only wait for the same disk.
const READERS: u32 = 4;

/// How long a connection waits for one that is just checkpointing.
const BUSY: Duration = Duration::from_secs(10);

impl Store {
    /// Opens the store at `path`, or makes it; its folder too. Only the owner may read it: outcomes can hold anything that a
    /// guest printed. Runs that were under way when the service ended become interrupted.
    ///
    /// # Errors
    /// Another service has it, the file is something else or of a later version, or cannot be used.
    ///
    /// Must be called within a tokio runtime.
    pub(crate) async fn open(path: &Path, clock: Clock) -> Result<Store, StoreError> {
        let cannot = |source: io::Error| StoreError::Open { path: path.to_owned(), source: Arc::new(source) };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            private_folder(folder).map_err(cannot)?;
        }
        let lock = lock::lock(path)?;
        prepare(path).map_err(cannot)?;
        let name: Arc<str> = path.display().to_string().into();
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY)
            .disable_statement_logging();
        let bad = |source: Error| match &source {
            Error::Database(error) if error.code().is_some_and(|code| code == "26" || code == "11") => {
                StoreError::Invalid { path: path.to_owned(), reason: error.message().to_owned() }
            }
            _ => failed(&name, source),
        };
        let mut db = Db::Sqlite(options.connect().await.map_err(bad)?);
        schema::migrate(&mut db, path).await.map_err(|error| match error {
            StoreError::Failed { source, .. } => match Arc::try_unwrap(source) {
                Ok(source) => bad(source),
                Err(source) => StoreError::Failed { path: name.to_string(), source },
            },
            error => error,
        })?;
        recover::recover(&mut db, millis(clock.now())).await.map_err(bad)?;
        let readers = SqlitePoolOptions::new().max_connections(READERS).min_connections(0);
        let readers = Readers::Sqlite(readers.connect_lazy_with(options.read_only(true)));
        let writer = writer::Writer::start(db, writer::Hold::File(lock), Arc::clone(&name), clock);
        Ok(Store { writer, readers, name })
    }
}

/// Makes the file, so that it is the owner's from its first byte. SQLite gives the files beside it the same permissions.
fn prepare(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::set_permissions(path, Permissions::from_mode(0o600))
        }
        Err(error) => Err(error),
    }
}
