//! `type`: the keys that type a text. They are pressed as those of `key` are.

use super::facts::VerbFacts;
use super::input;
use super::key::KeySpec;
pub(super) use super::key::perform;

static FACTS: VerbFacts = input::facts("type");

pub(super) fn facts(_: &KeySpec) -> &'static VerbFacts {
    &FACTS
}
