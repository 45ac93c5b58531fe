//! Screenshots.

use std::sync::Arc;

use uuid::Uuid;

use super::{LibvirtConnection, check_monitor, explained, monitor_lane};
use crate::domain::RawImage;
use crate::error::{ErrorKind, Result};

impl LibvirtConnection {
    /// A picture of a domain's screen (`virDomainScreenshot`), or its first `max_bytes` bytes; `screen` counts
    /// the domain's screens from 0.
    ///
    /// QEMU draws it, so this waits in line and refuses as [`monitor_command`](Self::monitor_command) does.
    ///
    /// # Errors
    /// Kinds [`VmNotRunning`](crate::ErrorKind::VmNotRunning), [`NoScreen`](crate::ErrorKind::NoScreen), and
    /// [`NotSupported`](crate::ErrorKind::NotSupported) or [`LibvirtError`](crate::ErrorKind::LibvirtError) for a
    /// domain without such a screen.
    pub async fn screenshot(&self, uuid: Uuid, screen: u32, max_bytes: usize) -> Result<RawImage> {
        let lane = monitor_lane(uuid);
        let (busy_after, deadline) = (self.busy_after(lane), self.call_deadline());
        self.call("virDomainScreenshot", Some(lane), |link, in_flight| async move {
            let in_flight = Arc::new(in_flight);
            check_monitor(&link, &in_flight, uuid, busy_after).await?;
            let answer = link.screenshot(Arc::clone(&in_flight), uuid, screen, max_bytes, deadline).await;
            // One that runs and whose state does not allow this has no screen.
            explained(&link, &in_flight, uuid, ErrorKind::NoScreen, answer).await
        })
        .await
    }
}
