//! `vm list`: what the host's listing says of a VM. Nothing more is asked.

use atp_api::Data;
use atp_transport::Effect;
use atp_transport::domain::DomainInfo;

use super::completion::Completion;
use super::facts::VerbFacts;
use super::job::Job;

pub(super) static FACTS: VerbFacts = VerbFacts { full_listing: true, ..VerbFacts::look("vm-list") };

pub(super) async fn perform(_: &Job, domain: &DomainInfo) -> Completion {
    Completion::ok(Effect::None, Data::Domain(domain.clone()))
}
