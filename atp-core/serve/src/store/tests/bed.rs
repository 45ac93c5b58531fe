//! A store of either database.

use std::sync::{Arc, Mutex, Weak};

use atp_postgres::Postgres;
use tempfile::TempDir;

use crate::store::{Database, Store, StoreError};
use crate::time::Clock;

/// A place for a store.
pub(super) enum Bed {
    Sqlite(TempDir),
    Postgres { address: String, _server: Arc<Postgres> },
}

/// The server, while a test uses it.
static SERVER: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());

impl Bed {
    pub(super) fn sqlite() -> Self {
        Bed::Sqlite(tempfile::tempdir().unwrap())
    }

    /// A database of its own, of the server that tests share.
    pub(super) fn postgres(name: &str) -> Self {
        let mut shared = SERVER.lock().unwrap();
        let server = shared.upgrade().unwrap_or_else(|| Arc::new(Postgres::start().unwrap()));
        *shared = Arc::downgrade(&server);
        let address = server.database(&name[..name.len().min(60)]).unwrap();
        Bed::Postgres { address, _server: server }
    }

    /// A server of its own, which the test may stop.
    pub(super) fn own_server(name: &str) -> (Postgres, String) {
        let server = Postgres::start().unwrap();
        let address = server.database(name).unwrap();
        (server, address)
    }

    pub(super) async fn open(&self) -> Result<Store, StoreError> {
        match self {
            Bed::Sqlite(folder) => Store::open(&folder.path().join("runs.sqlite"), Clock::system()).await,
            Bed::Postgres { address, .. } => {
                Store::open_database(Database::read(address, "").unwrap(), Clock::system()).await
            }
        }
    }

    /// Opens it again, after the writer of the store before has ended.
    pub(super) async fn reopen(&self, store: Store) -> Store {
        drop(store);
        loop {
            match self.open().await {
                Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
                opened => return opened.unwrap(),
            }
        }
    }
}
