//! Copies of files, in both directions. If the connection is lost, a copy goes on over another one.

use atp_api::Status;
use atp_protocol::ProtocolError;
use atp_protocol::files::{FileError, Progress};
use atp_transport::Hint;
use tokio::time::Instant;

use super::answer::{self, Answer};
use super::completion::Completion;
use super::facts::{Needs, VerbFacts};
use super::job::Job;
use super::scenario::ScenarioError;
use super::scenario::fields::{Field, Shape, field};
use super::scenario::node::Node;
use super::scenario::read::{Keys, Names, Result};
use super::scenario::template::Template;
use crate::run::PartialResult;

/// The facts about both directions.
pub(super) static FACTS: VerbFacts = VerbFacts { needs: Needs::Running, ..VerbFacts::change("cp") };

/// Turns the end of a copy into a completion. A copy has to end by `by`, shortly before the target's deadline, so that
/// what is open in the guest can be closed. A copy that ran into it ran out of the target's own time.
pub(super) fn finish<T>(
    job: &Job,
    by: Instant,
    answer: Result<Answer<T>, ProtocolError>,
    given: impl FnOnce(T) -> Completion,
) -> Completion {
    match answer {
        Err(error) => failed(&error, by, job.attempt.is_sent()),
        answer => answer::finish(job, answer, given),
    }
}

/// The completion of a copy that failed. If bytes were copied, nothing hung: there was too little time.
fn failed(error: &ProtocolError, by: Instant, is_sent: bool) -> Completion {
    let mut failed = Completion::from_error(error, by, is_sent);
    let is_under_way = matches!(error, ProtocolError::File(FileError::Stopped { done, .. }) if *done > 0);
    if let (Status::Timeout, true, Some(error)) = (failed.status, is_under_way, &mut failed.error) {
        error.hint = Some(Hint::GIVE_COPY_TIME);
    }
    failed
}

/// Reports how far a copy is, and what is left behind if it is cut off from here on.
pub(super) fn note_progress(job: &Job, Progress { done, total }: Progress, partial: &str) {
    job.attempt.progress(done, total);
    let words = format!(
        "{done} of {total} bytes were copied; they are kept in {partial}, and the next copy resumes there"
    );
    job.attempt.if_cut_off(PartialResult { words: Some(words), data: None });
}

/// Whether the next attempt can continue a copy: it had begun.
pub(super) fn can_continue(error: &ProtocolError, begun: &mut bool) -> bool {
    match error {
        ProtocolError::File(FileError::Stopped { .. }) => {
            *begun = true;
            true
        }
        ProtocolError::Transport(_) => *begun,
        _ => false,
    }
}

/// The key in a step of a scenario.
pub(super) const STEP: Field = field("cp", Shape::Map(KEYS), "Copy a file to or from the guest");

const KEYS: &[Field] = &[
    field("push", Shape::Text, "The file on this machine to copy into the guest"),
    field("pull", Shape::Text, "The file in the guest to copy to this machine"),
    field(
        "to",
        Shape::Text,
        "The destination: a path in the guest; or a folder on this machine, in which it becomes HOST/VM/NAME",
    ),
];

/// One direction of a copy in a step: the source and the destination.
pub(super) enum CopyStep {
    Push(Template, Template),
    Pull(Template, Template),
}

/// Reads a copy from a step.
pub(super) fn read(node: &Node, names: &Names) -> Result<CopyStep> {
    let keys = Keys::of(node, KEYS, "cp")?;
    let to = names.template(keys.need("to")?)?;
    match (keys.get("push"), keys.get("pull")) {
        (Some(from), None) => Ok(CopyStep::Push(names.template(from)?, to)),
        (None, Some(from)) => Ok(CopyStep::Pull(names.template(from)?, to)),
        _ => Err(ScenarioError::at(node.place, "cp has one direction: push a file, or pull one")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use atp_protocol::files::TransferPolicy;
    use atp_transport::Effect;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_copy_that_ran_out_of_time_is_a_timeout_shortly_before_the_deadline() {
        let unanswered = ProtocolError::Timeout { peer: atp_protocol::Peer::Agent, sent: true };
        let (path, partial) = ("/x".to_owned(), Some("/.atp-0.part".to_owned()));
        let stopped = FileError::Stopped { path, done: 1, total: 2, partial, source: Box::new(unanswered) };
        let deadline = Instant::now() + Duration::from_secs(8);
        let by = TransferPolicy::default().before(deadline);
        tokio::time::advance(Duration::from_secs(7)).await;
        assert!(Instant::now() < deadline);
        let failed = failed(&stopped.into(), by, false);
        assert_eq!((failed.status, failed.effect), (Status::Timeout, Effect::None));
        assert_eq!(failed.error.and_then(|error| error.hint), Some(Hint::GIVE_COPY_TIME));
    }
}
