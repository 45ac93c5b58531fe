//! Files that are sent to the service and fetched from it, in pieces: none is in memory as a whole.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use atp_api::serve::FileView;
use atp_api::{ErrorKind, Hint, OutcomeError};
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
        // What is copied into a folder of a guest gets this name there.
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        self.send_file_as(path, &name).await
    }

    /// Sends a file under another name, as [`send_file`](Self::send_file): a folder is the archive of it, with the folder's name.
    ///
    /// # Errors
    /// [`ClientError`]; the file cannot be read.
    ///
    /// When the future is dropped, the service removes what it has of the file.
    pub async fn send_file_as(&self, path: &Path, name: &str) -> Result<FileView, ClientError> {
        let failed = |source| unusable(path, source);
        let file = File::open(path).await.map_err(failed)?;
        let metadata = file.metadata().await.map_err(failed)?;
        let size = metadata.len();
        let mut url = self.at("/api/v1/files");
        url.query_pairs_mut().append_pair("name", name);
        let mode = metadata.permissions().mode() & 0o777;
        url.query_pairs_mut().append_pair("mode", &format!("{mode:o}"));
        let headers = [(CONTENT_TYPE, "application/octet-stream".to_owned())];
        let body = of_file(file, size);
        let limit = ANSWER_TIMEOUT + Duration::from_secs(size / SLOWEST);
        self.ask_with(Method::POST, url, body, &headers, limit).await
    }

    /// Fetches a file by the name that an outcome has for it, and puts it at `to`, with its permission bits, when it is whole and
    /// has this size and SHA-256 (hexadecimal digits), where that is known. Folders that are not there are made.
    ///
    /// # Errors
    /// [`ErrorKind::LocalFileError`], whose causes say why: it cannot be had, is another file, or cannot be written. Nothing
    /// is at `to` then that was not there.
    ///
    /// Cancel safe: what was written has another name, and is removed.
    pub async fn place_file(
        &self,
        name: &Path,
        to: &Path,
        size: FileSize,
        sha256: Option<&str>,
    ) -> Result<(), OutcomeError> {
        let failed = |causes: Vec<String>| {
            let message = format!("the service has the file, and it could not be put at {}", to.display());
            let error = OutcomeError::new(ErrorKind::LocalFileError, message).with_hint(Hint::CHECK_FOLDER);
            OutcomeError { causes, ..error }
        };
        let unwritten = |error: io::Error| failed(vec![error.to_string()]);
        if fs::metadata(to).is_ok_and(|there| !there.is_file()) {
            return Err(failed(vec!["something that is no file is there".to_owned()]));
        }
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(unwritten)?;
        let unfinished = tempfile::Builder::new().prefix(".atp-").suffix(".part").tempfile_in(folder);
        let unfinished = unfinished.map_err(unwritten)?;
        let (FileSize::Is(most) | FileSize::AtMost(most)) = size;
        let fetched = self.fetch_file(name, most, unfinished.path()).await;
        let FetchedFile { bytes, sha256: found, mode } = fetched
            .map_err(|error| failed([vec![error.to_string()], OutcomeError::causes_of(&error)].concat()))?;
        if matches!(size, FileSize::Is(known) if bytes != known)
            || sha256.is_some_and(|sha256| sha256 != found)
        {
            return Err(failed(vec![format!("{bytes} bytes with the SHA-256 {found} came")]));
        }
        let mode = Permissions::from_mode(mode.unwrap_or(0o644) & 0o777);
        unfinished.as_file().set_permissions(mode).map_err(unwritten)?;
        unfinished.persist(to).map_err(|error| unwritten(error.error))?;
        Ok(())
    }

    /// Writes a file to `to`. `most` is the maximum size, bytes.
    async fn fetch_file(&self, name: &Path, most: u64, to: &Path) -> Result<FetchedFile, ClientError> {
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

/// What is known of the size of a file, bytes.
#[derive(Debug, Clone, Copy)]
pub enum FileSize {
    /// It has this size.
    Is(u64),
    /// It has this size at most.
    AtMost(u64),
}

/// What came.
struct FetchedFile {
    bytes: u64,
    /// In hexadecimal digits.
    sha256: String,
    mode: Option<u32>,
}

fn unusable(path: &Path, source: io::Error) -> ClientError {
    ClientError::File { path: path.to_owned(), source: Arc::new(source) }
}
