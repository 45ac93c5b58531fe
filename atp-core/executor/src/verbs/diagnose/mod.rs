//! `doctor`: what is wrong between this machine and a host, and between a host and a guest agent.
//!
//! A diagnosis has one finding for each thing that was checked, good or bad, with what to do about it.

pub(super) mod agent;
pub(super) mod host;
mod limits;

use atp_api::OutcomeError;
use atp_protocol::ProtocolError;
use atp_transport::{ConnectStage, Hint};

use super::facts::VerbFacts;

pub(super) static FACTS: VerbFacts = VerbFacts::look("doctor");

/// An error that ended a diagnosis.
struct Failed {
    /// How far an attempt to connect came.
    stage: Option<ConnectStage>,
    message: String,
    hint: Hint,
}

impl Failed {
    fn of(error: &ProtocolError) -> Self {
        let outcome = OutcomeError::from(error);
        // The message names the host and the call, the causes say what is wrong. The host stands beside a finding, and findings
        // that are otherwise equal are shown together.
        let message = match &outcome.causes[..] {
            [] => without_host(&outcome.message).to_owned(),
            causes => causes.join(": "),
        };
        Failed { stage: error.connect_stage(), message, hint: error.hint() }
    }
}

fn without_host(message: &str) -> &str {
    let named = message.strip_prefix("host ").and_then(|rest| rest.split_once(": "));
    named.map_or(message, |(_, rest)| rest)
}
