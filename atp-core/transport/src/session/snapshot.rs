//! Snapshots of domains.

use std::sync::Arc;

use uuid::Uuid;

use super::{LibvirtConnection, check_monitor, explained, monitor_lane};
use crate::domain::{AfterRevert, Snapshot, reverts_external_snapshots, snapshot_xml};
use crate::error::{ErrorKind, Result};

impl LibvirtConnection {
    /// The snapshots of a domain, in no particular order (`virDomainListAllSnapshots`, `virDomainSnapshotGetXMLDesc`,
    /// `virDomainSnapshotCurrent`). The daemon answers from its memory.
    ///
    /// # Errors
    /// Kind [`VmNotFound`](crate::ErrorKind::VmNotFound) when there is no such domain.
    pub async fn domain_snapshots(&self, uuid: Uuid) -> Result<Vec<Snapshot>> {
        self.call("virDomainListAllSnapshots", None, async move |link, in_flight| {
            link.snapshots(in_flight, uuid).await
        })
        .await
    }

    /// Whether the daemon can go back to snapshots with files of their own, as it says in its capabilities
    /// (`virConnectGetCapabilities`).
    pub async fn reverts_external_snapshots(&self) -> Result<bool> {
        let capabilities = self.capabilities().await?;
        Ok(reverts_external_snapshots(&capabilities))
    }

    /// Makes a snapshot of a domain (`virDomainSnapshotCreateXML`): of all its disks within their images, and of its memory if
    /// it runs. With `disk_only` those of one that runs are left as they are, and new files take what is written from then
    /// on; with `quiesce` the guest's agent freezes its file systems meanwhile. It takes as long as writing the memory does, and
    /// QEMU answers nothing else.
    ///
    /// # Errors
    /// [`TransportError::MonitorBusy`](crate::TransportError::MonitorBusy) if another command has occupied the domain for long;
    /// nothing was sent then.
    pub async fn create_domain_snapshot(
        &self,
        uuid: Uuid,
        name: &str,
        description: Option<&str>,
        disk_only: bool,
        quiesce: bool,
    ) -> Result<()> {
        let xml = snapshot_xml(name, description);
        let lane = monitor_lane(uuid);
        let busy_after = self.busy_after(lane);
        self.call("virDomainSnapshotCreateXML", Some(lane), |link, in_flight| async move {
            let in_flight = Arc::new(in_flight);
            check_monitor(&link, &in_flight, uuid, busy_after).await?;
            let answer = link.create_snapshot(Arc::clone(&in_flight), uuid, xml, disk_only, quiesce).await;
            explained(&link, &in_flight, uuid, ErrorKind::OperationInvalid, answer).await
        })
        .await
    }

    /// Takes a domain back to a snapshot (`virDomainRevertToSnapshot`). What was written to its disks and its memory since then
    /// is lost.
    ///
    /// # Errors
    /// Kind [`SnapshotNotFound`](crate::ErrorKind::SnapshotNotFound) when there is no such snapshot.
    /// [`TransportError::MonitorBusy`](crate::TransportError::MonitorBusy) if another command has occupied the domain for long;
    /// nothing was sent then.
    pub async fn revert_domain(&self, uuid: Uuid, snapshot: &str, then: AfterRevert) -> Result<()> {
        let (name, lane) = (snapshot.to_owned(), monitor_lane(uuid));
        let busy_after = self.busy_after(lane);
        self.call("virDomainRevertToSnapshot", Some(lane), |link, in_flight| async move {
            let in_flight = Arc::new(in_flight);
            check_monitor(&link, &in_flight, uuid, busy_after).await?;
            link.revert_to_snapshot(in_flight, uuid, name, then).await
        })
        .await
    }

    /// Removes a snapshot of a domain, with those that were made after it if asked (`virDomainSnapshotDelete`). The domain stays
    /// as it is.
    ///
    /// # Errors
    /// As of [`revert_domain`](Self::revert_domain).
    pub async fn delete_domain_snapshot(&self, uuid: Uuid, snapshot: &str, children: bool) -> Result<()> {
        let (name, lane) = (snapshot.to_owned(), monitor_lane(uuid));
        let busy_after = self.busy_after(lane);
        self.call("virDomainSnapshotDelete", Some(lane), |link, in_flight| async move {
            let in_flight = Arc::new(in_flight);
            check_monitor(&link, &in_flight, uuid, busy_after).await?;
            link.delete_snapshot(in_flight, uuid, name, children).await
        })
        .await
    }
}
