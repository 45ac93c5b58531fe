//! `qga`: one command to the guest agent.

use atp_protocol::{Peer, RawCommand};
use atp_transport::domain::DomainInfo;

use super::completion::Completion;
use super::facts::{Needs, VerbFacts};
use super::job::Job;
use super::raw_command;
use super::scenario::fields::{Field, Shape, field};

pub(super) static FACTS: VerbFacts = VerbFacts { needs: Needs::Running, ..VerbFacts::change("qga") };

pub(super) async fn perform(job: &Job, domain: &DomainInfo, command: &RawCommand) -> Completion {
    raw_command::send(job, domain, FACTS.needs, Peer::Agent, command).await
}

/// The key in a step of a scenario.
pub(super) const STEP: Field =
    field("qga", Shape::Texts, "Send a command to the guest agent: COMMAND, and key=value or JSON");
