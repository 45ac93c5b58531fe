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

/// Makes the completion of the target. `is_stopped` is whether it was asked to stop before its last step.
pub(super) fn completion(report: ScenarioReport, is_stopped: bool) -> Completion {
    let effect = report.steps.iter().chain(&report.teardown).fold(Effect::None, |all, step| {
        match (all, step.effect) {
            (Effect::Unknown, _) | (_, Effect::Unknown) => Effect::Unknown,
            (Effect::Done, _) | (_, Effect::Done) => Effect::Done,
            (Effect::None, Effect::None) => Effect::None,
        }
    });
    let failure = |steps: &[StepReport], part: &str| {
        let (number, step) = (1..).zip(steps).find(|(_, step)| !step.status.is_success())?;
        let error =
            step.error.clone().unwrap_or_else(|| OutcomeError::new(ErrorKind::StepFailed, "it failed"));
        let message = format!("{part} {number} ({}): {}", step.name, error.message);
        Some((step.status, OutcomeError { message, ..error }))
    };
    let stopped = || {
        let (done, all) = (report.steps.len(), report.steps_total);
        let teardown = match failure(&report.teardown, "teardown step") {
            _ if report.teardown.is_empty() => String::new(),
            None => "; the teardown was carried out".to_owned(),
            Some((_, error)) => format!("; {}", error.message),
        };
        let message = format!("stopped after {done} of {all} steps, as requested{teardown}");
        is_stopped.then(|| (Status::Cancelled, OutcomeError::new(ErrorKind::Stopped, message)))
    };
    let ended = failure(&report.steps, "step")
        .or_else(stopped)
        .or_else(|| failure(&report.teardown, "teardown step"));
    let (status, error) = match ended {
        // Not retryable: the steps before it may have had an effect.
        Some((status, mut error)) => {
            if let Some(evidence) = &report.evidence {
                error.causes.extend(described(evidence));
            }
            (status, Some(OutcomeError { retryable: false, ..error }))
        }
        None => (Status::Ok, None),
    };
    Completion { status, effect, error, ..Completion::ok(effect, Data::Scenario(report)) }
}
