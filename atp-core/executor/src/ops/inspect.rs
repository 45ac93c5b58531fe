//! Looking at one VM.

use atp_protocol::ProtocolError;
use atp_transport::Effect;
use atp_transport::domain::DomainInfo;

use super::Job;
use crate::completion::Completion;
use crate::outcome::Data;

pub(super) async fn info(job: &Job<'_>, domain: &DomainInfo) -> Completion {
    let uuid = domain.uuid;
    let details = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        Ok::<_, ProtocolError>(connection.domain_details(uuid).await?)
    });
    match details.await {
        Ok(details) => Completion::ok(Effect::None, Data::Details(Box::new(details))),
        Err(error) => job.failure(&error).of_a_look(),
    }
}
