//! The past of one target in a journal.

use std::borrow::Cow;

use atp_api::{Data, Outcome, OutcomeError, Status};
use atp_transport::{Effect, ErrorKind};

use super::record::Key;
use crate::verbs::Operation;

#[derive(Debug, Clone)]
pub(super) struct Past {
    pub(super) key: Key,
    pub(super) progress: Progress,
    /// Whether it was a target when the journal was begun.
    pub(super) is_from_begin: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Progress {
    NeverStarted,
    /// It was started, and its outcome was not recorded.
    Started,
    /// Its last record was lost to damage: it may have been started.
    Lost,
    Finished(Box<Outcome>),
}

impl Past {
    /// Whether an outcome of the planning is about this VM. An outcome without a host is about every VM of that name.
    pub(super) fn is_named_by(&self, outcome: &Outcome) -> bool {
        self.key.vm.is_some()
            && outcome.vm == self.key.vm
            && outcome.uuid.is_none()
            && outcome.host.as_ref().is_none_or(|host| *host == self.key.host)
    }

    pub(super) fn is_to_do(&self, operation: &Operation) -> bool {
        match &self.progress {
            Progress::NeverStarted => true,
            // Repeating a look does no harm.
            Progress::Started | Progress::Lost => operation.only_looks(),
            Progress::Finished(_) => !self.is_through(),
        }
    }

    /// Whether a scenario that isolates its VMs may have left this one away from its snapshot.
    pub(super) fn is_to_undo(&self, operation: &Operation) -> bool {
        let Operation::Scenario(scenario) = operation else { return false };
        scenario.is_isolated()
            && match &self.progress {
                Progress::NeverStarted => false,
                Progress::Started | Progress::Lost => true,
                Progress::Finished(outcome) => {
                    matches!(
                        &outcome.data,
                        Some(Data::Scenario(report)) if report.isolated.as_ref().is_some_and(|one| !one.restored)
                    ) && outcome.effect != Effect::None
                }
            }
    }

    /// Whether it succeeded or had an effect, so that no run repeats it.
    pub(super) fn is_through(&self) -> bool {
        matches!(&self.progress, Progress::Finished(outcome)
            if outcome.status.is_success() || outcome.effect != Effect::None)
    }

    /// Adds the outcome of a target that is not repeated, unless it succeeded. Returns the number of successes, 0 or 1.
    pub(super) fn settle(self, op: impl Into<Cow<'static, str>>, settled: &mut Vec<Outcome>) -> usize {
        let unknown = match self.progress {
            Progress::Finished(outcome) if outcome.status.is_success() => return 1,
            Progress::Finished(outcome) => {
                settled.push(Outcome { from_earlier_run: true, ..self.key.named(*outcome) });
                return 0;
            }
            Progress::Lost => {
                "the journal is damaged, and its last record of this VM is lost: it may have been started; \
                 it is not repeated"
            }
            Progress::NeverStarted | Progress::Started => {
                "it was started by an earlier run, which ended before it recorded the outcome; it is not repeated"
            }
        };
        let error = OutcomeError::new(ErrorKind::OutcomeUnknown, unknown)
            .with_hint("check the VM, and run the command for this VM only if it still has to be done");
        let outcome = Outcome::not_started(op, Status::Failed);
        let (effect, error) = (Effect::Unknown, Some(error));
        let outcome = Outcome { effect, attempts: 1, error, from_earlier_run: true, ..outcome };
        settled.push(self.key.named(outcome));
        0
    }

    /// The outcome of a target that is still to do and was not found now. Planning gives the reason in the outcome that
    /// names the target or its host.
    pub(super) fn not_selected(self, op: &'static str, named: &[Outcome], settled: &[Outcome]) -> Outcome {
        let unreachable = settled.iter().find(|outcome| {
            outcome.status == Status::Unreachable
                && outcome.vm.is_none()
                && outcome.host.as_ref() == Some(&self.key.host)
        });
        let reason = named
            .iter()
            .find(|outcome| outcome.host.is_some() && self.is_named_by(outcome))
            .or(unreachable)
            .or_else(|| named.iter().find(|outcome| self.is_named_by(outcome)));
        let (status, error) = match reason.and_then(|outcome| Some((outcome.status, outcome.error.clone()?)))
        {
            Some(reason) => reason,
            None => (Status::Skipped, not_selected()),
        };
        self.key.named(Outcome { error: Some(error), ..Outcome::not_started(op, status) })
    }
}

pub(super) fn not_selected() -> OutcomeError {
    let message = "it is in the journal and was not done, but it is not selected now";
    OutcomeError::new(ErrorKind::NotSelected, message)
        .with_hint("the VM may not exist any more, or may be in another state; or the selectors have changed")
}
