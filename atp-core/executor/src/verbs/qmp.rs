//! `qmp`: one command to QEMU's monitor.

use atp_protocol::{Peer, RawCommand};
use atp_transport::domain::DomainInfo;

use super::completion::Completion;
use super::facts::{Needs, VerbFacts};
use super::job::Job;
use super::raw_command;
use super::scenario::fields::{Field, Shape, field};

pub(super) static FACTS: VerbFacts = VerbFacts { needs: Needs::Active, ..VerbFacts::change("qmp") };

pub(super) async fn perform(job: &Job, domain: &DomainInfo, command: &RawCommand) -> Completion {
    raw_command::send(job, domain, FACTS.needs, Peer::Monitor, command).await
}

/// The key in a step of a scenario.
pub(super) const STEP: Field =
    field("qmp", Shape::Texts, "Send a command to QEMU's monitor: COMMAND, and key=value or JSON");
