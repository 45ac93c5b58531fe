//! `vm autostart`: whether a VM is started with its host.

use atp_api::{AutostartSpec, OutcomeError, Status};
use atp_protocol::ProtocolError;
use atp_transport::domain::DomainInfo;
use atp_transport::{Effect, ErrorKind};

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
        // libvirt reports success even if it could not write the link that this is, as on a full disk.
        if connection.domain_autostart(domain.uuid).await.is_ok_and(|is_on| is_on != spec.on) {
            return Ok(not_set(job, domain));
        }
        Ok::<_, ProtocolError>(Completion::ok(Effect::Done, None))
    });
    set.await.unwrap_or_else(|error| job.failure(&error))
}

fn not_set(job: &Job, domain: &DomainInfo) -> Completion {
    let host = &job.target.host;
    let message =
        format!("host {host}: VM {:?}: libvirt reports that it was set, and it was not", domain.name);
    let kind = ErrorKind::LibvirtError;
    Completion::failed(Status::Failed, Effect::None, OutcomeError::new(kind, message).with_hint(kind.hint()))
}
