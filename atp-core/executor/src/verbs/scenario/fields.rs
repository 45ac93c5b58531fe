//! The keys of a scenario file, from which both the parser and the schema for editors are made. Those of a verb are in
//! the verb's file.

/// A key and what may stand there.
#[derive(Debug, Clone, Copy)]
pub(in crate::verbs) struct Field {
    pub(in crate::verbs) name: &'static str,
    pub(in crate::verbs) shape: Shape,
    pub(in crate::verbs) help: &'static str,
}

/// What may stand at a key.
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
    /// A mapping with these keys.
    Map(&'static [Field]),
    /// One of several shapes.
    Either(&'static [Shape]),
    /// Steps, one after the other.
    Steps,
}

pub(in crate::verbs) const fn field(name: &'static str, shape: Shape, help: &'static str) -> Field {
    Field { name, shape, help }
}

/// The states a step can wait for or assert.
pub(in crate::verbs) const STATES: &[&str] = &["running", "shut-off", "paused"];

/// The top of the file.
pub(super) const SCENARIO: &[Field] = &[
    field("name", Shape::Text, "What the scenario is called"),
    field("description", Shape::Text, "What it is for"),
    field("variables", Shape::Named, "Values to use as ${NAME}; --set NAME=VALUE gives one another value"),
    field("targets", Shape::Texts, "Selectors of the VMs it is for, [HOST/]VM; several add up"),
    field("exclude", Shape::Texts, "Selectors of VMs to leave out"),
    field("state", Shape::Choice(&["any", "running", "shut-off", "paused"]), "Only VMs in this state"),
    field("labels", Shape::Named, "Only VMs with all of these labels"),
    field("steps", Shape::Steps, "What each VM goes through, until a step fails"),
    field(
        "teardown",
        Shape::Steps,
        "What each VM goes through at the end in any case, each step whatever came before",
    ),
];

/// The keys that go with any verb of a step.
pub(super) const STEP: &[Field] = &[
    field("name", Shape::Text, "What reports call the step; by default, what it does"),
    field("timeout", Shape::Duration, "The time for this step; by default that of --timeout"),
    field("capture", Shape::Text, "A variable to keep what it yields in: its standard output, or JSON"),
];
