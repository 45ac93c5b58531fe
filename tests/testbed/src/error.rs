//! The errors of the testbed, each with the log that explains it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A result of the testbed.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the testbed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operation changes links or packet filters, which only a bed in root mode has.
    #[error("{operation} needs a testbed in root mode: this one has no network namespaces")]
    NeedsRoot {
        /// The requested operation.
        operation: &'static str,
    },
    /// The testbed has no host with this id.
    #[error("the testbed has no host {0:?}")]
    NoSuchHost(String),
    /// The host has no guest with this name.
    #[error("host {host} has no guest {guest:?}")]
    NoSuchGuest {
        /// The host.
        host: String,
        /// The requested guest.
        guest: String,
    },
    /// The host already has a guest with this name.
    #[error("host {host} already has a guest {guest:?}")]
    GuestExists {
        /// The host.
        host: String,
        /// The requested name.
        guest: String,
    },
    /// A daemon should speak a language of which no catalogue is installed.
    #[error(
        "libvirt has no translation into {language:?} on this machine; Debian's package libvirt-l10n has them all"
    )]
    NoCatalogue {
        /// The name of the catalogue.
        language: String,
    },
    /// A program that the testbed runs is not installed.
    #[error("cannot run {program}: {source}; `cargo xtask setup` installs what the testbed needs")]
    Program {
        /// The program.
        program: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// A child process ended with a status other than 0.
    #[error("`{command}` failed ({status}): {}", stderr.trim())]
    Command {
        /// The command line.
        command: String,
        /// The exit status or signal.
        status: String,
        /// The text on stderr.
        stderr: String,
    },
    /// An operation did not finish by its deadline.
    #[error("{what} took longer than {after:?}{log}")]
    Deadline {
        /// The operation.
        what: String,
        /// The deadline.
        after: Duration,
        /// The log that may show the reason.
        log: LogTail,
    },
    /// A daemon ended, or does not run although it should.
    #[error("the libvirt daemon of host {host} {problem}{log}")]
    Daemon {
        /// The host.
        host: String,
        /// The problem, as the rest of a sentence about the daemon.
        problem: String,
        /// The end of its log.
        log: LogTail,
    },
    /// The guest is not running, so there is no QEMU process.
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
    /// Another Debian release, of which a host is to run the libvirt, could not be installed in the cache.
    #[error(
        "cannot install Debian {suite} with its libvirt. The archive {mirror}, which this machine's apt uses, may not serve \
         that release or its sources: {source}"
    )]
    Release {
        /// The release.
        suite: String,
        /// The archive.
        mirror: String,
        /// The reason.
        source: Box<Error>,
    },
    /// No number is free for another bed, or the state of a bed cannot be read.
    #[error("{0}")]
    State(String),
    /// A file or socket operation failed.
    #[error("{what}: {source}")]
    Io {
        /// The operation, with the path or address.
        what: String,
        /// The operating system's error.
        source: io::Error,
    },
}

impl Error {
    /// Adds the operation to an I/O error.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Whether a child process or a wait timed out.
    pub fn is_deadline(&self) -> bool {
        matches!(self, Self::Deadline { .. })
    }
}

/// The last lines of a log file, for the end of an error message.
#[derive(Debug, Default)]
pub struct LogTail {
    path: Option<PathBuf>,
    lines: String,
}

impl LogTail {
    /// The number of lines in a message.
    const LINES: usize = 15;

    /// No log to show.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// Reads the end of the file. If it cannot be read, the message says so.
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
