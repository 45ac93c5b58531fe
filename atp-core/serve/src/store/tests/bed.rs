//! A store of either database.

use std::sync::{Arc, Mutex, Weak};

use atp_postgres::Postgres;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

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

/// A way to a server on which the answer to a commit is lost.
pub(super) struct Cut {
    folder: TempDir,
    next: Arc<Mutex<Option<bool>>>,
}

impl Cut {
    pub(super) async fn start(server: &Postgres) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
        let (next, socket) = (Arc::new(Mutex::new(None)), server.socket());
        let cuts = next.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = UnixStream::connect(&socket).await else { continue };
                tokio::spawn(pass(client, server, cuts.clone()));
            }
        });
        Cut { folder, next }
    }

    pub(super) fn folder(&self) -> String {
        self.folder.path().display().to_string()
    }

    /// The next commit is not answered: the connection breaks when the server has made it, or before it has heard of it.
    pub(super) fn at_commit(&self, is_made: bool) {
        *self.next.lock().unwrap() = Some(is_made);
    }
}

async fn pass(client: UnixStream, server: UnixStream, cuts: Arc<Mutex<Option<bool>>>) {
    let (mut client_reads, mut client_writes) = client.into_split();
    let (mut server_reads, mut server_writes) = server.into_split();
    let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            read = client_reads.read(&mut asked) => {
                let Ok(count @ 1..) = read else { return };
                let is_commit = asked[..count].windows(7).any(|word| word == b"COMMIT\0");
                let cut = if is_commit { cuts.lock().unwrap().take() } else { None };
                if cut == Some(false) {
                    return;
                }
                if server_writes.write_all(&asked[..count]).await.is_err() {
                    return;
                }
                if cut == Some(true) {
                    let _ = server_reads.read(&mut answered).await;
                    return;
                }
            }
            read = server_reads.read(&mut answered) => {
                let Ok(count @ 1..) = read else { return };
                if client_writes.write_all(&answered[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
