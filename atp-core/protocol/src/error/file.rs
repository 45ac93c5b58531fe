//! Failures of work with files, on this machine and in the guest.

use std::path::PathBuf;
use std::sync::Arc;

use atp_transport::{Effect, ErrorKind, Hint};

use crate::digest::Digest;
use crate::error::{Origin, ProtocolError};
use crate::refusal::RefusalKind;

/// Why a file could not be examined or copied.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// There is no such file in the guest, or its destination folder does not exist.
    #[error("no such file or directory in the guest: {path:?}")]
    NotFound {
        /// The path in the guest.
        path: String,
    },
    /// A file was expected.
    #[error("{path:?} in the guest is a directory")]
    IsDirectory {
        /// The path in the guest.
        path: String,
    },
    /// A directory was expected.
    #[error("{path:?} in the guest is not a directory")]
    NotDirectory {
        /// The path in the guest.
        path: String,
    },
    /// Only regular files can be copied.
    #[error("{path:?} in the guest is not a regular file")]
    NotRegular {
        /// The path in the guest.
        path: String,
    },
    /// The file is not read, as it is longer than what is kept in memory of it.
    #[error("{path:?} in the guest is larger than {limit} bytes")]
    TooLarge {
        /// The path in the guest.
        path: String,
        /// The most bytes that are read.
        limit: u64,
    },
    /// The guest could not do it.
    #[error("cannot {action} {path:?} in the guest: {reason}")]
    Guest {
        /// The action that failed.
        action: &'static str,
        /// The path in the guest.
        path: String,
        /// The guest's message.
        reason: String,
    },
    /// The shell that had to rename a complete copy ended early: the copy may be in place or not.
    #[error("cannot tell whether {path:?} was replaced in the guest: {reason}")]
    ReplaceUnknown {
        /// The path in the guest.
        path: String,
        /// How the shell ended.
        reason: String,
    },
    /// It failed on this machine.
    #[error("cannot {action} {}", path.display())]
    Local {
        /// The action that failed.
        action: &'static str,
        /// The path on this machine.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// A folder on this machine, which was not to be copied with what is in it.
    #[error("cannot copy {}: it is a directory", path.display())]
    LocalDirectory {
        /// The path on this machine.
        path: PathBuf,
    },
    /// Another transfer writes the same file on this machine.
    #[error("another transfer to {} is under way", path.display())]
    Busy {
        /// The path on this machine.
        path: PathBuf,
    },
    /// The file at a path on this machine, or at that of the partial file in the guest, does not belong to this transfer, and
    /// stays as it is.
    #[error("cannot write to {}: it is {found}", path.display())]
    Occupied {
        /// The path.
        path: PathBuf,
        /// What is there, such as `a symbolic link`.
        found: String,
    },
    /// The guest has no `tar`, which copies of folders need there.
    #[error("the guest has no `tar`, which a copy of a folder needs")]
    NoTar,
    /// The archive that a guest made of a folder has something that is not written on this machine: it would lead outside the
    /// destination, or is neither a file nor a folder nor a link.
    #[error("{name:?} in the guest's archive is refused: it is {found}")]
    Refused {
        /// The entry of the archive.
        name: String,
        /// What it is, such as `an absolute path`.
        found: String,
    },
    /// The copy differs from the original.
    #[error("{path:?}: the copy's SHA-256 is {found}, the original's {expected}")]
    Checksum {
        /// The path in the guest.
        path: String,
        /// The digest of the original.
        expected: Digest,
        /// The digest of the copy.
        found: Digest,
    },
    /// A transfer stopped before its end and can be resumed. The destination is unchanged.
    #[error("{path:?}: the transfer stopped after {done} of {total} bytes{}", kept_in(.partial.as_deref()))]
    Stopped {
        /// The path in the guest.
        path: String,
        /// Bytes copied.
        done: u64,
        /// Bytes in total.
        total: u64,
        /// The partial file that stays, from which the transfer can be resumed: in the guest for a push, on this
        /// machine for a pull. None if it was removed.
        partial: Option<String>,
        /// Why.
        #[source]
        source: Box<ProtocolError>,
    },
}

impl FileError {
    pub(crate) fn local(
        action: &'static str,
        path: impl Into<PathBuf>,
        error: std::io::Error,
    ) -> ProtocolError {
        FileError::Local { action, path: path.into(), source: Arc::new(error) }.into()
    }

    /// A stable kebab-case word for the kind of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            FileError::NotFound { .. } => ErrorKind::FileNotFound,
            FileError::IsDirectory { .. } => ErrorKind::IsADirectory,
            FileError::NotDirectory { .. } => ErrorKind::NotADirectory,
            FileError::NotRegular { .. } => ErrorKind::NotARegularFile,
            FileError::TooLarge { .. } => ErrorKind::OutputTooLarge,
            FileError::Guest { .. } | FileError::NoTar | FileError::ReplaceUnknown { .. } => {
                ErrorKind::GuestFileError
            }
            FileError::Refused { .. } => ErrorKind::ArchiveRefused,
            FileError::Local { .. } | FileError::LocalDirectory { .. } => ErrorKind::LocalFileError,
            FileError::Busy { .. } => ErrorKind::TransferBusy,
            FileError::Occupied { .. } => ErrorKind::PathOccupied,
            FileError::Checksum { .. } => ErrorKind::ChecksumMismatch,
            FileError::Stopped { source, .. } if is_of_the_guest(source) => ErrorKind::GuestFileError,
            FileError::Stopped { source, .. } => source.kind(),
        }
    }

    /// The source of the error.
    pub fn origin(&self) -> Origin {
        match self {
            FileError::NotFound { .. }
            | FileError::IsDirectory { .. }
            | FileError::NotDirectory { .. }
            | FileError::NotRegular { .. }
            | FileError::TooLarge { .. }
            | FileError::Guest { .. }
            | FileError::NoTar
            | FileError::Refused { .. }
            | FileError::ReplaceUnknown { .. } => Origin::Guest,
            FileError::Local { .. }
            | FileError::LocalDirectory { .. }
            | FileError::Busy { .. }
            | FileError::Occupied { .. }
            | FileError::Checksum { .. } => Origin::Caller,
            FileError::Stopped { source, .. } => source.origin(),
        }
    }

    /// Whether the destination may have changed. It does not change before a transfer is complete.
    pub fn effect(&self) -> Effect {
        match self {
            FileError::ReplaceUnknown { .. } => Effect::Unknown,
            _ => Effect::None,
        }
    }

    /// Whether the same work may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            FileError::Busy { .. } | FileError::Checksum { .. } => true,
            FileError::Stopped { source, .. } => source.is_retryable(),
            _ => false,
        }
    }

    /// What the user can try.
    pub fn hint(&self) -> Hint {
        let text = match self {
            FileError::NotFound { .. } => return Hint::CHECK_GUEST_PATH,
            FileError::IsDirectory { .. } | FileError::LocalDirectory { .. } => return Hint::COPY_FOLDER,
            FileError::NotDirectory { .. } | FileError::NotRegular { .. } => "name another path",
            FileError::TooLarge { .. } => "look for the text in the guest, as with `grep`",
            FileError::Guest { .. } => return Hint::CHECK_GUEST_SPACE,
            FileError::NoTar => {
                "install tar in the guest; Windows has tar.exe since Windows 10 1803 and Windows Server 2019: into and out of an \
                 older one copy the files one by one"
            }
            FileError::Refused { .. } => {
                "what was unpacked was removed; look at the entry in the guest, and copy the files beside it by themselves"
            }
            FileError::ReplaceUnknown { .. } => {
                "compare the file in the guest with the original before copying it again"
            }
            FileError::Local { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                "check the path on this machine"
            }
            FileError::Local { source, .. } if source.kind() == std::io::ErrorKind::InvalidFilename => {
                "give it another name, or leave it out of what is copied"
            }
            FileError::Local { .. } => "check the path, its permissions and the free space on this machine",
            FileError::Busy { .. } => "wait until it has ended, or copy to another name",
            FileError::Occupied { .. } => {
                "find out who put it there, and move it away; or copy to another name, best in a folder that only you can \
                 write to"
            }
            FileError::Checksum { .. } => {
                "the file may have changed during the copy: copy it again when no program writes to it"
            }
            FileError::Stopped { source, .. } if is_of_the_guest(source) => return Hint::CHECK_GUEST_SPACE,
            FileError::Stopped { source, .. } => return source.hint(),
        };
        Hint::plain(text)
    }
}

/// Adds that the partial file is kept.
fn kept_in(partial: Option<&str>) -> String {
    partial.map_or_else(String::new, |path| {
        format!("; they are kept in {path:?}, and the next copy resumes there")
    })
}

/// Whether a transfer stopped because the guest could not read or write, for example because its disk is full.
fn is_of_the_guest(error: &ProtocolError) -> bool {
    matches!(error, ProtocolError::Refused(refusal) if refusal.kind == RefusalKind::Guest)
}
