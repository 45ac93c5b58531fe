//! What a lease of a libvirt connection offers: the operations of ATP, each with the policy that it needs.
//!
//! A method waits for its turn (lanes, limits), has the link's engine make the request, and ends by the lease's deadline, or
//! after `call_timeout` where it has none, with [`TransportError::CallTimeout`](crate::TransportError). Dropping the future of
//! one leaves nothing behind, but a request that was sent goes on and may have its effect.

mod channel;
mod domain;
mod host;
mod job;
mod screenshot;
mod snapshot;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;

use crate::admission::calls::{InFlight, Lane, LaneKind};
use crate::connection::connector::CallFailure;
use crate::domain::DomainInfo;
use crate::engine::connector::LibvirtConnector;
use crate::engine::{Answer, LibvirtLink};
use crate::error::ErrorKind;
use crate::pool::PooledConnection;

pub use channel::{ChannelError, ChannelOptions, DomainChannel};
pub use watch::{DomainEvents, WatchItem, WatchOptions};

/// A lease of a libvirt connection: what closures run by a [`TransportManager`](crate::TransportManager) get.
pub type LibvirtConnection = PooledConnection<LibvirtConnector>;

fn monitor_lane(uuid: Uuid) -> Lane {
    Lane { target: uuid.as_u128(), kind: LaneKind::Monitor }
}

fn start_lane(uuid: Uuid) -> Lane {
    Lane { target: uuid.as_u128(), kind: LaneKind::Start }
}

fn agent_lane(uuid: Uuid) -> Lane {
    Lane { target: uuid.as_u128(), kind: LaneKind::Agent }
}

impl LibvirtConnection {
    /// After how long an occupied monitor is reason not to send; none for a VM that has answered lately.
    fn busy_after(&self, lane: Lane) -> Option<Duration> {
        (!self.is_proven(lane)).then(|| self.config().calls.monitor_busy_after)
    }
}

/// Fails if a domain's monitor has been occupied for longer than `busy_after`. A driver that cannot tell, or a domain
/// that is not running, is left to the request itself.
async fn check_monitor(
    link: &LibvirtLink,
    in_flight: &Arc<InFlight>,
    uuid: Uuid,
    busy_after: Option<Duration>,
) -> Result<(), CallFailure> {
    let Some(limit) = busy_after else { return Ok(()) };
    in_flight.set_looks(true);
    let occupied = link.monitor_occupied(Arc::clone(in_flight), uuid).await;
    in_flight.set_looks(false);
    match occupied {
        Ok(Some(occupied_for)) if occupied_for > limit => Err(CallFailure::Busy { occupied_for }),
        Ok(_) | Err(CallFailure::Refused { .. }) => Ok(()),
        // What was sent is the look: the command itself was not.
        Err(CallFailure::Lost { source, .. }) => Err(CallFailure::Lost { sent: false, source }),
        Err(failure) => Err(failure),
    }
}

/// How long a domain is asked for its state after a refusal.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// What the refusal of a request that the state of a domain does not allow means: that number alone does not tell a domain
/// that is not running from one that runs, and the message may be in any language. So the daemon is asked for the state.
async fn explained<T>(
    link: &LibvirtLink,
    in_flight: &Arc<InFlight>,
    uuid: Uuid,
    while_running: ErrorKind,
    answer: Answer<T>,
) -> Answer<T> {
    let Err(CallFailure::Refused { kind: ErrorKind::OperationInvalid, source }) = answer else {
        return answer;
    };
    let look = link.domain_info(Arc::clone(in_flight), uuid);
    // If this cannot be found out, the refusal is still the one to report.
    let kind = match timeout(LOOK_TIMEOUT, look).await {
        Ok(Ok(DomainInfo { id: None, .. })) => ErrorKind::VmNotRunning,
        Ok(Ok(_)) => while_running,
        Ok(Err(_)) | Err(_) => ErrorKind::OperationInvalid,
    };
    Err(CallFailure::Refused { kind, source })
}
