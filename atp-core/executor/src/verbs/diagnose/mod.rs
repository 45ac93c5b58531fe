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
            [] => without_call(without_host(&outcome.message)).to_owned(),
            causes => causes.join(": "),
        };
        Failed { stage: error.connect_stage(), message, hint: error.hint() }
    }
}

/// A message without the name of libvirt's function.
fn without_call(message: &str) -> &str {
    let call = message.split_once(": ").filter(|(call, _)| call.starts_with("vir") && !call.contains(' '));
    call.map_or(message, |(_, rest)| rest)
}

fn without_host(message: &str) -> &str {
    let named = message.strip_prefix("host ").and_then(|rest| rest.split_once(": "));
    named.map_or(message, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use atp_transport::{HostId, TransportError};

    use super::*;

    #[test]
    fn a_finding_names_no_function_of_libvirt() {
        let host: HostId = "h1".parse().unwrap();
        let after = std::time::Duration::from_secs(3);
        let operation = "virDomainGetXMLDesc";
        let error = TransportError::CallTimeout { host, operation, after, sent: true };
        assert_eq!(Failed::of(&error.into()).message, "no answer after 3.0s");
    }
}
