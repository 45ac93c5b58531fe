//! `vm list`: what the host's listing says of a VM. Nothing more is asked.

use atp_api::Data;
use atp_transport::Effect;
use atp_transport::domain::DomainInfo;

use super::completion::Completion;
use super::facts::VerbFacts;
use super::job::Job;

pub(super) static FACTS: VerbFacts = VerbFacts { full_listing: true, ..VerbFacts::look("vm-list") };

pub(super) async fn perform(job: &Job, domain: &DomainInfo) -> Completion {
    let is_off = !domain.state.is_active();
    // The listings are of about the same time: a VM that is active under its UUID elsewhere left this definition behind.
    let elsewhere = is_off.then(|| job.placements.runs_on(domain.uuid, &job.target.host)).flatten();
    let listed = Completion::ok(Effect::None, Data::Domain(domain.clone()));
    Completion { found_on: elsewhere.cloned(), ..listed }
}
