//! When work in a guest is continued over another connection.

use std::time::Duration;

use atp_api::Policy;
use atp_protocol::ProtocolError;
use atp_transport::{ConnectionState, ErrorKind, LibvirtConnection};
use tokio::time::{self, Instant};

/// The kinds of failure after which the VM may be reachable over another connection.
const LOST: [ErrorKind; 5] = [
    ErrorKind::ConnectionLost,
    ErrorKind::ConnectionRefused,
    ErrorKind::HostUnreachable,
    ErrorKind::ConnectTimeout,
    ErrorKind::ConnectFailed,
];

/// Whether the connection to the VM's host failed, not the work.
fn is_lost(error: &ProtocolError) -> bool {
    error.transport_kind().is_some_and(|kind| LOST.contains(&kind))
}

/// Decides whether to continue after an error, with growing pauses.
pub(super) struct ReconnectRetry {
    deadline: Instant,
    pause: Duration,
    longest: Duration,
    agent_timeout: Duration,
    lost_at: Option<Instant>,
    /// Whether the host has not been reached since the connection was lost.
    is_down: bool,
}

impl ReconnectRetry {
    pub(super) fn new(policy: &Policy, deadline: Instant) -> Self {
        ReconnectRetry {
            deadline,
            pause: policy.poll_initial,
            longest: policy.poll_max,
            agent_timeout: policy.agent_patience,
            lost_at: None,
            is_down: false,
        }
    }

    /// Records a connection that was lost during the work. `before` is its number of reconnects then: a loss
    /// between two calls is no error of either, and a call on a connection that is being opened again ends as one that had no
    /// time.
    pub(super) fn note_losses(&mut self, connection: &LibvirtConnection, before: u64) {
        // One that takes no new work is up as well.
        self.is_down = !matches!(
            connection.state(),
            ConnectionState::Connected | ConnectionState::Suspect | ConnectionState::Draining
        );
        if self.is_down || connection.reconnects() > before {
            self.note_loss();
        }
    }

    /// Records that the VM's agent has to be reached anew.
    pub(super) fn note_loss(&mut self) {
        self.lost_at = Some(Instant::now());
    }

    /// Returns whether to continue after this error. If so, the pause before that has passed.
    pub(super) async fn after(&mut self, error: &ProtocolError) -> bool {
        let now = Instant::now();
        if is_lost(error) {
            self.note_loss();
            self.is_down = true;
        }
        if !self.may_pass(error) {
            return false;
        }
        if now + self.pause >= self.deadline {
            return false;
        }
        time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(self.longest);
        true
    }

    /// The error to report for work that is given up. However the last attempt to reach its host failed, what happened to
    /// the work is that its connection was lost. What this machine's disk did not do in time has nothing to do with that.
    pub(super) fn given_up(&self, error: ProtocolError) -> ProtocolError {
        if error.kind() == ErrorKind::LocalFileError {
            return error;
        }
        let kind = error.transport_kind();
        let is_unreached = error.is_timeout() || is_lost(&error) || kind == Some(ErrorKind::CircuitOpen);
        match self.is_down && is_unreached && kind != Some(ErrorKind::ConnectionLost) {
            true => error.not_reached_again(),
            false => error,
        }
    }

    /// Whether the error may pass soon, so that what the work left in the guest is still needed.
    pub(super) fn may_pass(&self, error: &ProtocolError) -> bool {
        is_lost(error) || self.waits_for_agent(error)
    }

    /// A daemon that has just started may not have the agent's channel yet.
    fn waits_for_agent(&self, error: &ProtocolError) -> bool {
        error.transport_kind() == Some(ErrorKind::AgentNotConnected)
            && self.lost_at.is_some_and(|lost_at| lost_at.elapsed() < self.agent_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atp_protocol::files::FileError;
    use atp_transport::{LibvirtError, TransportError};

    fn error(kind: ErrorKind) -> ProtocolError {
        let source = LibvirtError { code: 1, domain: 1, level: 2, message: "no".into() };
        TransportError::Libvirt { host: "h1".parse().unwrap(), operation: "x", kind, source }.into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_connection_is_retried_until_the_deadline() {
        let start = Instant::now();
        let mut retry = ReconnectRetry::new(&Policy::default(), start + Duration::from_secs(10));
        let mut tries = 0;
        while retry.after(&error(ErrorKind::ConnectionLost)).await {
            tries += 1;
        }
        assert!((10..20).contains(&tries), "{tries}");
        assert!(start.elapsed() < Duration::from_secs(10));
        assert!(!retry.after(&error(ErrorKind::VmNotFound)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn however_a_daemon_that_went_away_is_missed_the_connection_was_lost() {
        let mut retry = ReconnectRetry::new(&Policy::default(), Instant::now() + Duration::from_secs(9));
        let host = || "h1".parse().unwrap();
        let operation = "virDomainQemuAgentCommand";
        let waited =
            || TransportError::CallTimeout { host: host(), operation, after: Duration::ZERO, sent: false };
        let untouched = retry.given_up(waited().into());
        assert_eq!(untouched.kind(), "call-timeout", "the connection was not lost");
        assert!(retry.after(&error(ErrorKind::ConnectionLost)).await);
        let source = LibvirtError { code: 38, domain: 7, level: 2, message: "no".into() };
        let lost =
            TransportError::ConnectionLost { host: host(), operation, sent: true, source: Some(source) };
        let last = [
            error(ErrorKind::ConnectionRefused),
            error(ErrorKind::ConnectTimeout),
            waited().into(),
            lost.into(),
        ];
        for last in last {
            let source = Box::new(last.clone());
            let started = ProtocolError::ResultLost { program: "p".into(), pid: 1, source };
            for given_up in [last, started].map(|error| retry.given_up(error)) {
                assert_eq!(given_up.kind(), "connection-lost", "{given_up}");
                assert!(!given_up.is_unreachable() && given_up.is_retryable(), "{given_up}");
            }
        }
        let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "late");
        let local =
            FileError::Local { action: "write", path: "copy".into(), source: std::sync::Arc::new(late) };
        let local = ProtocolError::from(local);
        assert!(local.is_timeout());
        assert_eq!(retry.given_up(local).kind(), "local-file-error", "the disk is this machine's");
        let refused = retry.given_up(error(ErrorKind::VmNotFound));
        assert_eq!(refused.kind(), "vm-not-found", "the daemon answered");
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_is_waited_for_only_when_the_daemon_may_not_have_it_yet() {
        let policy = Policy::default();
        let start = Instant::now();
        let mut retry = ReconnectRetry::new(&policy, start + Duration::from_secs(60));
        assert!(!retry.after(&error(ErrorKind::AgentNotConnected)).await);
        assert!(retry.after(&error(ErrorKind::ConnectionRefused)).await);
        while retry.after(&error(ErrorKind::AgentNotConnected)).await {}
        let waited = start.elapsed();
        assert!(waited >= policy.agent_patience && waited < policy.agent_patience * 2, "{waited:?}");

        // No call fails if the connection is lost and reopened before the next call. A guest that seems to boot has no
        // agent either.
        let mut retry = ReconnectRetry::new(&policy, Instant::now() + Duration::from_secs(60));
        let ProtocolError::Transport(source) = error(ErrorKind::AgentNotConnected) else { unreachable!() };
        let booting =
            ProtocolError::GuestBooting { cpu_time: Duration::from_secs(1), source: Box::new(source) };
        assert!(!retry.after(&booting).await);
        retry.note_loss();
        assert!(retry.after(&booting).await);
    }
}
