//! `doctor`: what is wrong between this machine and a host, and between a host and a guest agent.
//!
//! A diagnosis has one finding for each thing that was checked, good or bad, with what to do about it.

pub(super) mod agent;
pub(super) mod host;
mod limits;

use atp_protocol::ProtocolError;
use atp_transport::{ErrorKind, Hint};
use serde::Serialize;
use strum::IntoStaticStr;

use super::facts::{Needs, VerbFacts};
use super::host_check::HostReport;
use crate::error::OutcomeError;

static FACTS: VerbFacts = VerbFacts {
    name: "doctor",
    disruptive: false,
    only_looks: true,
    needs: Needs::Nothing,
    unchanged_in: None,
    full_listing: false,
    ends_on_stop: false,
};

/// Everything found about one host or VM.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Diagnosis {
    /// In the order in which things depend on each other.
    pub findings: Vec<Finding>,
    /// The host's report, if it was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostReport>,
}

/// The result of checking one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The thing, as a stable word: `name`, `tcp`, `daemon`, `limits`, `agent`, …
    pub check: &'static str,
    /// The result.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub hint: Option<Hint>,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Verdict {
    /// Works.
    Ok,
    /// Could not be checked, or need not be.
    Note,
    /// Works, and will hinder some operations.
    Warning,
    /// Does not work.
    Problem,
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
        Finding { check, verdict: Verdict::Ok, message: message.into(), hint: None }
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

/// An error that ended a diagnosis.
struct Failed {
    kind: Option<ErrorKind>,
    message: String,
    hint: Hint,
}

impl Failed {
    fn of(error: &ProtocolError) -> Self {
        let outcome = OutcomeError::from(error);
        // The message names the host and the call, the causes say what is wrong.
        let message = if outcome.causes.is_empty() { outcome.message } else { outcome.causes.join(": ") };
        Failed { kind: error.transport_kind(), message, hint: error.hint() }
    }
}
