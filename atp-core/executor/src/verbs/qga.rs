//! `qga`: one command to the guest agent.

use atp_protocol::{LibvirtCarrier, RawCommand, agent};
use atp_transport::Effect;
use atp_transport::domain::DomainInfo;

use super::Data;
use super::answer::{Answer, explain, finish, not_running};
use super::completion::Completion;
use super::facts::{Needs, VerbFacts};
use super::job::Job;
use super::scenario::fields::{Field, Shape, field};

pub(super) static FACTS: VerbFacts = VerbFacts {
    name: "qga",
    disruptive: false,
    only_looks: false,
    needs: Needs::Guest,
    unchanged_in: None,
    full_listing: false,
    ends_on_stop: false,
};

pub(super) fn facts(_: &RawCommand) -> &'static VerbFacts {
    &FACTS
}

pub(super) async fn perform(job: &Job, domain: &DomainInfo, command: &RawCommand) -> Completion {
    let answer = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        if let Some(state) = not_running(&connection, domain, FACTS.needs).await? {
            return Ok(Answer::NotRunning(state, Effect::None));
        }
        job.attempt.mark_sent().await;
        let carrier = LibvirtCarrier::new(&connection, domain.uuid);
        let reply = agent::execute_raw(&carrier, command, job.deadline()).await;
        explain(job, &connection, domain, FACTS.needs, reply).await
    });
    finish(job, domain, answer.await, |reply| Completion::ok(Effect::Done, Data::Reply(reply)))
}

/// The key in a step of a scenario.
pub(super) const STEP: Field =
    field("qga", Shape::Texts, "Send a command to the guest agent: COMMAND, and key=value or JSON");
