//! Snapshots of domains, and the memory that a host keeps of one (managed save). Errors are those of
//! [`Connection::call`]; of a snapshot that is not there, code
//! [`NO_DOMAIN_SNAPSHOT`](crate::numbers::code::NO_DOMAIN_SNAPSHOT).

use crate::connection::Connection;
use crate::error::CallError;
use crate::message::RemoteDomain;
use crate::numbers::procedure;
use crate::xdr::{FromXdr, Reader, Result, ToXdr, Writer};

/// The most snapshots in a list.
pub const MAX_SNAPSHOTS: usize = 16_384;

/// Flags for a new snapshot (`virDomainSnapshotCreateFlags`). None: all disks, and the memory of a domain that runs.
pub mod create {
    /// Without the memory of a domain that runs: new files take what is written from now on.
    pub const DISK_ONLY: u32 = 16;
    /// Has the guest's agent freeze its file systems meanwhile. Only with [`DISK_ONLY`].
    pub const QUIESCE: u32 = 64;
    /// All disks or none.
    pub const ATOMIC: u32 = 128;
}

/// Flags for going back to a snapshot (`virDomainSnapshotRevertFlags`). None: to the state that the domain was in.
pub mod revert {
    /// The domain runs afterwards.
    pub const RUNNING: u32 = 1;
    /// The domain is paused afterwards.
    pub const PAUSED: u32 = 2;
}

/// Flags for removing a snapshot (`virDomainSnapshotDeleteFlags`). None: its children get its parent.
pub mod delete {
    /// With all snapshots that were made after it.
    pub const CHILDREN: u32 = 1;
}

/// A snapshot as messages name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteSnapshot {
    /// Its name, unique for its domain.
    pub name: String,
    /// Its domain.
    pub domain: RemoteDomain,
}

impl ToXdr for RemoteSnapshot {
    fn write(&self, to: &mut Writer) -> Result<()> {
        (&self.name, &self.domain).write(to)
    }
}

impl FromXdr for RemoteSnapshot {
    const MIN_SIZE: usize = 4 + RemoteDomain::MIN_SIZE;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let (name, domain) = FromXdr::read(from)?;
        Ok(RemoteSnapshot { name, domain })
    }
}

struct Listed(Vec<RemoteSnapshot>);

impl FromXdr for Listed {
    const MIN_SIZE: usize = 8;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let snapshots = from.list("a list of snapshots", MAX_SNAPSHOTS)?;
        let _count = i32::read(from)?;
        Ok(Listed(snapshots))
    }
}

type Called<T> = std::result::Result<T, CallError>;

impl Connection {
    /// All snapshots of a domain, in no particular order (`virDomainListAllSnapshots`).
    pub async fn snapshots(&self, domain: &RemoteDomain) -> Called<Vec<RemoteSnapshot>> {
        let Listed(snapshots) =
            self.call(procedure::DOMAIN_LIST_ALL_SNAPSHOTS, &(domain, 1i32, 0u32)).await?;
        Ok(snapshots)
    }

    /// The snapshot that a domain was last at (`virDomainSnapshotCurrent`).
    pub async fn current_snapshot(&self, domain: &RemoteDomain) -> Called<RemoteSnapshot> {
        self.call(procedure::DOMAIN_SNAPSHOT_CURRENT, &(domain, 0u32)).await
    }

    /// What a snapshot is, XML (`virDomainSnapshotGetXMLDesc`).
    pub async fn snapshot_xml(&self, snapshot: &RemoteSnapshot) -> Called<String> {
        self.call(procedure::DOMAIN_SNAPSHOT_GET_XML_DESC, &(snapshot, 0u32)).await
    }

    /// Makes a snapshot as XML describes it, by [flags](create) (`virDomainSnapshotCreateXML`).
    pub async fn create_snapshot(
        &self,
        domain: &RemoteDomain,
        xml: &str,
        flags: u32,
    ) -> Called<RemoteSnapshot> {
        self.call(procedure::DOMAIN_SNAPSHOT_CREATE_XML, &(domain, xml, flags)).await
    }

    /// Takes a domain back to a snapshot, by [flags](revert) (`virDomainRevertToSnapshot`).
    pub async fn revert_to_snapshot(&self, snapshot: &RemoteSnapshot, flags: u32) -> Called<()> {
        self.call(procedure::DOMAIN_REVERT_TO_SNAPSHOT, &(snapshot, flags)).await
    }

    /// Removes a snapshot, by [flags](delete) (`virDomainSnapshotDelete`).
    pub async fn delete_snapshot(&self, snapshot: &RemoteSnapshot, flags: u32) -> Called<()> {
        self.call(procedure::DOMAIN_SNAPSHOT_DELETE, &(snapshot, flags)).await
    }

    /// Writes a domain's memory to a file of its host, and ends the domain (`virDomainManagedSave`). Its next start goes on
    /// from there.
    pub async fn save_domain(&self, domain: &RemoteDomain) -> Called<()> {
        self.call(procedure::DOMAIN_MANAGED_SAVE, &(domain, 0u32)).await
    }

    /// Whether a host keeps a domain's memory in a file (`virDomainHasManagedSaveImage`).
    pub async fn domain_is_saved(&self, domain: &RemoteDomain) -> Called<bool> {
        let answer: i32 = self.call(procedure::DOMAIN_HAS_MANAGED_SAVE_IMAGE, &(domain, 0u32)).await?;
        Ok(answer > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xdr::{decode, encode};

    #[test]
    fn a_snapshot_is_a_name_and_a_domain() {
        let domain = RemoteDomain { name: "vm".into(), ..RemoteDomain::of(Default::default()) };
        let snapshot = RemoteSnapshot { name: "clean".into(), domain };
        let bytes = encode(&snapshot).unwrap();
        // A length, 5 bytes and 3 of padding; a length, 2 bytes and 2 of padding; the UUID; the id.
        assert_eq!(bytes.len(), 12 + 8 + 16 + 4);
        assert_eq!(decode(&bytes), Ok(snapshot));
    }

    #[test]
    fn a_list_that_is_longer_than_any_is_refused_before_it_is_read() {
        let mut bytes = encode(&(MAX_SNAPSHOTS as u32 + 1)).unwrap();
        bytes.resize(64, 0);
        assert!(decode::<Listed>(&bytes).is_err());
    }
}
