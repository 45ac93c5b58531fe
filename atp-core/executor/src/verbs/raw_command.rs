//! What `qmp` and `qga` share: sending a raw command, and its form in a step of a scenario.

use atp_api::Data;
use atp_protocol::{LibvirtCarrier, Peer, RawCommand, agent, monitor};
use atp_transport::Effect;
use atp_transport::domain::DomainInfo;

use super::answer::{Answer, explain, finish, not_running};
use super::completion::Completion;
use super::facts::Needs;
use super::job::Job;
use super::scenario::node::Node;
use super::scenario::read::{Names, Result, words};
use super::scenario::template::{Template, Values, fill_all};

/// Sends a command to one side of a VM that is as the command needs it.
pub(super) async fn send(
    job: &Job,
    domain: &DomainInfo,
    needs: Needs,
    peer: Peer,
    command: &RawCommand,
) -> Completion {
    let answer = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        if let Some(state) = not_running(&connection, domain, needs).await? {
            return Ok(Answer::NotRunning(state, Effect::None));
        }
        job.attempt.mark_sent().await;
        let carrier = LibvirtCarrier::new(&connection, domain.uuid);
        let reply = match peer {
            Peer::Monitor => monitor::execute_raw(&carrier, command, job.deadline()).await,
            Peer::Agent => agent::execute_raw(&carrier, command, job.deadline()).await,
        };
        explain(job, &connection, domain, needs, reply).await
    });
    let answer = match answer.await {
        Err(error) => Err(job.who_is_silent(domain, error).await),
        answer => answer,
    };
    finish(job, answer, |reply| Completion::ok(Effect::Done, Data::Reply(reply)))
}

/// Reads a command from a step.
pub(super) fn read(node: &Node, names: &Names) -> Result<Vec<Template>> {
    words(node, names, |words| parse(words.to_vec()).map(drop))
}

/// The command with values in it. The error says what is wrong.
pub(super) fn fill(words: &[Template], values: &Values) -> Result<RawCommand, String> {
    parse(fill_all(words, values)?)
}

fn parse(words: Vec<String>) -> Result<RawCommand, String> {
    RawCommand::from_words(words).map_err(|error| error.to_string())
}
