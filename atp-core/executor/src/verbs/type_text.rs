//! `type`: the keys that type a text. They are pressed as those of `key` are.

use atp_api::TypeSpec;
use atp_protocol::input::{Chord, Layout};
use atp_transport::domain::DomainInfo;

use super::completion::Completion;
use super::facts::VerbFacts;
use super::job::Job;
use super::scenario::fields::{Field, Shape, field};
use super::scenario::template::{self, Template, Values};
use super::{input, key};

pub(super) static FACTS: VerbFacts = input::facts("type");

pub(super) async fn perform(job: &Job, domain: &DomainInfo, spec: &TypeSpec) -> Completion {
    match strokes(spec) {
        Ok(strokes) => key::press_all(job, domain, &strokes, spec.hold).await,
        Err(reason) => job.invalid(reason),
    }
}

/// The keys that type the text. The error says what is wrong.
pub(crate) fn strokes(spec: &TypeSpec) -> Result<Vec<Chord>, String> {
    let layout = Layout::by_name(&spec.layout).ok_or_else(|| {
        let known = Layout::ALL.map(|layout| layout.name()).join(", ");
        format!("there is no keyboard layout {:?}: known are {known}", spec.layout)
    })?;
    layout.strokes(&spec.text).map_err(|error| error.to_string())
}

/// The key in a step of a scenario.
pub(super) const STEP: Field = field("type", Shape::Text, "Type a text on a US keyboard");

/// The text with values in it, on a US keyboard. The error says what is wrong.
pub(super) fn fill(text: &Template, values: &Values) -> Result<TypeSpec, String> {
    let spec = TypeSpec::new(template::fill(text, values)?);
    strokes(&spec)?;
    Ok(spec)
}
