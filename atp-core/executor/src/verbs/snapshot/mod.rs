//! `snapshot create`, `list`, `revert` and `delete`.
//!
//! What can be known is looked at before anything is sent: whether there is a snapshot of the name, what of the VM's definition
//! is in its way, and whether the host's daemon could go back to it. A call that is cut off may have been carried out, to its
//! end or in part.

pub(super) mod create;
pub(super) mod delete;
pub(super) mod list;
pub(super) mod revert;

use atp_api::{OutcomeError, Status};
use atp_protocol::ProtocolError;
use atp_transport::domain::{DomainInfo, Snapshot};
use atp_transport::{Effect, ErrorKind, LibvirtConnection};

use super::completion::Completion;
use super::facts::VerbFacts;
use super::job::Job;

pub(super) static LIST: VerbFacts = VerbFacts::look("snapshot-list");

/// What was written since the snapshot is lost.
pub(super) static REVERT: VerbFacts = VerbFacts { disruptive: true, ..VerbFacts::change("snapshot-revert") };

/// What was kept in the snapshot is lost.
pub(super) static DELETE: VerbFacts = VerbFacts { disruptive: true, ..VerbFacts::change("snapshot-delete") };

/// The snapshot of that name, if the VM has it.
async fn find(
    connection: &LibvirtConnection,
    domain: &DomainInfo,
    name: &str,
) -> Result<Option<Snapshot>, ProtocolError> {
    let snapshots = connection.domain_snapshots(domain.uuid).await?;
    Ok(snapshots.into_iter().find(|snapshot| snapshot.name == name))
}

/// The VM, or the daemon of its host, does not allow that it is `done`, for these reasons. Nothing was sent.
pub(super) fn impossible(job: &Job, domain: &DomainInfo, done: &str, why: &[String]) -> Completion {
    let message =
        format!("host {}: VM {:?} cannot be {done}: {}", job.target.host, domain.name, why.join("; "));
    refused(OutcomeError::new(ErrorKind::SnapshotImpossible, message))
}

/// Nothing was sent, for this reason.
fn refused(error: OutcomeError) -> Completion {
    let hint = error.kind.hint();
    Completion::failed(Status::Failed, Effect::None, error.with_hint(hint))
}

/// That the daemon of a host cannot go back to snapshots in files of their own.
const NO_EXTERNAL: &str = "the host's daemon says nothing of going back to snapshots that are kept in files beside the disk images \
                           (externalSnapshot in its capabilities)";
