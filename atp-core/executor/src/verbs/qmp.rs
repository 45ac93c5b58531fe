//! `qmp`: one command to QEMU's monitor.

use atp_protocol::{LibvirtCarrier, RawCommand, monitor};
use atp_transport::Effect;
use atp_transport::domain::DomainInfo;

use super::Data;
use super::answer::{Answer, explain, finish, not_running};
use super::completion::Completion;
use super::facts::{Needs, VerbFacts};
use super::job::Job;
use super::scenario::fields::{Field, Shape, field};

pub(super) static FACTS: VerbFacts = VerbFacts {
    name: "qmp",
    disruptive: false,
    only_looks: false,
    needs: Needs::Active,
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
        let reply = monitor::execute_raw(&carrier, command, job.deadline()).await;
        explain(job, &connection, domain, FACTS.needs, reply).await
    });
    finish(job, domain, answer.await, |reply| Completion::ok(Effect::Done, Data::Reply(reply)))
}

/// The key in a step of a scenario.
pub(super) const STEP: Field =
    field("qmp", Shape::Texts, "Send a command to QEMU's monitor: COMMAND, and key=value or JSON");
