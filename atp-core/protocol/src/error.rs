//! Why a command to a VM failed, who said so, and whether it may have happened.

use std::fmt;
use std::time::Duration;

use atp_transport::{Effect, ErrorKind, Failure, LibvirtError, TransportError};

use crate::carrier::Channel;
use crate::files::FileError;
use crate::refusal::{Refusal, RefusalKind};
use crate::socket::LinkEnd;

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
    #[error("{channel}: {}", if *.sent { "no answer by the deadline" } else { "not asked, the deadline had passed" })]
    Timeout {
        /// Who was asked.
        channel: Channel,
        /// Whether the command may have left.
        sent: bool,
    },
    /// The carrier has no way to that channel; nothing was sent.
    #[error("{channel}: there is no connection to it, only to the VM's other side")]
    NoChannel {
        /// Who should have been asked.
        channel: Channel,
    },
    /// The link to the socket ended.
    #[error("{channel}: {}{end}", if *.sent { "no answer, " } else { "not asked, " })]
    LinkLost {
        /// Who was asked.
        channel: Channel,
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
    #[error("{channel} answered more than can be carried")]
    OutputTooLarge {
        /// Who answered.
        channel: Channel,
        /// Whether libvirt gave the agent's channel up over it, and so every later command to this agent.
        channel_lost: bool,
        /// libvirt's words, where libvirt carried it.
        #[source]
        libvirt: Option<LibvirtError>,
    },
    /// The reply is not one to this command.
    #[error("{channel}: {command}: the reply cannot be read: {detail}")]
    InvalidReply {
        /// Who answered.
        channel: Channel,
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

/// Who said that something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Nobody out there: it was found, or it failed, on this side.
    Caller,
    /// The way to the VM: a connection, its pool, a deadline.
    Carrier,
    /// libvirt.
    Libvirt,
    /// QEMU.
    Qemu,
    /// The guest, by its agent.
    Guest,
}

impl Origin {
    /// The word, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Caller => "caller",
            Origin::Carrier => "carrier",
            Origin::Libvirt => "libvirt",
            Origin::Qemu => "qemu",
            Origin::Guest => "guest",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ProtocolError {
    /// Who said that it failed.
    pub fn origin(&self) -> Origin {
        match self {
            ProtocolError::Transport(TransportError::Libvirt { .. }) | ProtocolError::GuestBooting { .. } => {
                Origin::Libvirt
            }
            ProtocolError::OutputTooLarge { libvirt: Some(_), .. } => Origin::Libvirt,
            ProtocolError::Transport(_)
            | ProtocolError::Timeout { .. }
            | ProtocolError::NoChannel { .. }
            | ProtocolError::LinkLost { .. }
            | ProtocolError::AgentSilent
            | ProtocolError::OutputTooLarge { libvirt: None, .. }
            | ProtocolError::StillRunning { .. } => Origin::Carrier,
            ProtocolError::InvalidCommand { .. } | ProtocolError::CommandTooLarge { .. } => Origin::Caller,
            ProtocolError::Refused(refusal) => refusal.channel.into(),
            ProtocolError::InvalidReply { channel, .. } => (*channel).into(),
            ProtocolError::ExecFailed { .. }
            | ProtocolError::NoShell { .. }
            | ProtocolError::ProcessLost { .. }
            | ProtocolError::ThawedEarly { .. } => Origin::Guest,
            ProtocolError::ResultLost { source, .. }
            | ProtocolError::OutputLost { source, .. }
            | ProtocolError::NotThawed { source }
            | ProtocolError::InputIncomplete { source, .. } => source.origin(),
            ProtocolError::File(error) => error.origin(),
            // The picture comes by a stream of libvirt's.
            ProtocolError::ImageTooLarge { .. } | ProtocolError::InvalidImage { .. } => Origin::Libvirt,
        }
    }

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
        ProtocolError::InvalidReply {
            channel: Channel::Agent,
            command: command.to_owned(),
            detail: detail.into(),
        }
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
    pub fn kind(&self) -> &'static str {
        match self {
            ProtocolError::Transport(error) => error.kind().as_str(),
            ProtocolError::InvalidCommand { .. } => "invalid-command",
            ProtocolError::CommandTooLarge { .. } => "command-too-large",
            ProtocolError::Timeout { .. } => "call-timeout",
            ProtocolError::NoChannel { .. } => "no-channel",
            ProtocolError::LinkLost { .. } => ErrorKind::ConnectionLost.as_str(),
            ProtocolError::AgentSilent => ErrorKind::AgentUnresponsive.as_str(),
            ProtocolError::GuestBooting { .. } => "guest-booting",
            ProtocolError::Refused(refusal) => refusal.kind.as_str(),
            ProtocolError::ExecFailed { .. } => "guest-exec-failed",
            ProtocolError::NoShell { .. } => "guest-shell-missing",
            ProtocolError::OutputTooLarge { .. } => "output-too-large",
            ProtocolError::InvalidReply { .. } => "invalid-reply",
            ProtocolError::StillRunning { .. } => "exec-timeout",
            ProtocolError::ProcessLost { .. } => "process-lost",
            ProtocolError::ResultLost { source, .. }
            | ProtocolError::OutputLost { source, .. }
            | ProtocolError::InputIncomplete { source, .. } => source.kind(),
            ProtocolError::ThawedEarly { .. } => "thawed-early",
            ProtocolError::NotThawed { .. } => "not-thawed",
            ProtocolError::File(error) => error.kind(),
            ProtocolError::ImageTooLarge { .. } => "image-too-large",
            ProtocolError::InvalidImage { .. } => "invalid-image",
        }
    }

    /// Whether the command may have happened. An error reply means that it did not; a reply that cannot be
    /// read means nothing; once a process has been started the answer is never [`Effect::None`].
    pub fn effect(&self) -> Effect {
        match self {
            ProtocolError::Transport(error) => error.effect(),
            ProtocolError::InvalidCommand { .. }
            | ProtocolError::CommandTooLarge { .. }
            | ProtocolError::Timeout { sent: false, .. }
            | ProtocolError::NoChannel { .. }
            | ProtocolError::LinkLost { sent: false, .. }
            | ProtocolError::AgentSilent
            | ProtocolError::GuestBooting { .. }
            | ProtocolError::Refused(_)
            | ProtocolError::ExecFailed { .. }
            | ProtocolError::NoShell { .. }
            | ProtocolError::ImageTooLarge { .. }
            | ProtocolError::InvalidImage { .. } => Effect::None,
            ProtocolError::OutputTooLarge { .. }
            | ProtocolError::OutputLost { .. }
            | ProtocolError::ThawedEarly { .. }
            | ProtocolError::NotThawed { .. } => Effect::Done,
            ProtocolError::File(error) => error.effect(),
            ProtocolError::Timeout { sent: true, .. }
            | ProtocolError::LinkLost { sent: true, .. }
            | ProtocolError::InvalidReply { .. }
            | ProtocolError::StillRunning { .. }
            | ProtocolError::ProcessLost { .. } => Effect::Unknown,
            ProtocolError::ResultLost { source, .. } => match source.effect() {
                // The agent sends output only with the end of the process.
                Effect::Done => Effect::Done,
                Effect::None | Effect::Unknown => Effect::Unknown,
            },
            ProtocolError::InputIncomplete { source, .. } => match source.effect() {
                Effect::Unknown => Effect::Unknown,
                // What came before it was done.
                Effect::None | Effect::Done => Effect::Done,
            },
        }
    }

    /// Whether the same command, sent again later, may well succeed. See also [`effect`](Self::effect).
    pub fn is_retryable(&self) -> bool {
        match self {
            ProtocolError::Transport(error) => error.is_retryable(),
            ProtocolError::Timeout { .. }
            | ProtocolError::LinkLost { .. }
            | ProtocolError::AgentSilent
            | ProtocolError::GuestBooting { .. } => true,
            ProtocolError::Refused(refusal) => refusal.kind == RefusalKind::GuestFrozen,
            ProtocolError::File(error) => error.is_retryable(),
            // Another freeze is no way out of the first.
            ProtocolError::NotThawed { .. } => false,
            _ => self.cause().is_some_and(ProtocolError::is_retryable),
        }
    }

    /// Whether a deadline of ours ended the work.
    pub fn is_timeout(&self) -> bool {
        match self {
            ProtocolError::Transport(error) => error.is_timeout(),
            ProtocolError::Timeout { .. } | ProtocolError::StillRunning { .. } => true,
            _ => self.cause().is_some_and(ProtocolError::is_timeout),
        }
    }

    /// Whether the host could not be reached at all.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, ProtocolError::Transport(error) if error.is_unreachable())
    }

    /// What a person can try.
    pub fn hint(&self) -> &str {
        match self {
            ProtocolError::Transport(error) => error.hint(),
            ProtocolError::InvalidCommand { .. } => "correct the command",
            ProtocolError::CommandTooLarge { .. } => {
                "send less at once: standard input travels inside the command and grows by a third; put more than \
                 that into a file in the guest, in pieces (`guest-file-write`)"
            }
            ProtocolError::Timeout { .. } => {
                "look whether the VM hangs (`virsh domcontrol`), or give more time"
            }
            ProtocolError::NoChannel { .. } => {
                "QEMU's monitor and the guest agent have a socket each: connect to that one too"
            }
            ProtocolError::LinkLost { .. } => {
                "QEMU ended, or its socket was given to another client; check before repeating the command"
            }
            ProtocolError::AgentSilent => ErrorKind::AgentUnresponsive.hint(),
            ProtocolError::GuestBooting { .. } => {
                "wait for the guest to come up (`atp wait SEL --for agent`), or look at its console"
            }
            ProtocolError::Refused(refusal) => refusal.hint(),
            ProtocolError::ExecFailed { .. } => {
                "check in the guest what the reason names: the program, its path and that it may be executed; the \
                 folders of --cwd and --spool have to be there already"
            }
            ProtocolError::NoShell { .. } => {
                "run programs by themselves, without --shell, --cwd and --spool (on Windows `-- powershell.exe -Command …`); \
                 files go there over the network, or with the agent's own commands (`atp qga SEL -- guest-file-open …`)"
            }
            ProtocolError::OutputTooLarge { channel_lost: true, .. } => {
                "libvirt has given up the channel to this agent: restart qemu-guest-agent in the guest, or reset the \
                 VM; then let the command write to a file in the guest"
            }
            ProtocolError::OutputTooLarge { channel: Channel::Agent, .. } => {
                "let its output go through files in the guest (`--spool`), let it write to a file there, or print less"
            }
            ProtocolError::OutputTooLarge { channel: Channel::Monitor, .. } => "ask for less at once",
            ProtocolError::InvalidReply { .. } => {
                "check what state the VM is in before repeating the command"
            }
            ProtocolError::StillRunning { .. } => {
                "look for the process in the guest, or give more time; what a program leaves running keeps its output open: \
                 send that elsewhere (`>/dev/null 2>&1 &`)"
            }
            ProtocolError::ProcessLost { .. } => {
                "the agent or the guest was restarted, or another client took the result: check in the guest what was \
                 done; if it prints much, let that go through files (`--spool`), for the agent keeps it in memory"
            }
            // Found once a program ran, this is no agent that was never installed.
            ProtocolError::ResultLost { source, .. }
                if matches!(
                    source.transport_kind(),
                    Some(ErrorKind::AgentNotConnected | ErrorKind::AgentGone)
                ) || matches!(**source, ProtocolError::GuestBooting { .. }) =>
            {
                "the agent ended while the program ran: check in the guest what was done. An agent keeps all that a \
                 program prints in memory, and may be killed for it: let much output go through files (`--spool`)"
            }
            ProtocolError::ResultLost { source, .. }
            | ProtocolError::OutputLost { source, .. }
            | ProtocolError::InputIncomplete { source, .. } => source.hint(),
            ProtocolError::ThawedEarly { .. } => {
                "what was copied meanwhile may not be consistent: do less at once"
            }
            ProtocolError::NotThawed { .. } => {
                "they may be frozen still: thaw them (`atp qga SEL -- guest-fsfreeze-thaw`), or reset the VM"
            }
            ProtocolError::File(error) => error.hint(),
            ProtocolError::ImageTooLarge { .. } => "allow more, or lower the resolution in the guest",
            ProtocolError::InvalidImage { .. } => {
                "the VM may have stopped meanwhile, or its hypervisor makes pictures of another kind"
            }
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

impl From<Channel> for Origin {
    fn from(channel: Channel) -> Self {
        match channel {
            Channel::Monitor => Origin::Qemu,
            Channel::Agent => Origin::Guest,
        }
    }
}

impl Failure for ProtocolError {
    fn effect(&self) -> Effect {
        ProtocolError::effect(self)
    }

    fn is_retryable(&self) -> bool {
        ProtocolError::is_retryable(self)
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            ProtocolError::Transport(error) => error.retry_after(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_ends_under_a_program_may_have_run_out_of_memory() {
        let libvirt = |kind| TransportError::Libvirt {
            host: "h1".parse().unwrap(),
            operation: "virDomainQemuAgentCommand",
            kind,
            source: LibvirtError { code: 86, domain: 10, level: 2, message: "m".into() },
        };
        let lost =
            |source| ProtocolError::ResultLost { program: "p".into(), pid: 1, source: Box::new(source) };
        for source in [
            ProtocolError::Transport(libvirt(ErrorKind::AgentNotConnected)),
            ProtocolError::Transport(libvirt(ErrorKind::AgentGone)),
            ProtocolError::GuestBooting {
                cpu_time: Duration::ZERO,
                source: Box::new(libvirt(ErrorKind::AgentNotConnected)),
            },
        ] {
            assert!(lost(source.clone()).hint().contains("--spool"), "{source}");
            assert!(!source.hint().contains("--spool"), "{source}");
        }
        assert!(!lost(ProtocolError::AgentSilent).hint().contains("--spool"));
    }

    #[test]
    fn after_a_start_the_effect_is_never_none() {
        let lost =
            |source| ProtocolError::ResultLost { program: "p".into(), pid: 1, source: Box::new(source) };
        let libvirt = LibvirtError { code: 39, domain: 7, level: 2, message: "m".into() };
        let refused = Refusal::new(Channel::Agent, "guest-exec-status", None, "no", None);
        for (error, effect) in [
            (lost(ProtocolError::Refused(Box::new(refused))), Effect::Unknown),
            (lost(ProtocolError::Timeout { channel: Channel::Agent, sent: false }), Effect::Unknown),
            (
                lost(ProtocolError::OutputTooLarge {
                    channel: Channel::Agent,
                    channel_lost: false,
                    libvirt: Some(libvirt),
                }),
                Effect::Done,
            ),
            (ProtocolError::ProcessLost { program: "p".into(), pid: 1 }, Effect::Unknown),
            (ProtocolError::StillRunning { program: "p".into(), pid: 1, source: None }, Effect::Unknown),
        ] {
            assert_eq!(error.effect(), effect, "{error}");
        }
    }
}
