//! The report of a scenario on one target.

use std::borrow::Cow;

use atp_transport::{Effect, ErrorKind};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::step::Step;
use crate::error::OutcomeError;
use crate::outcome::Status;
use crate::run::PartialResult;
use crate::verbs::Data;
use crate::verbs::completion::Completion;

/// The steps that a target went through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScenarioReport {
    /// The scenario's name.
    pub scenario: String,
    /// The steps it went through, the one that failed the last.
    pub steps: Vec<StepReport>,
    /// How many steps there are.
    pub steps_total: usize,
    /// The steps of the teardown that were carried out.
    pub teardown: Vec<StepReport>,
    /// How many steps the teardown has.
    #[serde(default)]
    pub teardown_total: usize,
}

/// The result of one step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// The step's name.
    pub name: String,
    /// What it does: the name of an operation, `wait` or `assert`.
    pub op: Cow<'static, str>,
    /// How it went.
    pub status: Status,
    /// Whether anything happened to the VM.
    pub effect: Effect,
    /// The number of attempts.
    pub attempts: u32,
    /// Milliseconds it took.
    pub duration_ms: u64,
    /// What it yielded.
    pub data: Option<Data>,
    /// What went wrong.
    pub error: Option<OutcomeError>,
}

impl<'de> Deserialize<'de> for StepReport {
    /// Reads the data by the name of the step's operation.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Noted {
            name: String,
            op: String,
            status: Status,
            effect: Effect,
            attempts: u32,
            duration_ms: u64,
            data: Option<Value>,
            error: Option<OutcomeError>,
        }
        let Noted { name, op, status, effect, attempts, duration_ms, data, error } =
            Noted::deserialize(deserializer)?;
        let data = data.map(|data| Data::from_json(&op, data));
        Ok(StepReport { name, op: Cow::Owned(op), status, effect, attempts, duration_ms, data, error })
    }
}

impl StepReport {
    pub(super) fn is_success(&self) -> bool {
        self.status.is_success()
    }
}

impl ScenarioReport {
    /// What is reported if a target is cut off in this step.
    pub(super) fn partial(&self, step: &Step) -> PartialResult {
        let teardown = match self.teardown_total {
            0 => "",
            _ => ", and the teardown was not carried out",
        };
        let (number, all) = (self.steps.len() + 1, self.steps_total);
        let words = format!("it was in step {number} of {all} ({}){teardown}", step.name);
        PartialResult { words: Some(words), data: Some(Data::Scenario(self.clone())) }
    }

    /// What is reported if a target is cut off in this step of the teardown.
    pub(super) fn partial_in_teardown(&self, step: &Step) -> PartialResult {
        let (number, all) = (self.teardown.len() + 1, self.teardown_total);
        let words = format!(
            "it was in step {number} of {all} of the teardown ({}), which was not carried out to its end",
            step.name
        );
        PartialResult { words: Some(words), data: Some(Data::Scenario(self.clone())) }
    }

    /// Makes the completion of the target. `is_stopped` is whether it was asked to stop before its last step.
    pub(super) fn completion(self, is_stopped: bool) -> Completion {
        let effect = self.steps.iter().chain(&self.teardown).fold(Effect::None, |all, step| {
            match (all, step.effect) {
                (Effect::Unknown, _) | (_, Effect::Unknown) => Effect::Unknown,
                (Effect::Done, _) | (_, Effect::Done) => Effect::Done,
                (Effect::None, Effect::None) => Effect::None,
            }
        });
        let failure = |steps: &[StepReport], part: &str| {
            let (number, step) = (1..).zip(steps).find(|(_, step)| !step.is_success())?;
            let error =
                step.error.clone().unwrap_or_else(|| OutcomeError::new(ErrorKind::StepFailed, "it failed"));
            let message = format!("{part} {number} ({}): {}", step.name, error.message);
            Some((step.status, OutcomeError { message, ..error }))
        };
        let stopped = || {
            let (done, all) = (self.steps.len(), self.steps_total);
            let teardown = match failure(&self.teardown, "teardown step") {
                _ if self.teardown.is_empty() => String::new(),
                None => "; the teardown was carried out".to_owned(),
                Some((_, error)) => format!("; {}", error.message),
            };
            let message = format!("stopped after {done} of {all} steps, as was asked{teardown}");
            is_stopped.then(|| (Status::Cancelled, OutcomeError::new(ErrorKind::Stopped, message)))
        };
        let ended = failure(&self.steps, "step")
            .or_else(stopped)
            .or_else(|| failure(&self.teardown, "teardown step"));
        let (status, error) = match ended {
            // Not retryable: the steps before it may have had an effect.
            Some((status, error)) => (status, Some(OutcomeError { retryable: false, ..error })),
            None => (Status::Ok, None),
        };
        Completion { status, effect, data: Some(Data::Scenario(self)), error }
    }
}
