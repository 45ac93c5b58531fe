//! The long jobs of domains.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{LibvirtConnection, check_monitor, explained};
use crate::admission::calls::{Lane, LaneKind};
use crate::domain::JobProgress;
use crate::error::{ErrorKind, Result};

impl LibvirtConnection {
    /// How far libvirt is with a long job on a domain, such as [saving](crate::domain::Lifecycle::Save) its memory
    /// (`virDomainGetJobInfo`). None if there is no job, or it does not know yet how much there is to do.
    ///
    /// QEMU answers it, and it hangs for as long as QEMU does. It may be asked while a call of the same domain is under way, and takes
    /// no turn from others: few such questions at a time are under way for a host, and the others wait.
    ///
    /// # Errors
    /// [`TransportError::MonitorBusy`](crate::TransportError::MonitorBusy) if libvirt says that a command waits for QEMU, which it
    /// does not of those beside a long job. Kind [`CallRefused`](crate::ErrorKind::CallRefused) if the host's rate limit has no turn
    /// to spare. Nothing was sent then.
    /// Kind [`VmNotRunning`](crate::ErrorKind::VmNotRunning) when it is shut off.
    pub async fn job_progress(&self, uuid: Uuid) -> Result<Option<JobProgress>> {
        let lane = Lane { target: uuid.as_u128(), kind: LaneKind::Job };
        self.call("virDomainGetJobInfo", Some(lane), |link, in_flight| async move {
            let in_flight = Arc::new(in_flight);
            check_monitor(&link, &in_flight, uuid, Some(Duration::ZERO)).await?;
            let answer = link.job_progress(Arc::clone(&in_flight), uuid).await;
            explained(&link, &in_flight, uuid, ErrorKind::OperationInvalid, answer).await
        })
        .await
    }
}
