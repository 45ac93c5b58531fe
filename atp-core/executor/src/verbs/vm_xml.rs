//! `vm xml`: a VM's definition.

use atp_api::{Data, XmlReport, XmlSpec};
use atp_protocol::ProtocolError;
use atp_transport::Effect;
use atp_transport::domain::DomainInfo;

use super::completion::Completion;
use super::facts::VerbFacts;
use super::job::Job;

pub(super) static FACTS: VerbFacts = VerbFacts::look("vm-xml");

pub(super) async fn perform(job: &Job, domain: &DomainInfo, spec: &XmlSpec) -> Completion {
    let read = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        Ok::<_, ProtocolError>(connection.domain_xml(domain.uuid, spec.inactive).await?)
    });
    match read.await {
        Ok(xml) => Completion::ok(Effect::None, Data::Xml(XmlReport { xml })),
        Err(error) => job.failure(&error),
    }
}
