//! `vm list`: what the host's listing says of a VM. Nothing more is asked.

use atp_api::Data;
use atp_transport::Effect;
use atp_transport::domain::DomainInfo;

use super::completion::Completion;
use super::facts::{Needs, VerbFacts};
use super::job::Job;

static FACTS: VerbFacts = VerbFacts {
    name: "vm-list",
    disruptive: false,
    only_looks: true,
    needs: Needs::Nothing,
    unchanged_in: None,
    full_listing: true,
    ends_on_stop: false,
};

pub(super) fn facts() -> &'static VerbFacts {
    &FACTS
}

pub(super) async fn perform(_: &Job, domain: &DomainInfo) -> Completion {
    Completion::ok(Effect::None, Data::Domain(domain.clone()))
}
