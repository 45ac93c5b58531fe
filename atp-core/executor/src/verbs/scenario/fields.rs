//! The keys of a scenario file, from which both the parser and the schema for editors are made. Those of a verb are in
//! the verb's file.

use atp_api::StateFilter;

/// A key and its allowed values.
#[derive(Debug, Clone, Copy)]
pub(in crate::verbs) struct Field {
    pub(in crate::verbs) name: &'static str,
    pub(in crate::verbs) shape: Shape,
    pub(in crate::verbs) help: &'static str,
}

/// The allowed values of a key.
#[derive(Debug, Clone, Copy)]
pub(in crate::verbs) enum Shape {
    Text,
    Integer,
    Bool,
    /// A time such as `30s`.
    Duration,
    /// A text, or a list of them.
    Texts,
    /// A mapping of free names to texts.
    Named,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of these words.
    Choices(&'static [&'static str]),
    /// A mapping with these keys.
    Map(&'static [Field]),
    /// One of several shapes.
    Either(&'static [Shape]),
    /// A mapping of a free name to a list of texts.
    Lists,
    /// Steps, one after the other.
    Steps,
}

pub(in crate::verbs) const fn field(name: &'static str, shape: Shape, help: &'static str) -> Field {
    Field { name, shape, help }
}

/// The states a step can wait for or assert.
pub(in crate::verbs) const STATES: &[&str] = &["running", "shut-off", "paused", "crashed", "pmsuspended"];

/// What is collected of a VM whose scenario has failed.
pub(super) const EVIDENCE: &[Field] = &[
    field("on", Shape::Choice(&["failure", "always"]), "When it is collected; failure by default"),
    field("console", Shape::Integer, "The number of lines of the serial console"),
    field("screenshot", Shape::Bool, "Whether a picture of the screen is taken"),
    field("commands", Shape::Texts, "Lines for the guest's shell whose output is kept"),
    field("folder", Shape::Text, "The folder here, in which each VM has HOST/VM; evidence by default"),
];

/// The top of the file.
pub(super) const SCENARIO: &[Field] = &[
    field("name", Shape::Text, "The name of the scenario"),
    field("description", Shape::Text, "The purpose of the scenario"),
    field("variables", Shape::Named, "Values to use as ${NAME}; --set NAME=VALUE changes a value"),
    field(
        "targets",
        Shape::Texts,
        "Selectors of the VMs, [HOST/]VM; VMs that match any of them are selected",
    ),
    field("exclude", Shape::Texts, "Selectors of VMs to exclude"),
    field("state", Shape::Choice(StateFilter::NAMES), "Only VMs in this state"),
    field("labels", Shape::Named, "Only VMs with all of these labels"),
    field(
        "evidence",
        Shape::Map(EVIDENCE),
        "What is collected in a folder for each VM, before its teardown, if a step has failed",
    ),
    field(
        "isolate",
        Shape::Map(ISOLATE),
        "Take each VM back to a snapshot before the first step and at every end",
    ),
    field("steps", Shape::Steps, "The steps for each VM, until one fails"),
    field(
        "teardown",
        Shape::Steps,
        "The steps for each VM at the end, in any case; each is carried out whatever the results before it",
    ),
];

/// How VMs are isolated.
pub(super) const ISOLATE: &[Field] =
    &[field("snapshot", Shape::Text, "The name of the snapshot, which each VM has")];

/// The keys of `when`.
pub(super) const WHEN: &[Field] = &[
    field("value", Shape::Text, "The text that is compared, such as ${NAME}"),
    field("equals", Shape::Text, "It is this text"),
    field("not_equals", Shape::Text, "It is not this text"),
    field("matches", Shape::Text, "This regular expression matches anywhere in it"),
    field("not_matches", Shape::Text, "This regular expression matches nowhere in it"),
];

/// The keys of `retry`.
pub(super) const RETRY: &[Field] = &[
    field("times", Shape::Integer, "How often the step is repeated at most"),
    field("every", Shape::Duration, "The pause before each repetition; 1s by default"),
];

/// The keys that go with any verb of a step.
pub(super) const STEP: &[Field] = &[
    field("name", Shape::Text, "The name of the step in reports; by default, its action"),
    field("timeout", Shape::Duration, "The time for this step; by default that of --timeout"),
    field("capture", Shape::Text, "A variable that gets the result: standard output, or JSON"),
    field("when", Shape::Map(WHEN), "Skip the step unless this comparison holds"),
    field("for_each", Shape::Lists, "A variable and its values: the step is carried out once for each"),
    field(
        "retry",
        Shape::Either(&[Shape::Integer, Shape::Map(RETRY)]),
        "How often the step is repeated at most if it fails",
    ),
];
