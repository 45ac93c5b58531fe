//! Copies a file from a guest to this machine.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use super::allowance::{Allowance, Taken};
use super::checksum;
use super::durable::{folder_of, make_folder, put_in_place};
use super::handle::{Chunk, Reader};
use super::list::{FileInfo, FileKind, stat};
use super::partial::{self, PRIVATE, partial_path};
use super::place::check_folder;
use super::{Progress, TransferPolicy, blocking, blocking_by, ended, late};
use crate::carrier::Carrier;
use crate::digest::Digest;
use crate::error::FileError;
use crate::error::{ProtocolError, Result};

/// A complete copy on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Its local path.
    pub path: PathBuf,
    /// Its size, bytes.
    pub size: u64,
    /// The number of bytes that an earlier run had copied.
    pub resumed_at: u64,
    /// Its SHA-256, which is that of the file in the guest.
    pub digest: Digest,
    /// The metadata of the file in the guest.
    pub info: FileInfo,
}

/// The transfer of a file in one guest to a local path.
///
/// The copy has the permission bits of the original, without set-user-id, set-group-id and sticky, and belongs to the
/// user of this process. It replaces the old file in one step when it is complete and verified, and is on disk when
/// [`run`](Self::run) returns.
#[derive(Debug)]
pub struct Pull {
    path: String,
    /// The folder in the guest, if the file is its archive.
    folder: Option<String>,
    destination: PathBuf,
    policy: TransferPolicy,
    partial: Option<Partial>,
    taken: Taken,
    /// Writes files and folders to disk.
    pub(super) sync: fn(&File) -> io::Result<()>,
    /// Appends to the partial file.
    pub(super) write: Write,
}

type Write = fn(&File, &[u8]) -> io::Result<()>;

/// The state of the local partial file.
#[derive(Debug)]
struct Partial {
    file: Arc<File>,
    path: PathBuf,
    hasher: Sha256,
    reader: Reader,
    /// A write that was begun, and whose end was not awaited: whether the file has all that the hasher has seen is not known.
    writing: Option<JoinHandle<Result<()>>>,
}

impl Pull {
    /// Creates a transfer from an absolute path in the guest to a local file. Its folder is created if it is missing,
    /// once it is known that the file in the guest exists.
    pub fn new(path: impl Into<String>, destination: impl Into<PathBuf>, policy: TransferPolicy) -> Self {
        Pull {
            path: path.into(),
            folder: None,
            destination: destination.into(),
            policy,
            partial: None,
            taken: Taken::default(),
            sync: File::sync_all,
            write: |mut file, bytes| file.write_all(bytes),
        }
    }

    /// Takes what it writes from an allowance. A file for which there is not enough is not begun, and one that grows beyond it is
    /// removed: a [`FileError::Local`], within [`FileError::Stopped`]. What is kept for other files is waited for, until none of it
    /// was written for 10 s.
    pub fn within(self, allowance: Allowance) -> Self {
        Pull { taken: Taken::of(allowance), ..self }
    }

    /// Creates the transfer of the archive of a folder, which is to be unpacked at `destination`.
    pub(super) fn of_archive(
        archive: String,
        folder: &str,
        destination: &Path,
        policy: TransferPolicy,
    ) -> Self {
        Pull { folder: Some(folder.to_owned()), ..Pull::new(archive, destination, policy) }
    }

    /// The path for users.
    fn shown(&self) -> String {
        self.folder.as_ref().unwrap_or(&self.path).clone()
    }

    /// Copies the file, by `deadline` at the latest, and reports the progress after each chunk.
    ///
    /// After an error it can be run again, over the same carrier or another one. It resumes if the partial file is the
    /// beginning of the file in the guest.
    ///
    /// # Errors
    /// A [`FileError`]; [`FileError::Stopped`] if it stopped before its end, with the reason. The partial file stays on
    /// this machine, as `.NAME.atp-part` beside the destination, unless the disk is full. Nothing changes in the guest.
    /// The destination does not change either, unless the copy is in place and the disk fails when its folder is
    /// synced: the error says so.
    ///
    /// Dropping the future leaves the partial file, and the file open in the guest until this is run again or the agent
    /// restarts.
    pub async fn run(
        &mut self,
        carrier: &impl Carrier,
        deadline: Instant,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Pulled> {
        let (file, pulled) = self.fetch(carrier, deadline, progress).await?;
        let finished = self.finish(file, Permissions::from_mode(pulled.info.mode & 0o777), deadline).await;
        finished.map_err(|error| match error.is_timeout() {
            true => {
                let (path, partial) = (self.shown(), Some(self.partial_path().display().to_string()));
                let (done, source) = (pulled.size, Box::new(error));
                FileError::Stopped { path, done, total: done, partial, source }.into()
            }
            false => error,
        })?;
        Ok(pulled)
    }

    /// As [`run`](Self::run), except for its last step: the partial file is complete and verified, and locked as long as it is
    /// open.
    pub(super) async fn fetch(
        &mut self,
        carrier: &impl Carrier,
        deadline: Instant,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(Arc<File>, Pulled)> {
        let work_deadline = self.policy.before(deadline);
        let info = stat(carrier, &self.path, work_deadline).await?;
        match info.kind {
            FileKind::File => {}
            FileKind::Directory => return Err(FileError::IsDirectory { path: self.path.clone() }.into()),
            _ => return Err(FileError::NotRegular { path: self.path.clone() }.into()),
        }
        if let Some(Partial { writing: Some(writing), reader, .. }) = &mut self.partial {
            // It has the file and its lock as long as it lasts.
            let late = |_| FileError::local("write", &self.destination, late());
            if !writing.is_finished() {
                let _ = timeout_at(work_deadline, writing).await.map_err(late)?;
            }
            // What it has open in the guest is closed if that is possible.
            let _ = reader.close(carrier, work_deadline).await;
            self.partial = None;
        }
        // It stays in `self` while anything is awaited, because this future may be dropped.
        let partial = match self.partial.take() {
            Some(partial) => self.partial.insert(partial),
            None => {
                let (opened, removed) = self.open_partial(carrier, &info, work_deadline).await?;
                if removed > 0 {
                    self.taken.removed(removed);
                }
                self.partial.insert(opened)
            }
        };
        let resumed_at = partial.reader.offset();
        self.taken.has(resumed_at);
        let kept = self.taken.keep(info.size, work_deadline).await;
        // Others may have only for the moment what there is not enough of.
        let is_resumable = kept.is_err() && resumed_at > 0;
        let fetched = match kept {
            Ok(()) => {
                let taken = &mut self.taken;
                let how = (&self.policy, taken, self.write);
                partial.fetch(carrier, info.size, how, work_deadline, progress).await
            }
            Err(error) => Err(FileError::local("write", &self.destination, error)),
        };
        let closed = partial.reader.close(carrier, deadline).await;
        let done = partial.reader.offset();
        let expected = match fetched.and(closed) {
            Ok(()) => checksum::in_guest(carrier, &self.path, done, &self.policy, work_deadline).await,
            Err(error) => Err(error),
        };
        let file = Arc::clone(&partial.file);
        let expected = match expected {
            Ok(digest) => digest,
            Err(error) => {
                let partial_path = partial_path(&self.destination);
                let mut is_kept = true;
                if let ProtocolError::File(error) = &error {
                    // After a local write error the partial file has to be examined again.
                    self.partial = None;
                    // A partial file that fills the disk affects other programs, so it is removed.
                    if is_full(error) && !is_resumable {
                        self.remove_partial(file, work_deadline).await;
                        self.taken.removed(0);
                        is_kept = false;
                    }
                }
                let (path, total) = (self.shown(), info.size.max(done));
                let partial = is_kept.then(|| partial_path.display().to_string());
                return Err(FileError::Stopped { path, done, total, partial, source: Box::new(error) }.into());
            }
        };
        let found = Digest::finish(partial.hasher.clone());
        self.partial = None;
        if found != expected {
            self.remove_partial(file, work_deadline).await;
            self.taken.removed(0);
            return Err(FileError::Checksum { path: self.shown(), expected, found }.into());
        }
        let pulled = Pulled { path: self.destination.clone(), size: done, resumed_at, digest: found, info };
        Ok((file, pulled))
    }

    /// The path of the partial file, beside the destination.
    pub fn partial_path(&self) -> PathBuf {
        partial_path(&self.destination)
    }

    /// Gives the complete and verified copy its mode and its name, if it is on disk by `deadline`.
    pub(super) async fn finish(&self, file: Arc<File>, mode: Permissions, deadline: Instant) -> Result<()> {
        let (destination, partial_path, sync) = (self.destination.clone(), self.partial_path(), self.sync);
        blocking_by(self.policy.before(deadline), &self.destination, move |may_begin| {
            let failed = |error| FileError::local("write", &destination, error);
            // Syncing a large file takes long. If it is given up here, the file still is a partial file that can be
            // resumed.
            sync(&file).map_err(failed)?;
            may_begin()?;
            if !partial::is_at(&file, &partial_path).map_err(failed)? {
                let error = io::Error::other("it was removed or replaced while it was written");
                return Err(FileError::local("put in place", partial_path, error));
            }
            file.set_permissions(mode).map_err(failed)?;
            put_in_place(&file, &partial_path, &destination, sync).map_err(|error| {
                if partial::is_at(&file, &partial_path).unwrap_or_default() {
                    let _ = file.set_permissions(Permissions::from_mode(PRIVATE));
                }
                failed(error)
            })
        })
        .await
    }

    /// Removes the partial file, and waits for that until `deadline`.
    pub(super) async fn remove_partial(&self, file: Arc<File>, deadline: Instant) {
        let path = self.partial_path();
        // A failure to remove it is not worse than the error that is reported already.
        let _ = timeout_at(deadline, spawn_blocking(move || partial::remove(&file, &path))).await;
    }

    /// Opens the partial file and finds how much of it is valid. Returns as well how many bytes were removed, as they were not.
    async fn open_partial(
        &self,
        carrier: &impl Carrier,
        info: &FileInfo,
        deadline: Instant,
    ) -> Result<(Partial, u64)> {
        let (destination, path, sync) = (self.destination.clone(), self.partial_path(), self.sync);
        let check = if self.folder.is_some() { check_folder } else { partial::check_destination };
        let (file, there) = blocking(move || {
            check(&destination)?;
            // Only after there is something to put into it.
            let folder = folder_of(&path);
            make_folder(folder, &sync).map_err(|error| FileError::local("make the folder", folder, error))?;
            let file = partial::open(&path)?;
            let there = file.metadata().map_err(|error| FileError::local("read", &path, error))?.len();
            Ok((Arc::new(file), there))
        })
        .await?;
        if there > 0 && there <= info.size {
            let (begun, path) = (Arc::clone(&file), self.partial_path());
            let hasher = blocking(move || checksum::of_file(&begun, &path, there)).await?;
            let here = Digest::finish(hasher.clone());
            if checksum::in_guest(carrier, &self.path, there, &self.policy, deadline).await? == here {
                return Ok((self.partial_of(file, hasher, there), 0));
            }
        }
        let (emptied, path) = (file.clone(), self.destination.clone());
        blocking(move || emptied.set_len(0).map_err(|error| FileError::local("write", path, error))).await?;
        Ok((self.partial_of(file, Sha256::new(), 0), there))
    }

    fn partial_of(&self, file: Arc<File>, hasher: Sha256, offset: u64) -> Partial {
        Partial {
            file,
            path: partial_path(&self.destination),
            hasher,
            reader: Reader::new(self.path.clone(), offset),
            writing: None,
        }
    }
}

impl Partial {
    async fn fetch(
        &mut self,
        carrier: &impl Carrier,
        size: u64,
        (policy, taken, write): (&TransferPolicy, &mut Taken, Write),
        deadline: Instant,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<()> {
        let mut tell = |done: u64| progress(Progress { done, total: size.max(done) });
        tell(self.reader.offset());
        loop {
            // Files of the kernel, as in /proc, have size 0 and yet content.
            let left = if size == 0 { u64::MAX } else { size.saturating_sub(self.reader.offset()) };
            if left == 0 {
                return Ok(());
            }
            let count = policy.chunk.min(usize::try_from(left).unwrap_or(usize::MAX));
            let Chunk { bytes, end } = self.reader.read(carrier, count, deadline).await?;
            // What the guest sends may be more than it has said.
            let allowed = taken.grow(self.reader.offset());
            allowed.map_err(|error| FileError::local("write", &self.path, error))?;
            self.hasher.update(&bytes);
            let (file, path) = (Arc::clone(&self.file), self.path.clone());
            // It runs to its end even if this future is dropped, and may fail unseen then.
            let writing = self.writing.insert(spawn_blocking(move || {
                write(&file, &bytes).map_err(|error| FileError::local("write", path, error))
            }));
            let written = writing.await;
            self.writing = None;
            ended(written)?;
            tell(self.reader.offset());
            if end {
                return Ok(());
            }
        }
    }
}

/// Whether the local disk had no space for the copy.
fn is_full(error: &FileError) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error, FileError::Local { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge))
}
