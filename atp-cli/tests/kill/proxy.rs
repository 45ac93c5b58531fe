//! A way to the database that can be cut: bytes stop, connections stay, and what was on its way arrives when it is healed.

use std::io;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// The way of one controller.
pub(crate) struct Proxy {
    is_cut: watch::Sender<bool>,
}

impl Proxy {
    /// Listens in a folder, as a server's socket.
    pub(crate) fn start(runtime: &Handle, folder: &Path, server: PathBuf) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let _inside = runtime.enter();
        let listener = UnixListener::bind(folder.join(".s.PGSQL.5432")).unwrap();
        let (is_cut, state) = watch::channel(false);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, state) = (server.clone(), state.clone());
                tokio::spawn(async move {
                    // A server that is away closes the client's connection.
                    let Ok(server) = UnixStream::connect(server).await else { return };
                    let (client_reads, client_writes) = client.into_split();
                    let (server_reads, server_writes) = server.into_split();
                    tokio::join!(
                        copy(client_reads, server_writes, state.clone()),
                        copy(server_reads, client_writes, state)
                    );
                });
            }
        });
        Proxy { is_cut }
    }

    pub(crate) fn cut(&self, is_cut: bool) {
        self.is_cut.send_replace(is_cut);
    }
}

async fn copy(
    mut from: tokio::net::unix::OwnedReadHalf,
    mut to: tokio::net::unix::OwnedWriteHalf,
    mut is_cut: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 << 10];
    let copied: io::Result<()> = async {
        loop {
            let count = from.read(&mut buffer).await?;
            if count == 0 {
                return to.shutdown().await;
            }
            // Fails when the test has ended.
            let _ = is_cut.wait_for(|is_cut| !is_cut).await;
            to.write_all(&buffer[..count]).await?;
        }
    }
    .await;
    // Either side may have left.
    drop(copied);
}
