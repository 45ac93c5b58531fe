//! How the work on one target ended: the part of its outcome that the work decides.

use std::time::Duration;

use atp_api::{Data, Outcome, OutcomeError, Status, millis};
use atp_protocol::ProtocolError;
use atp_transport::{Effect, ErrorKind, HostId};
use tokio::time::Instant;

use crate::target::Target;

/// The part of an [`Outcome`] that the work on a target decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// How it went.
    pub status: Status,
    /// Whether anything happened to the VM.
    pub effect: Effect,
    /// What it yields.
    pub data: Option<Data>,
    /// What went wrong.
    pub error: Option<OutcomeError>,
    /// The other host that the VM was found on; see [`Outcome::found_on`].
    pub found_on: Option<HostId>,
    /// The host on which the work ended. It may only have seen that the VM is on another one.
    pub ended_on: Option<HostId>,
}

impl Completion {
    /// Success.
    pub fn ok(effect: Effect, data: impl Into<Option<Data>>) -> Self {
        let data = data.into();
        Completion { status: Status::Ok, effect, data, error: None, found_on: None, ended_on: None }
    }

    /// The requested state was reached already.
    pub fn unchanged(data: impl Into<Option<Data>>) -> Self {
        Completion { status: Status::Unchanged, ..Completion::ok(Effect::None, data) }
    }

    /// Anything else than success.
    pub fn failed(status: Status, effect: Effect, error: OutcomeError) -> Self {
        Completion { status, effect, data: None, error: Some(error), found_on: None, ended_on: None }
    }

    /// Makes the completion of work that failed with an error of the layers below and had to end by `deadline`. `is_sent`
    /// is whether the work had marked itself as sent; see [`effect_of`].
    ///
    /// A timeout before the deadline, such as that of a single call, is a failure like others. A process that still ran is
    /// a timeout of the target, though reported shortly before its deadline. So is an agent that was silent until then:
    /// whether libvirt's timer or ours ended the wait for it is chance.
    pub(crate) fn from_error(error: &ProtocolError, deadline: Instant, is_sent: bool) -> Self {
        let is_silent = error.transport_kind() == Some(ErrorKind::AgentUnresponsive);
        let out_of_time = match error {
            ProtocolError::StillRunning { .. } => true,
            // An agent that does not answer for a process is asked again until then.
            ProtocolError::ResultLost { .. } if is_silent => true,
            _ => Instant::now() >= deadline,
        };
        let is_silence = error.is_timeout() || is_silent;
        let status = if error.is_unreachable() {
            Status::Unreachable
        } else if is_silence && out_of_time {
            Status::Timeout
        } else {
            Status::Failed
        };
        Completion::failed(status, effect_of(error, is_sent), error.into())
    }

    /// Whether the target may be tried again: nothing happened to it, and a retry may help.
    pub(crate) fn may_repeat(&self) -> bool {
        matches!(self.status, Status::Failed | Status::Unreachable)
            && self.effect == Effect::None
            && self.error.as_ref().is_some_and(|error| error.retryable)
    }

    /// The outcome of `target`.
    pub(crate) fn into_outcome(
        self,
        target: Target,
        op: &'static str,
        attempts: u32,
        took: Duration,
    ) -> Outcome {
        let uuid = target.uuid();
        Outcome {
            host: Some(target.host),
            vm: target.domain.map(|domain| domain.name),
            uuid,
            found_on: self.found_on,
            from_earlier_run: false,
            op: op.into(),
            status: self.status,
            effect: self.effect,
            attempts,
            duration_ms: millis(took),
            data: self.data,
            error: self.error,
        }
    }
}

/// The effect on a target of work that failed. An error says whether its call may have been carried out, and not what the
/// call was for: before the work marks itself as sent it only looks, and a look without an answer changed nothing.
pub(crate) fn effect_of(error: &ProtocolError, is_sent: bool) -> Effect {
    if is_sent { error.effect() } else { Effect::None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atp_transport::{LibvirtError, TransportError};

    #[tokio::test(start_paused = true)]
    async fn only_the_targets_own_time_makes_a_timeout() {
        let running = ProtocolError::StillRunning { program: "p".into(), pid: 1, source: None };
        let unanswered = ProtocolError::Timeout { peer: atp_protocol::Peer::Monitor, sent: true };
        let deadline = Instant::now() + Duration::from_millis(3);
        assert_eq!(Completion::from_error(&running, deadline, true).status, Status::Timeout);
        assert_eq!(Completion::from_error(&unanswered, deadline, true).status, Status::Failed);
        let source = LibvirtError { code: 86, domain: 10, level: 2, message: "not available for now".into() };
        let (host, operation) = ("h1".parse().unwrap(), "virDomainQemuAgentCommand");
        let kind = ErrorKind::AgentUnresponsive;
        let silent = TransportError::Libvirt { host, operation, kind, source }.into();
        assert_eq!(Completion::from_error(&silent, deadline, true).status, Status::Failed);
        tokio::time::advance(Duration::from_millis(3)).await;
        for late in [unanswered, silent] {
            let late = Completion::from_error(&late, deadline, true);
            assert_eq!((late.status, late.effect), (Status::Timeout, Effect::Unknown));
        }
    }

    #[test]
    fn an_effect_is_what_both_the_error_and_the_mark_allow() {
        let peer = atp_protocol::Peer::Agent;
        let deadline = Instant::now() + Duration::from_secs(60);
        let lost = |sent| TransportError::ConnectionLost {
            host: "h1".parse().unwrap(),
            operation: "virDomainGetInfo",
            sent,
            source: None,
        };
        for (error, once_sent) in [
            (lost(true).into(), Effect::Unknown),
            (lost(false).into(), Effect::None),
            (ProtocolError::Timeout { peer, sent: true }, Effect::Unknown),
            (ProtocolError::AgentSilent, Effect::None),
            (ProtocolError::OutputTooLarge { peer, channel_lost: false, libvirt: None }, Effect::Done),
        ] {
            let [looked, sent] =
                [false, true].map(|is_sent| Completion::from_error(&error, deadline, is_sent));
            assert_eq!((looked.effect, sent.effect), (Effect::None, once_sent), "{error}");
            // An error that may pass is retried unless something may have happened.
            assert_eq!(looked.may_repeat(), error.is_retryable(), "{error}");
            assert_eq!(sent.may_repeat(), error.is_retryable() && once_sent == Effect::None, "{error}");
        }
    }
}
