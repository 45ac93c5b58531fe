//! Why a command to a VM failed, who said so, and whether it may have happened.

mod effect;
mod file;
mod hint;
mod origin;

use std::time::Duration;

use atp_transport::{ErrorKind, LibvirtError, TransportError};

use crate::peer::Peer;
use crate::refusal::Refusal;
#[cfg(feature = "sockets")]
use crate::socket::LinkEnd;

pub use file::FileError;
pub use origin::Origin;

/// The result of everything in this crate.
pub type Result<T, E = ProtocolError> = std::result::Result<T, E>;

/// Everything that can go wrong between a command and its decoded reply.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The host, the daemon or the way there failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The command cannot be expressed; nothing was sent.
    #[error("the command cannot be sent: {reason}")]
    InvalidCommand {
        /// What is wrong with it.
        reason: String,
    },
    /// The command is longer than the carrier takes; nothing was sent.
    #[error("the command is {size} bytes of JSON, and at most {limit} can be carried")]
    CommandTooLarge {
        /// Its length, bytes.
        size: usize,
        /// The most that can be carried, bytes.
        limit: usize,
    },
    /// No reply by the deadline.
    #[error("{peer}: {}", if *.sent { "no answer by the deadline" } else { "not asked, the deadline had passed" })]
    Timeout {
        /// Who was asked.
        peer: Peer,
        /// Whether the command may have left.
        sent: bool,
    },
    /// The carrier has no way to that channel; nothing was sent.
    #[error("{peer}: there is no connection to it, only to the VM's other side")]
    NoChannel {
        /// Who should have been asked.
        peer: Peer,
    },
    /// The link to the socket ended.
    #[cfg(feature = "sockets")]
    #[error("{peer}: {}{end}", if *.sent { "no answer, " } else { "not asked, " })]
    LinkLost {
        /// Who was asked.
        peer: Peer,
        /// Whether the command may have left.
        sent: bool,
        /// Why it ended.
        end: LinkEnd,
    },
    /// The agent did not answer the synchronisation that comes before a command; nothing was sent.
    #[error("the guest agent: not asked, it does not answer")]
    AgentSilent,
    /// The guest's agent is not there, and the guest seems to be booting; nothing was sent.
    #[error(
        "{source}; the guest is busy and has used {cpu_time:.1?} of processor time: it seems to be booting"
    )]
    GuestBooting {
        /// How much processor time it has used since it was started.
        cpu_time: Duration,
        /// libvirt's word that there is no agent.
        source: Box<TransportError>,
    },
    /// QEMU or the guest agent answered with an error.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The program could not be started in the guest.
    #[error("cannot run {program:?} in the guest: {reason}")]
    ExecFailed {
        /// The program, or the shell.
        program: String,
        /// The guest's words.
        reason: String,
        /// libvirt's error, where libvirt carried the answer.
        libvirt: Option<LibvirtError>,
    },
    /// The guest has no POSIX shell, and what was to be done takes one; nothing was done.
    #[error("{} has no {shell}, which this takes: {reason}", os.as_deref().unwrap_or("the guest"))]
    NoShell {
        /// The guest's system, where it says: `Microsoft Windows`.
        os: Option<String>,
        /// The shell that was tried.
        shell: &'static str,
        /// The guest's words.
        reason: String,
        /// libvirt's error, where libvirt carried the answer.
        libvirt: Option<LibvirtError>,
    },
    /// The command was carried out, and its reply is too large to be carried.
    #[error("{peer} answered more than can be carried")]
    OutputTooLarge {
        /// Who answered.
        peer: Peer,
        /// Whether libvirt gave the agent's channel up over it, and so every later command to this agent.
        channel_lost: bool,
        /// libvirt's words, where libvirt carried it.
        #[source]
        libvirt: Option<LibvirtError>,
    },
    /// The reply is not one to this command.
    #[error("{peer}: {command}: the reply cannot be read: {detail}")]
    InvalidReply {
        /// Who answered.
        peer: Peer,
        /// The command.
        command: String,
        /// What is wrong with the reply.
        detail: String,
    },
    /// A process started in the guest had not ended by the deadline. It runs on.
    #[error("{program:?} was still running in the guest at the deadline (process {pid})")]
    StillRunning {
        /// The program, or the shell.
        program: String,
        /// Its process id in the guest.
        pid: i64,
        /// Why the last question after it failed, if it did.
        #[source]
        source: Option<Box<ProtocolError>>,
    },
    /// The guest agent does not know the process it started any more.
    #[error("{program:?} was started in the guest (process {pid}), and the agent has forgotten it since")]
    ProcessLost {
        /// The program, or the shell.
        program: String,
        /// Its process id in the guest.
        pid: i64,
    },
    /// A process was started in the guest, and how it ended could not be learnt.
    #[error("{program:?} was started in the guest (process {pid}), and its result did not arrive")]
    ResultLost {
        /// The program, or the shell.
        program: String,
        /// Its process id in the guest.
        pid: i64,
        /// Why.
        #[source]
        source: Box<ProtocolError>,
    },
    /// A process in the guest has ended, and the files with its output could not be fetched.
    #[error("{program:?} has ended in the guest (process {pid}), and its output could not be fetched")]
    OutputLost {
        /// The program, or the shell.
        program: String,
        /// Its process id in the guest.
        pid: i64,
        /// Why.
        #[source]
        source: Box<ProtocolError>,
    },
    /// File systems of the guest had to be thawed before the work they were frozen for had ended.
    #[error("the guest's file systems were thawed after {after:.1?}, before the work had ended")]
    ThawedEarly {
        /// For how long they were frozen.
        after: Duration,
    },
    /// File systems of the guest were frozen, and thawing them failed. They may be frozen still.
    #[error("the guest's file systems were frozen and could not be thawed")]
    NotThawed {
        /// Why the last try failed.
        #[source]
        source: Box<ProtocolError>,
    },
    /// A file could not be looked at or carried over.
    #[error(transparent)]
    File(#[from] FileError),
    /// Some of what was to be done with the keyboard or the mouse was done, and then it failed.
    #[error("the input ended early: {done} of {total} {unit}s were sent")]
    InputIncomplete {
        /// What is counted: `key`.
        unit: &'static str,
        /// How many were sent.
        done: usize,
        /// How many there are.
        total: usize,
        /// Why not all.
        #[source]
        source: Box<ProtocolError>,
    },
    /// A screenshot is larger than it may be.
    #[error("the picture of the screen is larger than {limit} bytes")]
    ImageTooLarge {
        /// The most it may have, bytes.
        limit: usize,
    },
    /// A screenshot is not one.
    #[error("the picture of the screen cannot be read: {detail}")]
    InvalidImage {
        /// What is wrong with it.
        detail: String,
    },
}

impl ProtocolError {
    /// The failure underneath, where this one only says what it came to.
    fn cause(&self) -> Option<&ProtocolError> {
        match self {
            ProtocolError::ResultLost { source, .. }
            | ProtocolError::OutputLost { source, .. }
            | ProtocolError::InputIncomplete { source, .. }
            | ProtocolError::NotThawed { source }
            | ProtocolError::File(FileError::Stopped { source, .. }) => Some(source),
            _ => None,
        }
    }

    /// The kind of the failure of the way to the VM, where one is behind this.
    pub fn transport_kind(&self) -> Option<ErrorKind> {
        match self {
            ProtocolError::Transport(error) => Some(error.kind()),
            ProtocolError::Timeout { .. } => Some(ErrorKind::CallTimeout),
            #[cfg(feature = "sockets")]
            ProtocolError::LinkLost { .. } => Some(ErrorKind::ConnectionLost),
            ProtocolError::AgentSilent => Some(ErrorKind::AgentUnresponsive),
            ProtocolError::GuestBooting { source, .. } => Some(source.kind()),
            // It has a word of its own.
            ProtocolError::NotThawed { .. } => None,
            _ => self.cause()?.transport_kind(),
        }
    }

    /// The error reply of QEMU or of the guest agent, where one is behind this.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            ProtocolError::Refused(refusal) => Some(refusal),
            _ => self.cause()?.refusal(),
        }
    }

    /// [`refusal`](Self::refusal), to be put in other words.
    pub(crate) fn refusal_mut(&mut self) -> Option<&mut Refusal> {
        match self {
            ProtocolError::Refused(refusal) => Some(refusal),
            ProtocolError::ResultLost { source, .. }
            | ProtocolError::OutputLost { source, .. }
            | ProtocolError::InputIncomplete { source, .. }
            | ProtocolError::NotThawed { source }
            | ProtocolError::File(FileError::Stopped { source, .. }) => source.refusal_mut(),
            _ => None,
        }
    }

    /// Whether the VM's agent was not there, went away, or may have, as the connection was lost: what was known of it
    /// may no longer hold.
    pub fn is_agent_gone(&self) -> bool {
        let is_gone = |kind| {
            matches!(
                kind,
                ErrorKind::ConnectionLost
                    | ErrorKind::AgentNotConfigured
                    | ErrorKind::AgentNotConnected
                    | ErrorKind::AgentUnresponsive
                    | ErrorKind::AgentGone
                    | ErrorKind::AgentBroken
                    | ErrorKind::VmNotRunning
                    | ErrorKind::VmNotFound
            )
        };
        self.transport_kind().is_some_and(is_gone)
    }

    /// An answer of the agent's that is not one to this command.
    pub(crate) fn invalid_answer(command: &str, detail: impl Into<String>) -> Self {
        ProtocolError::InvalidReply { peer: Peer::Agent, command: command.to_owned(), detail: detail.into() }
    }

    /// The failure of input of which `done` parts had been sent: nothing special, if none had.
    pub(crate) fn incomplete_input(
        unit: &'static str,
        done: usize,
        total: usize,
        error: ProtocolError,
    ) -> Self {
        match done {
            0 => error,
            _ => ProtocolError::InputIncomplete { unit, done, total, source: Box::new(error) },
        }
    }

    /// A stable kebab-case word for the kind of the failure; the transport's own kinds pass through.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ProtocolError::Transport(error) => error.kind(),
            ProtocolError::InvalidCommand { .. } => ErrorKind::InvalidCommand,
            ProtocolError::CommandTooLarge { .. } => ErrorKind::CommandTooLarge,
            ProtocolError::Timeout { .. } => ErrorKind::CallTimeout,
            ProtocolError::NoChannel { .. } => ErrorKind::NoChannel,
            #[cfg(feature = "sockets")]
            ProtocolError::LinkLost { .. } => ErrorKind::ConnectionLost,
            ProtocolError::AgentSilent => ErrorKind::AgentUnresponsive,
            ProtocolError::GuestBooting { .. } => ErrorKind::GuestBooting,
            ProtocolError::Refused(refusal) => refusal.kind.error_kind(),
            ProtocolError::ExecFailed { .. } => ErrorKind::GuestExecFailed,
            ProtocolError::NoShell { .. } => ErrorKind::GuestShellMissing,
            ProtocolError::OutputTooLarge { .. } => ErrorKind::OutputTooLarge,
            ProtocolError::InvalidReply { .. } => ErrorKind::InvalidReply,
            ProtocolError::StillRunning { .. } => ErrorKind::ExecTimeout,
            ProtocolError::ProcessLost { .. } => ErrorKind::ProcessLost,
            ProtocolError::ResultLost { source, .. }
            | ProtocolError::OutputLost { source, .. }
            | ProtocolError::InputIncomplete { source, .. } => source.kind(),
            ProtocolError::ThawedEarly { .. } => ErrorKind::ThawedEarly,
            ProtocolError::NotThawed { .. } => ErrorKind::NotThawed,
            ProtocolError::File(error) => error.kind(),
            ProtocolError::ImageTooLarge { .. } => ErrorKind::ImageTooLarge,
            ProtocolError::InvalidImage { .. } => ErrorKind::InvalidImage,
        }
    }

    /// libvirt's own error, where one is behind this.
    pub fn libvirt(&self) -> Option<&LibvirtError> {
        match self {
            ProtocolError::Transport(error) => error.libvirt(),
            ProtocolError::GuestBooting { source, .. } => source.libvirt(),
            ProtocolError::Refused(refusal) => refusal.libvirt.as_ref(),
            ProtocolError::ExecFailed { libvirt, .. } | ProtocolError::NoShell { libvirt, .. } => {
                libvirt.as_ref()
            }
            ProtocolError::OutputTooLarge { libvirt, .. } => libvirt.as_ref(),
            ProtocolError::StillRunning { source: Some(source), .. } => source.libvirt(),
            _ => self.cause()?.libvirt(),
        }
    }
}
