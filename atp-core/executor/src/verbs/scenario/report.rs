//! The report of a scenario on one target.

use atp_api::{Data, EvidenceReport, OutcomeError, ScenarioReport, Status, StepReport};
use atp_transport::{Effect, ErrorKind};

use super::step::Step;
use crate::run::PartialResult;
use crate::verbs::completion::Completion;

/// What is reported if a target is cut off in this step.
pub(super) fn partial(report: &ScenarioReport, step: &Step) -> PartialResult {
    let teardown = match report.teardown_total {
        0 => "",
        _ => ", and the teardown was not carried out",
    };
    let (number, all) = (report.steps.len() + 1, report.steps_total);
    let words = format!("it was in step {number} of {all} ({}){teardown}", step.name);
    PartialResult { words: Some(words), data: Some(Data::Scenario(report.clone())) }
}

/// What is reported if a target is cut off in this step of the teardown.
pub(super) fn partial_in_teardown(report: &ScenarioReport, step: &Step) -> PartialResult {
    let (number, all) = (report.teardown.len() + 1, report.teardown_total);
    let words = format!(
        "it was in step {number} of {all} of the teardown ({}), which was not carried out to its end",
        step.name
    );
    PartialResult { words: Some(words), data: Some(Data::Scenario(report.clone())) }
}

/// Where the evidence is, and what is missing of it.
fn described(evidence: &EvidenceReport) -> Vec<String> {
    let there = match &evidence.files[..] {
        [] => None,
        files => Some(format!("evidence is in {}: {}", evidence.folder.display(), files.join(", "))),
    };
    let missed =
        evidence.missed.iter().map(|missed| format!("no evidence of {}: {}", missed.what, missed.reason));
    there.into_iter().chain(missed).collect()
}

/// What is reported if a target is cut off while it is taken back to its snapshot at the end.
pub(super) fn partial_in_revert(report: &ScenarioReport, snapshot: &str) -> PartialResult {
    let words = format!("it was being taken back to the snapshot {snapshot:?}, and may not be at it");
    PartialResult { words: Some(words), data: Some(Data::Scenario(report.clone())) }
}

/// What is reported if a target is cut off while the evidence of a failed first revert is collected.
pub(super) fn partial_in_evidence(report: &ScenarioReport, reverted: &Completion) -> PartialResult {
    let why = reverted.error.as_ref().map_or("it failed", |error| &error.message);
    let words = format!("isolate: {why}; no step was carried out, and evidence was being collected");
    PartialResult { words: Some(words), data: Some(Data::Scenario(report.clone())) }
}

/// The completion of a target that could not be taken back to its snapshot before the first step.
pub(super) fn not_begun(reverted: Completion, report: ScenarioReport) -> Completion {
    let error = reverted.error.map(|mut error| {
        error.causes.extend(report.evidence.as_deref().into_iter().flat_map(described));
        let message = format!("isolate: {}; no step was carried out", error.message);
        OutcomeError { message, retryable: false, ..error }
    });
    Completion { error, data: Some(Data::Scenario(report)), ..reverted }
}

/// The completion of a target that was, or was not, taken back to its snapshot at the end.
pub(super) fn after_revert(ended: Completion, reverted: Completion) -> Completion {
    let effect = worst(ended.effect, reverted.effect);
    let Some(failed) = reverted.error else { return Completion { effect, ..ended } };
    let (status, error) = match ended.error {
        Some(error) => {
            let message =
                format!("{}; and it was not taken back to its snapshot: {}", error.message, failed.message);
            (ended.status, OutcomeError { message, ..error })
        }
        None => {
            let message = format!("isolate: not taken back to its snapshot: {}", failed.message);
            (reverted.status, OutcomeError { message, retryable: false, ..failed })
        }
    };
    Completion { status, effect, error: Some(error), ..ended }
}

/// The completion of a target that an earlier run left in the middle, and that was, or was not, taken back to its snapshot now.
pub(super) fn undone(reverted: Completion) -> Completion {
    const EARLIER: &str =
        "it was started by an earlier run, which ended before it recorded the outcome; it is not repeated";
    let error = match reverted.error {
        None => OutcomeError::new(
            ErrorKind::OutcomeUnknown,
            format!("{EARLIER}, and was taken back to its snapshot"),
        )
        .with_hint("run the command for this VM only if it still has to be done"),
        Some(error) => {
            let message = format!("{EARLIER}, and was not taken back to its snapshot: {}", error.message);
            OutcomeError { message, retryable: false, ..error }
        }
    };
    let status = if reverted.status.is_success() { Status::Failed } else { reverted.status };
    Completion { status, effect: Effect::Unknown, error: Some(error), ..reverted }
}

/// Whether a step has failed; one whose condition does not hold has not.
pub(super) fn has_failed(step: &StepReport) -> bool {
    !step.status.is_success() && step.status != Status::Skipped
}

/// The effect of two parts of the work together.
pub(super) fn worst(one: Effect, other: Effect) -> Effect {
    match (one, other) {
        (Effect::Unknown, _) | (_, Effect::Unknown) => Effect::Unknown,
        (Effect::Done, _) | (_, Effect::Done) => Effect::Done,
        (Effect::None, Effect::None) => Effect::None,
    }
}

/// The steps that have failed, each as the failure of its target.
fn failures(steps: &[StepReport], part: &str) -> Vec<(Status, OutcomeError)> {
    let failure = |(number, step): (usize, &StepReport)| {
        let error =
            step.error.clone().unwrap_or_else(|| OutcomeError::new(ErrorKind::StepFailed, "it failed"));
        let message = format!("{part} {number} ({}): {}", step.name, error.message);
        (step.status, OutcomeError { message, ..error })
    };
    (1..).zip(steps).filter(|(_, step)| has_failed(step)).map(failure).collect()
}

/// Makes the completion of the target, with the effect of its steps. `is_stopped` is whether it was asked to stop before its last step.
pub(super) fn completion(report: ScenarioReport, is_stopped: bool) -> Completion {
    let steps = report.steps.iter().chain(&report.teardown);
    let effect = steps.map(|step| step.effect).fold(Effect::None, worst);
    let mut of_teardown = failures(&report.teardown, "teardown step").into_iter();
    let ended = match failures(&report.steps, "step").into_iter().next() {
        None if is_stopped => {
            let (done, all) = (report.steps.len(), report.steps_total);
            let teardown = match of_teardown.next() {
                _ if report.teardown.is_empty() => String::new(),
                None => "; the teardown was carried out".to_owned(),
                Some((_, error)) => format!("; {}", error.message),
            };
            let message = format!("stopped after {done} of {all} steps, as requested{teardown}");
            Some((Status::Cancelled, OutcomeError::new(ErrorKind::Stopped, message)))
        }
        failed => failed.or_else(|| of_teardown.next()),
    };
    let (status, error) = match ended {
        // Not retryable: the steps before it may have had an effect.
        Some((status, mut error)) => {
            error.causes.extend(of_teardown.map(|(_, error)| error.message));
            if let Some(evidence) = &report.evidence {
                error.causes.extend(described(evidence));
            }
            (status, Some(OutcomeError { retryable: false, ..error }))
        }
        None => (Status::Ok, None),
    };
    Completion { status, effect, error, ..Completion::ok(effect, Data::Scenario(report)) }
}
