//! `type`: the keys that type a text. They are pressed as those of `key` are.

use atp_protocol::input::Layout;

use super::facts::VerbFacts;
use super::input;
use super::key::KeySpec;
pub(super) use super::key::perform;
use super::scenario::fields::{Field, Shape, field};
use super::scenario::template::{self, Template, Values};

pub(super) static FACTS: VerbFacts = input::facts("type");

pub(super) fn facts(_: &KeySpec) -> &'static VerbFacts {
    &FACTS
}

/// The key in a step of a scenario.
pub(super) const STEP: Field = field("type", Shape::Text, "Type a text, on a US keyboard");

/// The keys that type a text with values in it, on a US keyboard. The error says what is wrong.
pub(super) fn fill(text: &Template, values: &Values) -> Result<KeySpec, String> {
    KeySpec::of_text(&template::fill(text, values)?, Layout::US).map_err(|error| error.to_string())
}
