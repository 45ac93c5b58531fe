//! What can go wrong with a testbed, each with where its log is.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A result of the testbed.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with a testbed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operation works on links and packets, which only a bed in root mode has.
    #[error("{operation} needs a testbed in root mode: this one has no network namespaces")]
    NeedsRoot {
        /// The operation that was asked for.
        operation: &'static str,
    },
    /// The testbed has no host of that id.
    #[error("the testbed has no host {0:?}")]
    NoSuchHost(String),
    /// The host has no guest of that name.
    #[error("host {host} has no guest {guest:?}")]
    NoSuchGuest {
        /// The host asked.
        host: String,
        /// The guest asked for.
        guest: String,
    },
    /// The host has a guest of that name already.
    #[error("host {host} already has a guest {guest:?}")]
    GuestExists {
        /// The host asked.
        host: String,
        /// The name asked for.
        guest: String,
    },
    /// A program the testbed runs is not installed.
    #[error("cannot run {program}: {source}; `cargo xtask setup` installs what the testbed needs")]
    Program {
        /// The program.
        program: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A child process ended with a status other than 0.
    #[error("`{command}` failed ({status}): {}", stderr.trim())]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it wrote on stderr.
        stderr: String,
    },
    /// Something did not happen in time.
    #[error("{what} took longer than {after:?}{log}")]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// The log that may tell why.
        log: LogTail,
    },
    /// A daemon ended, or does not run when it should.
    #[error("the libvirt daemon of host {host} {problem}{log}")]
    Daemon {
        /// The host.
        host: String,
        /// What is wrong with it.
        problem: String,
        /// The end of its log.
        log: LogTail,
    },
    /// The guest is not running, so there is no QEMU process to act on.
    #[error("guest {guest} of host {host} is not running")]
    NotRunning {
        /// The host.
        host: String,
        /// The guest.
        guest: String,
    },
    /// The guest image could not be made.
    #[error("cannot make the guest image: {0}")]
    Image(String),
    /// No place is left for one more bed, or its state cannot be read.
    #[error("{0}")]
    State(String),
    /// A file or socket operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the path or address.
        what: String,
        /// What the operating system said.
        source: io::Error,
    },
}

impl Error {
    /// Wraps an I/O error with what was tried.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Whether this is a child process or a wait that ran out of time.
    pub fn is_deadline(&self) -> bool {
        matches!(self, Self::Deadline { .. })
    }
}

/// The last lines of a log file, shown at the end of an error's message.
#[derive(Debug, Default)]
pub struct LogTail {
    path: Option<PathBuf>,
    lines: String,
}

impl LogTail {
    /// How many lines a message shows.
    const LINES: usize = 15;

    /// No log to show.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// Reads the end of the file; one that cannot be read says so in the message.
    pub(crate) fn of(path: &Path) -> Self {
        let lines = match std::fs::read(path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
                all[all.len().saturating_sub(Self::LINES)..].join("\n")
            }
            Err(error) => format!("(cannot be read: {error})"),
        };
        Self { path: Some(path.to_owned()), lines }
    }

    /// The log file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

impl fmt::Display for LogTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            None => Ok(()),
            Some(path) if self.lines.is_empty() => write!(f, "\n{} is empty", path.display()),
            Some(path) => write!(f, "\n{} ends with:\n{}", path.display(), self.lines),
        }
    }
}
