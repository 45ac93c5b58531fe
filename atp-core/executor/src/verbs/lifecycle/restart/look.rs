//! What a look at a VM tells of a restart, when its event may have been missed.

use std::time::Duration;

use atp_api::OutcomeError;
use atp_protocol::{LibvirtCarrier, ProtocolError, RefusalKind, guest};
use atp_transport::ErrorKind;
use atp_transport::domain::{DomainInfo, Lifecycle};
use tokio::time::Instant;

use crate::verbs::job::Job;
use crate::verbs::wait;

/// What a look at a VM tells, when the event of its restart may have been missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Restarted,
    Stopped,
    /// It has not restarted yet.
    NotYet,
    /// It is not known, and why. Another look may tell.
    Unclear(String),
    /// It is not known, and why. No other look tells more.
    CannotTell(String),
}

/// Looks at the VM, which had this id before it was asked to restart.
pub(super) async fn look(
    job: &Job,
    domain: &DomainInfo,
    action: Lifecycle,
    id: Option<u32>,
    asked_at: Instant,
) -> Seen {
    let deadline = job.deadline().min(Instant::now() + job.policy.agent_patience);
    let options = job.options_by(deadline);
    let looked = job.manager.execute_on_host_with(job.host(), options, |connection| async move {
        let now = connection.domain_info(domain.uuid).await?;
        if let Some(seen) = by_state(&now, id, action) {
            return Ok(seen);
        }
        let before = asked_at.elapsed();
        let uptime = guest::uptime(&LibvirtCarrier::new(&connection, domain.uuid), deadline).await?;
        Ok::<_, ProtocolError>(by_uptime(uptime, before, asked_at.elapsed()))
    });
    looked.await.unwrap_or_else(|error| by_error(&error))
}

/// What state and id tell of a VM that had this id before it was asked to restart.
fn by_state(now: &DomainInfo, id: Option<u32>, action: Lifecycle) -> Option<Seen> {
    if !now.state.is_active() {
        return Some(Seen::Stopped);
    }
    // Another id is that of another process. And a reset is done when QEMU has answered: it does not wait for the guest.
    let is_another = id.is_some() && now.id != id;
    (is_another || action == Lifecycle::Reset).then_some(Seen::Restarted)
}

/// What the guest's uptime tells if it was read between `before` and `after`, both counted from the request.
fn by_uptime(uptime: Duration, before: Duration, after: Duration) -> Seen {
    if uptime < before {
        Seen::Restarted
    } else if uptime > after {
        Seen::NotYet
    } else {
        Seen::Unclear("its guest was started about when it was asked to restart".to_owned())
    }
}

/// What a failure to look tells.
fn by_error(error: &ProtocolError) -> Seen {
    if error.transport_kind() == Some(ErrorKind::VmNotFound) {
        return Seen::Stopped;
    }
    let is_refused = error.refusal().is_some_and(|refusal| refusal.kind != RefusalKind::GuestFrozen);
    if is_refused || !(wait::may_pass(error) || error.refusal().is_some()) {
        Seen::CannotTell(OutcomeError::in_full(error))
    } else {
        Seen::Unclear(OutcomeError::in_full(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atp_protocol::{Peer, Refusal};
    use atp_transport::domain::DomainState;
    use atp_transport::{LibvirtError, TransportError};
    use uuid::Uuid;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_look_tells_by_state_id_and_uptime() {
        let state = |state, id| DomainInfo { id, ..DomainInfo::new("vm1", Uuid::from_u128(1), state) };
        let running = state(DomainState::Running, Some(4));
        assert_eq!(by_state(&running, Some(4), Lifecycle::Reboot), None);
        assert_eq!(by_state(&running, None, Lifecycle::Reboot), None);
        assert_eq!(by_state(&running, Some(4), Lifecycle::Reset), Some(Seen::Restarted));
        assert_eq!(by_state(&running, Some(3), Lifecycle::Reboot), Some(Seen::Restarted));
        let off = state(DomainState::ShutOff, None);
        assert_eq!(by_state(&off, Some(4), Lifecycle::Reset), Some(Seen::Stopped));

        let by_uptime = |uptime: u32| by_uptime(SECOND * uptime, SECOND * 10, SECOND * 12);
        assert_eq!(by_uptime(9), Seen::Restarted);
        assert!(matches!(by_uptime(11), Seen::Unclear(_)));
        assert_eq!(by_uptime(13), Seen::NotYet);
    }

    #[test]
    fn a_failed_look_is_repeated_if_another_may_tell() {
        let libvirt = |kind| {
            let source = LibvirtError { code: 86, domain: 10, level: 2, message: "no".into() };
            ProtocolError::from(TransportError::Libvirt {
                host: "h1".parse().unwrap(),
                operation: "x",
                kind,
                source,
            })
        };
        let refused = |desc: &str| {
            let refusal = Refusal::new(Peer::Agent, "guest-file-open", None, desc, None);
            ProtocolError::Refused(Box::new(refusal))
        };
        for kind in [ErrorKind::AgentNotConnected, ErrorKind::AgentUnresponsive, ErrorKind::ConnectionLost] {
            assert!(matches!(by_error(&libvirt(kind)), Seen::Unclear(_)), "{kind}");
        }
        assert_eq!(by_error(&libvirt(ErrorKind::VmNotFound)), Seen::Stopped);
        assert!(matches!(by_error(&libvirt(ErrorKind::AgentNotConfigured)), Seen::CannotTell(_)));
        for desc in [
            "Command guest-file-open has been disabled: the command is not allowed",
            "failed to open file '/proc/uptime' (mode: 'r'): No such file or directory",
        ] {
            assert!(matches!(by_error(&refused(desc)), Seen::CannotTell(_)), "{desc}");
        }
        let frozen = "Command guest-file-open has been disabled: the agent is in frozen state";
        assert!(matches!(by_error(&refused(frozen)), Seen::Unclear(_)));
    }
}
