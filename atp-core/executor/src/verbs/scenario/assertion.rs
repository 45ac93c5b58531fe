//! `assert`: a comparison of what the step before yielded, and of the VM's state.

use atp_api::KernelFault;
use atp_transport::domain::DomainState;
use regex::Regex;

use super::error::ScenarioError;
use super::fields::{Field, STATES, Shape, field};
use super::node::Node;
use super::read::{Keys, Names, Result, choice, expected, integer, list, scalar, state, truth};
use super::screen::{SCREEN, ScreenAssertion};
use super::template::Template;
use crate::pattern;

/// What is expected of the step before, or of the VM. All of it must be true.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Assertion {
    /// The exit code of its process.
    pub exit_code: Option<i32>,
    /// Its standard output; of a step that is no process, what it yielded, as JSON.
    pub stdout: Option<Matcher>,
    /// Its standard error.
    pub stderr: Option<Matcher>,
    /// The state of the VM now.
    pub state: Option<DomainState>,
    /// The faults that its kernel has not reported on the console since the first step.
    pub no_fault_of: Vec<KernelFault>,
    /// A file in the guest now.
    pub file: Option<FileAssertion>,
    /// The screen now.
    pub screen: Option<ScreenAssertion>,
}

/// What is expected of a file in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAssertion {
    /// Its path.
    pub path: Template,
    /// Whether it is there.
    pub exists: bool,
    /// What is in it.
    pub matches: Option<Matcher>,
}

/// A regular expression, which may match anywhere.
#[derive(Debug, Clone)]
pub struct Matcher(pub(super) Regex);

impl Assertion {
    /// Whether it asks the VM, and not only what the step before yielded.
    pub(super) fn looks_at_vm(&self) -> bool {
        self.state.is_some() || self.file.is_some() || self.screen.is_some()
    }

    /// Whether it checks what the step before yielded.
    pub(super) fn looks_back(&self) -> bool {
        self.exit_code.is_some() || self.stdout.is_some() || self.stderr.is_some()
    }
}

impl Matcher {
    /// Reads one.
    pub(in crate::verbs) fn read(node: &Node) -> Result<Self> {
        let text = scalar(node)?;
        pattern::compiled(&text).map(Matcher).map_err(|reason| {
            ScenarioError::at(node.place, format!("{text:?} is not a regular expression: {reason}"))
        })
    }

    /// The expression.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

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
    field(
        "console",
        Shape::Map(CONSOLE),
        "What the kernel has reported on the serial console since the first step",
    ),
    field("file", Shape::Map(FILE), "A file in the guest"),
    field("screen", Shape::Map(SCREEN), "The VM's screen looks like a reference picture"),
];

const CONSOLE: &[Field] = &[field(
    "none_of",
    Shape::Choices(KernelFault::NAMES),
    "The faults that the kernel must not have reported",
)];

const FILE: &[Field] = &[
    field("path", Shape::Text, "The path in the guest"),
    field("exists", Shape::Bool, "Whether it has to be there; true by default"),
    field("matches", Shape::Text, "A regular expression on its content"),
];

pub(super) fn read(node: &Node, names: &Names) -> Result<Assertion> {
    let keys = Keys::of(node, ASSERT, "assert")?;
    if keys.is_empty() {
        return Err(ScenarioError::at(node.place, "an assert needs a condition")
            .with_hint("exit_code, stdout, stderr, state, console, file or screen"));
    }
    Ok(Assertion {
        exit_code: keys.get("exit_code").map(integer).transpose()?,
        stdout: keys.get("stdout").map(Matcher::read).transpose()?,
        stderr: keys.get("stderr").map(Matcher::read).transpose()?,
        state: keys.get("state").map(state).transpose()?,
        no_fault_of: keys.get("console").map(no_fault_of).transpose()?.unwrap_or_default(),
        file: keys.get("file").map(|node| file(node, names)).transpose()?,
        screen: keys.get("screen").map(|node| ScreenAssertion::read(node, names)).transpose()?,
    })
}

fn no_fault_of(node: &Node) -> Result<Vec<KernelFault>> {
    let keys = Keys::of(node, CONSOLE, "console")?;
    let named = |node: &Node| {
        let name = choice(node, KernelFault::NAMES)?;
        KernelFault::named(name).ok_or_else(|| expected(node, "a fault"))
    };
    list(keys.need("none_of")?, "faults")?.iter().map(named).collect()
}

fn file(node: &Node, names: &Names) -> Result<FileAssertion> {
    let keys = Keys::of(node, FILE, "file")?;
    let file = FileAssertion {
        path: names.template(keys.need("path")?)?,
        exists: keys.get("exists").map(truth).transpose()?.unwrap_or(true),
        matches: keys.get("matches").map(Matcher::read).transpose()?,
    };
    match file.matches.is_some() && !file.exists {
        true => Err(ScenarioError::at(node.place, "a file that is not there has no content to match")),
        false => Ok(file),
    }
}
