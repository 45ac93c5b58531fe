//! Files that are sent to the service and fetched from it, in pieces: none is in memory as a whole.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use atp_api::serve::FileView;
use hyper::Method;
use hyper::header::CONTENT_TYPE;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use url::Url;

use crate::body::{empty, of_file};
use crate::client::{ANSWER_TIMEOUT, Client};
use crate::error::ClientError;

/// The header with the permission bits of a file, in octal digits.
const MODE: &str = "x-atp-mode";

/// The least speed at which a file may be sent, bytes a second. One that is slower is given up.
const SLOWEST: u64 = 64 << 10;

impl Client {
    /// Sends a file, which operations then name by the id of the answer. The service keeps it for some time.
    ///
    /// # Errors
    /// [`ClientError`]; the file cannot be read.
    ///
    /// When the future is dropped, the service removes what it has of the file.
    pub async fn send_file(&self, path: &Path) -> Result<FileView, ClientError> {
        let failed = |source| unusable(path, source);
        let file = File::open(path).await.map_err(failed)?;
        let metadata = file.metadata().await.map_err(failed)?;
        let size = metadata.len();
        // What is copied into a folder of a guest gets this name there.
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let mut url = self.at("/api/v1/files");
        url.query_pairs_mut().append_pair("name", &name);
        let mode = metadata.permissions().mode() & 0o777;
        url.query_pairs_mut().append_pair("mode", &format!("{mode:o}"));
        let headers = [(CONTENT_TYPE, "application/octet-stream".to_owned())];
        let body = of_file(file, size);
        let limit = ANSWER_TIMEOUT + Duration::from_secs(size / SLOWEST);
        self.ask_with(Method::POST, url, body, &headers, limit).await
    }

    /// Fetches a file by the name that an outcome has for it, and writes it to `to`. `most` is the maximum size, bytes.
    ///
    /// # Errors
    /// [`ClientError`]; `to` cannot be written.
    ///
    /// When the future is dropped, a part of the file may be written.
    pub async fn fetch_file(&self, name: &Path, most: u64, to: &Path) -> Result<FetchedFile, ClientError> {
        let failed = |source| unusable(to, source);
        let mut file = File::create(to).await.map_err(failed)?;
        let url = self.url_of_file(name)?;
        let sent = self.send(Method::GET, url, empty(), &[]);
        let sent = tokio::time::timeout(ANSWER_TIMEOUT, sent).await.map_err(|_| self.too_slow())?;
        let (head, mut body) = sent?.into_parts();
        let mode = head.headers.get(MODE).and_then(|mode| u32::from_str_radix(mode.to_str().ok()?, 8).ok());
        let (mut bytes, mut digest) = (0_u64, Sha256::new());
        while let Some(piece) = self.piece(&mut body).await? {
            bytes += piece.len() as u64;
            if bytes > most {
                return Err(self.no_service(format!("a file is larger than the {most} bytes that it has")));
            }
            digest.update(&piece);
            file.write_all(&piece).await.map_err(failed)?;
        }
        file.sync_all().await.map_err(failed)?;
        let sha256 = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(FetchedFile { bytes, sha256, mode })
    }

    /// Has the service remove a file that was sent, or what a run has made, by its id.
    ///
    /// # Errors
    /// [`ClientError`]. Cancel safe.
    pub async fn remove_file(&self, id: &str) -> Result<(), ClientError> {
        let url = self.url_of_file(Path::new(id))?;
        let sent = self.send(Method::DELETE, url, empty(), &[]);
        tokio::time::timeout(ANSWER_TIMEOUT, sent).await.map_err(|_| self.too_slow())?.map(drop)
    }

    fn url_of_file(&self, name: &Path) -> Result<Url, ClientError> {
        let mut url = self.at("/api/v1/files");
        let named = match url.path_segments_mut() {
            Ok(mut segments) => {
                segments.extend(name.iter().map(|part| part.to_string_lossy()));
                true
            }
            Err(()) => false,
        };
        if named { Ok(url) } else { Err(self.no_service("its address has no path".to_owned())) }
    }
}

/// A file that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchedFile {
    /// Its size, bytes.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// Its permission bits, where the service says them.
    pub mode: Option<u32>,
}

fn unusable(path: &Path, source: io::Error) -> ClientError {
    ClientError::File { path: path.to_owned(), source: Arc::new(source) }
}
