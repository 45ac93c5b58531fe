//! What a diagnosis of a host or a VM found.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use super::host::HostReport;
use crate::hint::Hint;

/// Everything found about one host or VM.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnosis {
    /// In the order in which things depend on each other.
    pub findings: Vec<Finding>,
    /// The host's report, if it was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostReport>,
}

/// The result of checking one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// The thing, as a stable word: `name`, `tcp`, `daemon`, `limits`, `agent`, …
    pub check: Cow<'static, str>,
    /// The result.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub hint: Option<Hint>,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Verdict {
    /// Works.
    Ok,
    /// Works, and will hinder some operations.
    Warning,
    /// Does not work.
    Problem,
    /// Could not be checked, or need not be; or a word that this version does not know.
    #[serde(other)]
    Note,
}

impl Verdict {
    /// The word used in every output.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Finding {
    /// Something that works.
    pub fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Finding { check: check.into(), verdict: Verdict::Ok, message: message.into(), hint: None }
    }

    /// Something that could not be checked, or need not be.
    pub fn note(check: &'static str, message: impl Into<String>) -> Self {
        Finding { verdict: Verdict::Note, ..Finding::ok(check, message) }
    }

    /// Something that will hinder some operations.
    pub fn warning(check: &'static str, message: impl Into<String>, hint: impl Into<Hint>) -> Self {
        Finding { verdict: Verdict::Warning, hint: Some(hint.into()), ..Finding::ok(check, message) }
    }

    /// Something that does not work.
    pub fn problem(check: &'static str, message: impl Into<String>, hint: impl Into<Hint>) -> Self {
        Finding { verdict: Verdict::Problem, hint: Some(hint.into()), ..Finding::ok(check, message) }
    }
}

impl From<Vec<Finding>> for Diagnosis {
    fn from(findings: Vec<Finding>) -> Self {
        Diagnosis { findings, host: None }
    }
}
