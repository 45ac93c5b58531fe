//! `snapshot revert`.

use atp_api::{Data, OutcomeError, RevertSpec};
use atp_protocol::ProtocolError;
use atp_transport::domain::DomainInfo;
use atp_transport::{Effect, ErrorKind, LibvirtConnection};

use super::{NO_EXTERNAL, find, impossible, refused};
use crate::verbs::completion::Completion;
use crate::verbs::job::Job;

pub(in crate::verbs) async fn perform(job: &Job, domain: &DomainInfo, spec: &RevertSpec) -> Completion {
    let reverted = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        revert_on(&connection, job, domain, spec).await
    });
    reverted.await.unwrap_or_else(|error| job.failure(&error))
}

async fn revert_on(
    connection: &LibvirtConnection,
    job: &Job,
    domain: &DomainInfo,
    spec: &RevertSpec,
) -> Result<Completion, ProtocolError> {
    let Some(snapshot) = find(connection, domain, &spec.name).await? else {
        let message =
            format!("host {}: VM {:?} has no snapshot {:?}", job.target.host, domain.name, spec.name);
        return Ok(refused(OutcomeError::new(ErrorKind::SnapshotNotFound, message)));
    };
    if snapshot.external && !connection.reverts_external_snapshots().await? {
        return Ok(impossible(job, domain, "reverted", &[NO_EXTERNAL.to_owned()]));
    }
    job.attempt.mark_sent().await;
    connection.revert_domain(domain.uuid, &spec.name, spec.then).await?;
    // It was reverted, whether or not it can be looked at.
    let now = connection.domain_info(domain.uuid).await.ok();
    Ok(Completion::ok(Effect::Done, now.map(|now| Data::Lifecycle { state: now.state })))
}
