//! The effect of a failure, and whether a retry can help.

use std::time::Duration;

use atp_transport::{Effect, Failure};

use super::hint::is_exhausted;
use super::{FileError, ProtocolError};
use crate::refusal::RefusalKind;

impl ProtocolError {
    /// Whether the command may have taken effect. An error reply means that it did not; an unreadable reply leaves it
    /// unknown; after a process was started the answer is never [`Effect::None`].
    pub fn effect(&self) -> Effect {
        match self {
            ProtocolError::Transport(error) => error.effect(),
            ProtocolError::InvalidCommand { .. }
            | ProtocolError::CommandTooLarge { .. }
            | ProtocolError::Timeout { sent: false, .. }
            | ProtocolError::NoChannel { .. }
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
            | ProtocolError::InvalidReply { .. }
            | ProtocolError::StillRunning { .. }
            | ProtocolError::ProcessLost { .. } => Effect::Unknown,
            #[cfg(feature = "sockets")]
            ProtocolError::LinkLost { sent, .. } => {
                if *sent {
                    Effect::Unknown
                } else {
                    Effect::None
                }
            }
            ProtocolError::VmSilent { source } | ProtocolError::NotReachedAgain { source } => source.effect(),
            ProtocolError::ResultLost { source, .. } => match source.effect() {
                // The agent sends output only when the process has ended.
                Effect::Done => Effect::Done,
                Effect::None | Effect::Unknown => Effect::Unknown,
            },
            ProtocolError::InputIncomplete { source, .. } => match source.effect() {
                Effect::Unknown => Effect::Unknown,
                // The parts before it were sent.
                Effect::None | Effect::Done => Effect::Done,
            },
        }
    }

    /// Whether the same command may succeed later. Whether repeating it is safe is another question: see
    /// [`effect`](Self::effect).
    pub fn is_retryable(&self) -> bool {
        match self {
            ProtocolError::Transport(error) => error.is_retryable(),
            ProtocolError::Timeout { .. }
            | ProtocolError::AgentSilent
            | ProtocolError::VmSilent { .. }
            | ProtocolError::NotReachedAgain { .. }
            | ProtocolError::GuestBooting { .. } => true,
            #[cfg(feature = "sockets")]
            ProtocolError::LinkLost { .. } => true,
            ProtocolError::Refused(refusal) => refusal.kind == RefusalKind::GuestFrozen,
            ProtocolError::ExecFailed { reason, .. } => is_exhausted(reason),
            ProtocolError::File(error) => error.is_retryable(),
            // Freezing again does not help against the first freeze.
            ProtocolError::NotThawed { .. } => false,
            _ => self.cause().is_some_and(ProtocolError::is_retryable),
        }
    }

    /// Whether one of our deadlines ended the work.
    pub fn is_timeout(&self) -> bool {
        match self {
            ProtocolError::Transport(error) => error.is_timeout(),
            ProtocolError::Timeout { .. }
            | ProtocolError::VmSilent { .. }
            | ProtocolError::StillRunning { .. } => true,
            // A disk has its own: one that a network is in between.
            ProtocolError::File(FileError::Local { source, .. }) => {
                source.kind() == std::io::ErrorKind::TimedOut && source.raw_os_error().is_none()
            }
            _ => self.cause().is_some_and(ProtocolError::is_timeout),
        }
    }

    /// Whether the host could not be reached at all.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, ProtocolError::Transport(error) if error.is_unreachable())
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
    use atp_transport::LibvirtError;

    use super::*;
    use crate::peer::Peer;
    use crate::refusal::Refusal;

    #[test]
    fn after_a_start_the_effect_is_never_none() {
        let lost =
            |source| ProtocolError::ResultLost { program: "p".into(), pid: 1, source: Box::new(source) };
        let libvirt = LibvirtError { code: 39, domain: 7, level: 2, message: "m".into() };
        let refused = Refusal::new(Peer::Agent, "guest-exec-status", None, "no", None);
        for (error, effect) in [
            (lost(ProtocolError::Refused(Box::new(refused))), Effect::Unknown),
            (lost(ProtocolError::Timeout { peer: Peer::Agent, sent: false }), Effect::Unknown),
            (
                lost(ProtocolError::OutputTooLarge {
                    peer: Peer::Agent,
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
