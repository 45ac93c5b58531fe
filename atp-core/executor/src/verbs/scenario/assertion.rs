//! `assert`: a comparison of what the step before yielded, and of the VM's state.

use atp_transport::domain::DomainState;
use regex::Regex;

use super::error::ScenarioError;
use super::fields::{Field, STATES, Shape, field};
use super::node::Node;
use super::read::{Keys, Result, integer, scalar, state};
use crate::pattern;

/// What is expected of the step before, or of the VM. All of it must be true.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assertion {
    /// The exit code of its process.
    pub exit_code: Option<i32>,
    /// Its standard output; of a step that is no process, what it yielded, as JSON.
    pub stdout: Option<Matcher>,
    /// Its standard error.
    pub stderr: Option<Matcher>,
    /// The state of the VM now.
    pub state: Option<DomainState>,
}

/// A regular expression, which may match anywhere.
#[derive(Debug, Clone)]
pub struct Matcher(pub(super) Regex);

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Matcher {}

/// The key in a step.
pub(super) const STEP: Field =
    field("assert", Shape::Map(ASSERT), "Check the result of the previous step; all conditions must hold");

const ASSERT: &[Field] = &[
    field("exit_code", Shape::Integer, "The exit code of the previous process"),
    field(
        "stdout",
        Shape::Text,
        "A regular expression on its standard output, or on the JSON result of a step",
    ),
    field("stderr", Shape::Text, "A regular expression on its standard error"),
    field("state", Shape::Choice(STATES), "The state of the VM"),
];

pub(super) fn read(node: &Node) -> Result<Assertion> {
    let keys = Keys::of(node, ASSERT, "assert")?;
    if keys.is_empty() {
        return Err(ScenarioError::at(node.place, "an assert needs a condition")
            .with_hint("exit_code, stdout, stderr or state"));
    }
    let matcher = |node: &Node| {
        let text = scalar(node)?;
        pattern::compiled(&text).map(Matcher).map_err(|reason| {
            ScenarioError::at(node.place, format!("{text:?} is not a regular expression: {reason}"))
        })
    };
    Ok(Assertion {
        exit_code: keys.get("exit_code").map(integer).transpose()?,
        stdout: keys.get("stdout").map(matcher).transpose()?,
        stderr: keys.get("stderr").map(matcher).transpose()?,
        state: keys.get("state").map(state).transpose()?,
    })
}
