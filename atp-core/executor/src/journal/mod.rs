//! A run's journal: which targets were started and their outcomes, on disk before they are reported.
//!
//! A file of JSON lines: a head (version, operation, targets, policy), then a `started` record for each target before its
//! work starts, and a `finished` record with its outcome before that is shown. So a process that is killed at any moment has
//! shown nothing that is not in the file, and a run that resumes from the file ([`History`]) repeats nothing that was
//! started: a target that was started and not finished has an unknown effect.
//!
//! Lines are written and synced in batches: all lines that came while the disk was busy with the batch before, and a line
//! with their checksum. After a failed write nothing more is written, so only the last batch of a file can be torn, by a loss
//! of power or a full disk. Reading skips it (`read.rs`).

mod fingerprint;
mod history;
mod past;
mod read;
mod record;
mod recorder;
mod rows;
mod show;

use std::error::Error;
use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use atp_api::{Outcome, OutcomeError};
use atp_protocol::files::sync_written;
use atp_transport::{ErrorKind, Hint};
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use crate::plan::Plan;
use crate::target::Target;
use record::{Record, sealed};

pub use history::History;
pub use recorder::Recorder;
pub use rows::{RecordedTarget, RunHead};
pub use show::{JournalProgress, JournalReport, JournalTarget};

/// The number of lines that are queued to be written. Further callers wait.
const WAITING: usize = 1024;

/// A journal that is open for writing, by this process only. Clones write to the same file.
#[derive(Debug, Clone)]
pub struct Journal {
    lines: mpsc::Sender<Line>,
}

/// A line to be written, and the channel for the result.
struct Line {
    text: String,
    written: oneshot::Sender<Result<(), JournalError>>,
}

/// Why a journal cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file cannot be made, opened or read.
    #[error("the journal {path} cannot be {doing}")]
    Open {
        /// The file.
        path: String,
        /// The operation: made, read, opened.
        doing: &'static str,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// There is a file of that name already.
    #[error("the journal {path} exists already")]
    Exists {
        /// The file.
        path: String,
    },
    /// A line could not be written, as on a full disk.
    #[error("the journal {path} cannot be written")]
    Write {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// A record could not be written to a store that is not a file.
    #[error("the run cannot be recorded in {store}")]
    Store {
        /// The store's name.
        store: String,
        /// Why.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// Another process is writing the file, or has written to it since it was read.
    #[error("the journal {path} is in use by another run")]
    InUse {
        /// The file.
        path: String,
    },
    /// The file is empty: the run ended before its head was written, and nothing was started.
    #[error("the journal {path} is empty: nothing was started")]
    Empty {
        /// The file.
        path: String,
    },
    /// Its head is incomplete: the run ended before it was written, and nothing was started.
    #[error("the journal {path} is cut off in its head: nothing was started")]
    Torn {
        /// The file.
        path: String,
    },
    /// Its head is damaged, and records follow it: targets were started.
    #[error("the journal {path} is damaged in its head: its targets are not known")]
    Damaged {
        /// The file.
        path: String,
    },
    /// The file is not a journal, or not of a version that can be read.
    #[error("{path}, line {line}: not the journal of a run: {reason}")]
    Invalid {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The journal identifies its operation in a way that this version cannot compare with.
    #[error(
        "the journal {path} is of another version ({version}) and identifies its operation ({op}) in a way that this version \
         cannot compare with: it is not known whether it is the same"
    )]
    Incomparable {
        /// The file.
        path: String,
        /// The name of the journal's operation.
        op: String,
        /// The version of the program that wrote it.
        version: String,
    },
    /// The journal is of a run that did something else.
    #[error("the journal {path} is of another operation: {theirs}, not {ours}")]
    OtherOperation {
        /// The file.
        path: String,
        /// The journal's operation.
        theirs: String,
        /// The one it was to be continued with.
        ours: String,
    },
}

impl JournalError {
    /// The kind, for programs to match on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            JournalError::Write { .. } | JournalError::Store { .. } => ErrorKind::JournalFailed,
            JournalError::InUse { .. } => ErrorKind::JournalInUse,
            JournalError::OtherOperation { .. } => ErrorKind::JournalOfAnotherOperation,
            JournalError::Incomparable { .. } => ErrorKind::JournalUnusable,
            JournalError::Open { .. }
            | JournalError::Exists { .. }
            | JournalError::Empty { .. }
            | JournalError::Torn { .. }
            | JournalError::Damaged { .. }
            | JournalError::Invalid { .. } => ErrorKind::JournalUnusable,
        }
    }

    /// What a person can try.
    pub fn hint(&self) -> Hint {
        match self {
            JournalError::Open { .. } => Hint::plain("check the path and its permissions"),
            JournalError::Exists { .. } => Hint::RESUME_RUN,
            JournalError::Write { .. } | JournalError::Store { .. } => Hint::RESUME_RUN_LATER,
            JournalError::InUse { .. } => Hint::plain("wait until that run has ended"),
            JournalError::Empty { .. } => Hint::BEGIN_RUN_ANEW,
            JournalError::Torn { .. } => Hint::REMOVE_JOURNAL,
            JournalError::Damaged { .. } => Hint::plain(
                "check on the VMs what was done, and run the command for the others with a new journal",
            ),
            JournalError::Invalid { .. } => Hint::NAME_JOURNAL,
            JournalError::Incomparable { .. } => Hint::plain(
                "resume it with the version that wrote it, or begin a new run for what is left to do",
            ),
            JournalError::OtherOperation { .. } => {
                Hint::plain("resume with the same command that started the journal, or start a new journal")
            }
        }
    }
}

impl From<&JournalError> for OutcomeError {
    fn from(error: &JournalError) -> Self {
        OutcomeError::of(error.kind(), error).with_hint(error.hint())
    }
}

impl Journal {
    /// Begins the journal of a run of `plan`: makes the file, which must not exist or must be empty, and writes its
    /// head.
    ///
    /// Only the owner may read it: outcomes can hold anything a guest printed.
    ///
    /// # Errors
    /// The file exists and has something in it, cannot be made, or cannot be written. What cannot be written is
    /// removed again.
    ///
    /// Not cancel safe: the file may be left with its head.
    pub async fn create(path: &Path, plan: &Plan) -> Result<Journal, JournalError> {
        let head = sealed(0, Record::begun(plan).to_line());
        let path = path.to_owned();
        let (file, name) = blocking(move || {
            let name = path.display().to_string();
            let file = make(&path, &name)?;
            if let Err(source) = write(&file, head.as_bytes()).and_then(|()| sync_written(&file, &path)) {
                // Nothing was started, and an incomplete head would be in the way of the next try.
                let _ = fs::remove_file(&path);
                return Err(failed(&name, source));
            }
            Ok((file, name))
        })
        .await?;
        Ok(Journal::on(file, name, 1))
    }

    /// Resumes writing the journal that `history` was read from, for a run of `plan`, which is what [`History::apply`] left.
    ///
    /// # Errors
    /// Another run has the journal, or it cannot be opened or written.
    ///
    /// Not cancel safe: the file may be left with a line that says so.
    pub async fn resume(history: &History, plan: &Plan) -> Result<Journal, JournalError> {
        let (path, good, end) = (history.path.clone(), history.good_bytes as u64, history.length as u64);
        let batch = history.batches;
        let resumed = sealed(batch, Record::resumed(plan, history.has_lost).to_line());
        let (file, name) = blocking(move || {
            let name = path.display().to_string();
            let opened = OpenOptions::new().read(true).write(true).open(&path);
            let mut file = opened.map_err(|error| cannot("opened", &name, error))?;
            lock(&file, &name)?;
            let length = file.metadata().map_err(|error| cannot("read", &name, error))?.len();
            if length != end {
                return Err(JournalError::InUse { path: name });
            }
            let go_on = |file: &mut File| {
                file.seek(SeekFrom::Start(good))?;
                write(file, resumed.as_bytes())?;
                // The bad bytes are cut off last: they show that records were lost until the file says so.
                let good = file.stream_position()?;
                if good < end {
                    file.set_len(good)?;
                    file.sync_all()?;
                }
                Ok(())
            };
            go_on(&mut file).map_err(|source| failed(&name, source))?;
            Ok((file, name))
        })
        .await?;
        Ok(Journal::on(file, name, batch + 1))
    }

    /// Makes a journal of an open file with its head and this number of batches. The last clone closes the file.
    fn on(file: File, path: String, batches: u64) -> Journal {
        let (lines, waiting) = mpsc::channel(WAITING);
        tokio::spawn(write_lines(file, path, batches, waiting));
        Journal { lines }
    }

    async fn note(&self, record: &Record<'_>) -> Result<(), JournalError> {
        let (written, answer) = oneshot::channel();
        let line = Line { text: record.to_line(), written };
        let gone = || failed("", io::Error::other("its writer ended"));
        self.lines.send(line).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl Recorder for Journal {
    fn started<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async { self.note(&Record::started(target)).await })
    }

    fn finished<'a>(&'a self, outcome: &'a Outcome) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async { self.note(&Record::finished(outcome)).await })
    }
}

/// Writes lines as they come, all that are queued as one batch, until all senders are dropped. After a failure nothing is
/// written: a torn batch must be the last one.
async fn write_lines(file: File, path: String, mut batches: u64, mut waiting: mpsc::Receiver<Line>) {
    let file = Arc::new(file);
    let mut state = Ok(());
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, WAITING).await > 0 {
        if state.is_ok() {
            let text = sealed(batches, batch.iter().map(|line| line.text.as_str()).collect());
            batches += 1;
            let target = Arc::clone(&file);
            let path = path.clone();
            state = blocking(move || write(&target, text.as_bytes()).map_err(|source| failed(&path, source)))
                .await;
        }
        for line in batch.drain(..) {
            // Fails if the caller does not wait any more.
            let _ = line.written.send(state.clone());
        }
    }
}

/// Makes the file and locks it. An existing empty file is used.
fn make(path: &Path, name: &str) -> Result<File, JournalError> {
    // A folder or a device cannot be resumed from.
    let exists = || match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            cannot("made", name, io::Error::other("the path exists and is not a regular file"))
        }
        _ => JournalError::Exists { path: name.to_owned() },
    };
    let options = || OpenOptions::new().append(true).mode(0o600).clone();
    let made = options().create_new(true).open(path);
    let file = match made {
        // Opening something that is not a regular file may block without limit.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_empty(fs::metadata(path)) => {
            options().open(path)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists()),
        made => made,
    };
    let file = file.map_err(|error| cannot("made", name, error))?;
    lock(&file, name)?;
    // Only with the lock it is certain that no other process writes to it.
    if !is_empty(file.metadata()) {
        return Err(exists());
    }
    file.set_permissions(Permissions::from_mode(0o600)).map_err(|error| cannot("made", name, error))?;
    Ok(file)
}

fn is_empty(metadata: io::Result<Metadata>) -> bool {
    metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0)
}

/// Writes all bytes and syncs them to disk.
fn write(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_data()
}

/// Reads a journal whole. What is no file may have no end, or none that comes: it is not opened.
async fn read_whole(path: &Path) -> Result<Vec<u8>, JournalError> {
    let path = path.to_owned();
    blocking(move || {
        let bytes = fs::metadata(&path).and_then(|found| match found.is_file() {
            true => fs::read(&path),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
        });
        bytes.map_err(|error| cannot("read", &path.display().to_string(), error))
    })
    .await
}

/// Runs blocking work outside the runtime's workers: disks can hang.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Result<T, JournalError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(failed("", io::Error::other("the writing was abandoned"))))
}

/// Locks the file for as long as it is open, against other machines too if the filesystem supports that. On a filesystem
/// without locks there is none.
fn lock(file: &File, path: &str) -> Result<(), JournalError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(error)) => Err(cannot("locked", path, error)),
    }
}

impl JournalError {
    /// Nothing was recorded for as long as the run waits.
    pub(crate) fn hangs() -> Self {
        failed("", io::Error::new(io::ErrorKind::TimedOut, "its disk does not answer"))
    }
}

fn cannot(doing: &'static str, path: &str, source: io::Error) -> JournalError {
    JournalError::Open { path: path.to_owned(), doing, source: Arc::new(source) }
}

fn failed(path: &str, source: io::Error) -> JournalError {
    JournalError::Write { path: path.to_owned(), source: Arc::new(source) }
}

#[cfg(test)]
mod tests {
    use atp_api::{Policy, RunEvent, Status, StopReason};

    use super::*;
    use crate::run::{RunControl, RunSpec, run_targets};
    use crate::verbs::completion::Completion;
    use atp_transport::Effect;

    /// A device that is always full.
    fn full() -> File {
        OpenOptions::new().write(true).open("/dev/full").unwrap()
    }

    fn hosts(count: usize) -> Vec<Target> {
        (0..count).map(|n| Target { host: format!("h{n}").parse().unwrap(), domain: None }).collect()
    }

    #[tokio::test]
    async fn nothing_is_started_that_cannot_be_recorded() {
        let journal = Journal::on(full(), "j".to_owned(), 1);
        let policy = Policy { parallel: 2, ..Policy::default() };
        let spec = RunSpec {
            op: "exec",
            targets: hosts(5),
            settled: Vec::new(),
            done_before: 0,
            policy,
            journal: Some(Arc::new(journal)),
        };
        let mut run =
            run_targets(spec, &RunControl::default(), |_, _| async { Completion::ok(Effect::Done, None) });
        let (mut reasons, mut outcomes) = (Vec::new(), Vec::new());
        while let Some(event) = run.next().await {
            match event {
                RunEvent::Started { host, .. } => panic!("{host} was started"),
                RunEvent::Stopping(StopReason::JournalFailed { error }) => reasons.push(error),
                RunEvent::Finished(outcome) => outcomes.push(outcome),
                _ => {}
            }
        }
        assert_eq!(reasons.len(), 1);
        assert_eq!(reasons[0].kind, ErrorKind::JournalFailed, "{reasons:?}");
        assert_eq!(reasons[0].message, "the journal j cannot be written");
        assert_eq!(outcomes.len(), 5);
        for outcome in outcomes {
            assert_eq!((outcome.status, outcome.effect), (Status::Skipped, Effect::None));
            let error = outcome.error.unwrap();
            assert_eq!(error.kind, "journal-failed");
            assert!(error.causes[0].contains("No space left"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn after_a_failure_nothing_more_is_written() {
        let (reader, writer) = io::pipe().unwrap();
        let journal = Journal::on(File::from(std::os::fd::OwnedFd::from(writer)), "j".to_owned(), 1);
        // A pipe cannot be synced: the first line is written with its seal, and fails.
        let target = &hosts(1)[0];
        assert!(journal.started(target).await.is_err());
        assert!(journal.started(target).await.is_err());
        drop(journal);
        let lines = tokio::task::spawn_blocking(|| io::read_to_string(reader)).await.unwrap().unwrap();
        assert_eq!(lines.lines().count(), 2, "{lines}");
    }
}
