//! `vm autostart`: whether a VM is started with its host.

use atp_api::AutostartSpec;
use atp_protocol::ProtocolError;
use atp_transport::Effect;
use atp_transport::domain::DomainInfo;

use super::completion::Completion;
use super::facts::VerbFacts;
use super::job::Job;

pub(super) static FACTS: VerbFacts = VerbFacts::change("vm-autostart");

pub(super) async fn perform(job: &Job, domain: &DomainInfo, spec: &AutostartSpec) -> Completion {
    let set = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        if connection.domain_autostart(domain.uuid).await? == spec.on {
            return Ok(Completion::unchanged(None));
        }
        job.attempt.mark_sent().await;
        connection.set_domain_autostart(domain.uuid, spec.on).await?;
        Ok::<_, ProtocolError>(Completion::ok(Effect::Done, None))
    });
    set.await.unwrap_or_else(|error| job.failure(&error))
}
