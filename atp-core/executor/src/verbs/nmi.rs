//! `vm nmi`: a non-maskable interrupt. What the guest does on it is the guest's matter.

use atp_transport::Effect;
use atp_transport::domain::DomainInfo;

use super::answer::{Answer, explain, finish, not_running};
use super::completion::Completion;
use super::facts::{Needs, VerbFacts};
use super::job::Job;

/// Many guests are set up to crash on it, so that they write their memory to a disk.
pub(super) static FACTS: VerbFacts =
    VerbFacts { needs: Needs::Active, disruptive: true, ..VerbFacts::change("vm-nmi") };

pub(super) async fn perform(job: &Job, domain: &DomainInfo) -> Completion {
    let sent = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        if let Some(now) = not_running(&connection, domain, FACTS.needs).await? {
            return Ok(Answer::NotRunning(now, Effect::None));
        }
        job.attempt.mark_sent().await;
        let sent = connection.inject_nmi(domain.uuid).await.map_err(Into::into);
        explain(job, &connection, domain, FACTS.needs, sent).await
    });
    finish(job, sent.await, |()| Completion::ok(Effect::Done, None))
}
