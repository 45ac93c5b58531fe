//! Why a command to a VM failed, which program reported the failure, and whether the command may have taken effect.

mod effect;
mod file;
mod hint;
mod origin;
mod outcome;

use std::time::Duration;

use atp_transport::{ConnectStage, ErrorKind, LibvirtError, TransportError};

use crate::peer::Peer;
use crate::refusal::Refusal;
#[cfg(feature = "sockets")]
use crate::socket::LinkEnd;

pub use file::FileError;
pub use origin::Origin;

/// The result of this crate's functions.
pub type Result<T, E = ProtocolError> = std::result::Result<T, E>;

/// libvirt's name for a command to the agent.
const AGENT_COMMAND: &str = "virDomainQemuAgentCommand";

/// All failures between a command and its decoded reply.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The host, the daemon or the connection failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The command is invalid. Nothing was sent.
    #[error("the command cannot be sent: {reason}")]
    InvalidCommand {
        /// What is wrong with it.
        reason: String,
    },
    /// The command is longer than the carrier can send. Nothing was sent.
    #[error("the command is {size} bytes of JSON, and at most {limit} can be sent")]
    CommandTooLarge {
        /// Its length, bytes.
        size: usize,
        /// The longest command that can be sent, bytes.
        limit: usize,
    },
    /// No reply by the deadline.
    #[error("{peer}: {}", if *.sent { "no answer by the deadline" } else { "not asked, the deadline had passed" })]
    Timeout {
        /// The peer that was asked.
        peer: Peer,
        /// Whether the command may have been sent.
        sent: bool,
    },
    /// The agent did not answer by the deadline, and its host did: the silence is the VM's.
    #[error("the guest agent: no answer, and the host answers: QEMU, the guest or its agent hangs")]
    VmSilent {
        /// How the silence ended.
        source: Box<ProtocolError>,
    },
    /// The connection was lost during the work, and the host was not reached again.
    #[error("the connection to the host was lost, and the host was not reached again in time")]
    NotReachedAgain {
        /// How the last attempt to reach it failed.
        #[source]
        source: Box<ProtocolError>,
    },
    /// The carrier has no connection to this peer. Nothing was sent.
    #[error("{peer}: there is no connection to it, only to the VM's other peer")]
    NoChannel {
        /// The peer that should have been asked.
        peer: Peer,
    },
    /// The link to the socket ended.
    #[cfg(feature = "sockets")]
    #[error("{peer}: {}{end}", if *.sent { "no answer, " } else { "not asked, " })]
    LinkLost {
        /// The peer that was asked.
        peer: Peer,
        /// Whether the command may have been sent.
        sent: bool,
        /// Why it ended.
        end: LinkEnd,
    },
    /// The agent did not answer the synchronisation before the command. Nothing was sent.
    #[error("the guest agent: not asked, it does not answer")]
    AgentSilent,
    /// The guest has no agent yet and seems to be booting. Nothing was sent.
    #[error(
        "{source}; the guest is busy and has used {cpu_time:.1?} of processor time: it seems to be booting"
    )]
    GuestBooting {
        /// The processor time it has used since it was started.
        cpu_time: Duration,
        /// libvirt's error that there is no agent.
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
        /// The guest's message.
        reason: String,
        /// libvirt's error, if libvirt carried the answer.
        libvirt: Option<LibvirtError>,
    },
    /// The guest has no shell of the kind that the work needs: `/bin/sh`, or `powershell.exe` on Windows. Nothing was done.
    #[error("{} has no {shell}, which this needs: {reason}", os.as_deref().unwrap_or("the guest"))]
    NoShell {
        /// The guest's operating system, if it is known: `Microsoft Windows`.
        os: Option<String>,
        /// The shell that was tried.
        shell: &'static str,
        /// Whether the guest says that it is Windows.
        is_windows: bool,
        /// The guest's message.
        reason: String,
        /// libvirt's error, if libvirt carried the answer.
        libvirt: Option<LibvirtError>,
    },
    /// The command was executed, and its reply is too large to be transferred.
    #[error("{peer}: the answer is too large to be transferred")]
    OutputTooLarge {
        /// The peer that answered.
        peer: Peer,
        /// Whether libvirt stopped using the agent's channel because of it, so that every later command to this agent
        /// fails.
        channel_lost: bool,
        /// libvirt's error, if libvirt carried it.
        #[source]
        libvirt: Option<LibvirtError>,
    },
    /// The reply does not belong to this command, or is not valid.
    #[error("{peer}: {command}: the reply cannot be read: {detail}")]
    InvalidReply {
        /// The peer that answered.
        peer: Peer,
        /// The command.
        command: String,
        /// What is wrong with the reply.
        detail: String,
    },
    /// A process started in the guest was still running at the deadline. It continues to run.
    #[error("{program:?} was still running in the guest at the deadline (process {pid})")]
    StillRunning {
        /// The program, or the shell.
        program: String,
        /// Its process id in the guest.
        pid: i64,
        /// Why the last query of its state failed, if it did.
        #[source]
        source: Option<Box<ProtocolError>>,
    },
    /// The guest agent no longer knows the process that it started.
    #[error("{program:?} was started in the guest (process {pid}), and the agent no longer knows it")]
    ProcessLost {
        /// The program, or the shell.
        program: String,
        /// Its process id in the guest.
        pid: i64,
    },
    /// A process was started in the guest, and its result is not known.
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
    /// A process in the guest has ended, and the files with its output could not be copied.
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
    /// Filesystems of the guest had to be thawed before the work during the freeze had ended.
    #[error("the guest's filesystems were thawed after {after:.1?}, before the work had ended")]
    ThawedEarly {
        /// How long they were frozen.
        after: Duration,
    },
    /// Filesystems of the guest were frozen, and thawing them failed. They may still be frozen.
    #[error("the guest's filesystems were frozen and could not be thawed")]
    NotThawed {
        /// Why the last attempt failed.
        #[source]
        source: Box<ProtocolError>,
    },
    /// A file could not be examined or copied.
    #[error(transparent)]
    File(#[from] FileError),
    /// Keyboard or mouse input failed after some of it was sent.
    #[error("the input ended early: {done} of {total} {unit}s were sent")]
    InputIncomplete {
        /// The unit that is counted: `key`.
        unit: &'static str,
        /// How many were sent.
        done: usize,
        /// How many there are in total.
        total: usize,
        /// Why the rest was not sent.
        #[source]
        source: Box<ProtocolError>,
    },
    /// A screenshot is larger than allowed.
    #[error("the screenshot is larger than {limit} bytes")]
    ImageTooLarge {
        /// The largest size allowed, bytes.
        limit: usize,
    },
    /// A screenshot is not a valid image.
    #[error("the screenshot cannot be read: {detail}")]
    InvalidImage {
        /// What is wrong with it.
        detail: String,
    },
}

impl ProtocolError {
    /// The underlying error, if this one only adds the consequence.
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

    /// This error with its innermost cause, the one that says what failed, replaced.
    fn map_cause(self, change: impl FnOnce(ProtocolError) -> ProtocolError) -> Self {
        match self {
            ProtocolError::ResultLost { program, pid, source } => {
                ProtocolError::ResultLost { program, pid, source: Box::new(source.map_cause(change)) }
            }
            ProtocolError::OutputLost { program, pid, source } => {
                ProtocolError::OutputLost { program, pid, source: Box::new(source.map_cause(change)) }
            }
            ProtocolError::File(FileError::Stopped { path, done, total, partial, source }) => {
                let source = Box::new(source.map_cause(change));
                FileError::Stopped { path, done, total, partial, source }.into()
            }
            other => change(other),
        }
    }

    /// This error, of work whose connection was lost before, when its host could not be reached again.
    pub fn not_reached_again(self) -> Self {
        self.map_cause(|source| ProtocolError::NotReachedAgain { source: Box::new(source) })
    }

    /// Whether an agent did not answer by a deadline of ours. Its host may be as silent.
    pub fn is_unanswered_by_agent(&self) -> bool {
        match self {
            ProtocolError::Timeout { peer: Peer::Agent, sent: true } => true,
            ProtocolError::Transport(error) => {
                matches!(error, TransportError::CallTimeout { sent: true, operation: AGENT_COMMAND, .. })
            }
            _ => self.cause().is_some_and(ProtocolError::is_unanswered_by_agent),
        }
    }

    /// This error, of an agent that [did not answer](Self::is_unanswered_by_agent), when its host does.
    pub fn host_answers(self) -> Self {
        self.map_cause(|source| ProtocolError::VmSilent { source: Box::new(source) })
    }

    /// The kind of the transport error behind this one, if there is one.
    pub fn transport_kind(&self) -> Option<ErrorKind> {
        match self {
            ProtocolError::Transport(error) => Some(error.kind()),
            ProtocolError::Timeout { .. } => Some(ErrorKind::CallTimeout),
            #[cfg(feature = "sockets")]
            ProtocolError::LinkLost { .. } => Some(ErrorKind::ConnectionLost),
            ProtocolError::AgentSilent | ProtocolError::VmSilent { .. } => Some(ErrorKind::AgentUnresponsive),
            ProtocolError::NotReachedAgain { .. } => Some(ErrorKind::ConnectionLost),
            ProtocolError::GuestBooting { source, .. } => Some(source.kind()),
            // Its kind is more specific than that of its cause.
            ProtocolError::NotThawed { .. } => None,
            _ => self.cause()?.transport_kind(),
        }
    }

    /// How far the attempt to connect came that is behind this error, if one is.
    pub fn connect_stage(&self) -> Option<ConnectStage> {
        match self {
            ProtocolError::Transport(error) => error.connect_stage(),
            _ => self.cause()?.connect_stage(),
        }
    }

    /// The error reply of QEMU or of the guest agent behind this error, if there is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            ProtocolError::Refused(refusal) => Some(refusal),
            _ => self.cause()?.refusal(),
        }
    }

    /// [`refusal`](Self::refusal), to be reworded.
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

    /// Whether the VM's agent was not there, disconnected, or may have, because the connection was lost. What was known
    /// of the agent may be outdated then.
    pub fn is_agent_gone(&self) -> bool {
        matches!(
            self.transport_kind(),
            Some(
                ErrorKind::ConnectionLost
                    | ErrorKind::AgentNotConfigured
                    | ErrorKind::AgentNotConnected
                    | ErrorKind::AgentUnresponsive
                    | ErrorKind::AgentGone
                    | ErrorKind::AgentBroken
                    | ErrorKind::VmNotRunning
                    | ErrorKind::VmNotFound
            )
        )
    }

    /// An answer of the agent that does not fit the command.
    pub(crate) fn invalid_answer(command: &str, detail: impl Into<String>) -> Self {
        ProtocolError::InvalidReply { peer: Peer::Agent, command: command.to_owned(), detail: detail.into() }
    }

    /// An error of input of which `done` parts were sent. If none was sent, it is the error itself.
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

    /// A stable kebab-case name for the kind of the failure. Transport errors keep their kinds.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ProtocolError::Transport(error) => error.kind(),
            ProtocolError::InvalidCommand { .. } => ErrorKind::InvalidCommand,
            ProtocolError::CommandTooLarge { .. } => ErrorKind::CommandTooLarge,
            ProtocolError::Timeout { .. } => ErrorKind::CallTimeout,
            ProtocolError::NoChannel { .. } => ErrorKind::NoChannel,
            #[cfg(feature = "sockets")]
            ProtocolError::LinkLost { .. } => ErrorKind::ConnectionLost,
            ProtocolError::AgentSilent | ProtocolError::VmSilent { .. } => ErrorKind::AgentUnresponsive,
            ProtocolError::NotReachedAgain { .. } => ErrorKind::ConnectionLost,
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

    /// libvirt's own error behind this one, if there is one.
    pub fn libvirt(&self) -> Option<&LibvirtError> {
        match self {
            ProtocolError::Transport(error) => error.libvirt(),
            ProtocolError::GuestBooting { source, .. } => source.libvirt(),
            ProtocolError::Refused(refusal) => refusal.libvirt.as_ref(),
            ProtocolError::ExecFailed { libvirt, .. } | ProtocolError::NoShell { libvirt, .. } => {
                libvirt.as_ref()
            }
            ProtocolError::OutputTooLarge { libvirt, .. } => libvirt.as_ref(),
            ProtocolError::StillRunning { source: Some(source), .. }
            | ProtocolError::NotReachedAgain { source } => source.libvirt(),
            _ => self.cause()?.libvirt(),
        }
    }
}
