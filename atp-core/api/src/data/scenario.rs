//! The report of a scenario on one target.

use std::borrow::Cow;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{ConsoleReport, Data};
use crate::effect::Effect;
use crate::error::OutcomeError;
use crate::operation::lossy_path;
use crate::outcome::Status;

/// The steps that a target went through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// What its VM's console wrote, if a step or the evidence needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<Box<ConsoleReport>>,
    /// The evidence that was collected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Box<EvidenceReport>>,
    /// The snapshot that it begins and ends at; none if the scenario is not isolated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<Isolation>,
}

/// What was collected of a VM whose scenario has failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EvidenceReport {
    /// The folder with the files.
    #[serde(serialize_with = "lossy_path")]
    #[schemars(with = "String")]
    pub folder: PathBuf,
    /// Their names.
    pub files: Vec<String>,
    /// What could not be had.
    pub missed: Vec<MissedEvidence>,
}

/// Something that could not be had as evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MissedEvidence {
    /// What was asked for.
    pub what: String,
    /// Why it could not be had.
    pub reason: String,
}

/// How a scenario left a VM that it takes back to a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Isolation {
    /// The snapshot's name.
    pub snapshot: String,
    /// Whether nothing was done to the VM since it was last taken back to it.
    pub restored: bool,
}

/// The result of one step.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
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
        struct Fields {
            name: String,
            op: String,
            status: Status,
            effect: Effect,
            attempts: u32,
            duration_ms: u64,
            data: Option<Value>,
            error: Option<OutcomeError>,
        }
        let Fields { name, op, status, effect, attempts, duration_ms, data, error } =
            Fields::deserialize(deserializer)?;
        let data = data.map(|data| Data::read(&op, data));
        Ok(StepReport { name, op: Cow::Owned(op), status, effect, attempts, duration_ms, data, error })
    }
}
