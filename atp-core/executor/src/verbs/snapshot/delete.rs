//! `snapshot delete`.

use atp_api::SnapshotDeleteSpec;
use atp_protocol::ProtocolError;
use atp_transport::Effect;
use atp_transport::domain::DomainInfo;

use super::find;
use crate::verbs::completion::Completion;
use crate::verbs::job::Job;

pub(in crate::verbs) async fn perform(
    job: &Job,
    domain: &DomainInfo,
    spec: &SnapshotDeleteSpec,
) -> Completion {
    let deleted = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        if find(&connection, domain, &spec.name).await?.is_none() {
            return Ok(Completion::unchanged(None));
        }
        job.attempt.mark_sent().await;
        connection.delete_domain_snapshot(domain.uuid, &spec.name, spec.children).await?;
        Ok::<_, ProtocolError>(Completion::ok(Effect::Done, None))
    });
    deleted.await.unwrap_or_else(|error| job.failure(&error))
}
