//! The keys of a scenario file, from which both the parser and the schema for editors are made.

/// A key and what may stand there.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) help: &'static str,
}

/// What may stand at a key.
pub(super) enum Shape {
    Text,
    Integer,
    Bool,
    /// A time such as `30s`.
    Duration,
    /// A text, or a list of them.
    Texts,
    /// A mapping of names of one's own to texts.
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

const fn field(name: &'static str, shape: Shape, help: &'static str) -> Field {
    Field { name, shape, help }
}

/// The states a step can wait for or assert.
pub(super) const STATES: &[&str] = &["running", "shut-off", "paused"];

/// What `vm` can do.
pub(super) const VM_ACTIONS: &[&str] =
    &["start", "shutdown", "reboot", "reset", "destroy", "suspend", "resume", "info"];

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

/// One step: one of the verbs, and what goes with any of them.
pub(super) const STEP: &[Field] = &[
    field("name", Shape::Text, "What reports call the step; by default, what it does"),
    field("timeout", Shape::Duration, "The time for this step; by default that of --timeout"),
    field("capture", Shape::Text, "A variable to keep what it yields in: its standard output, or JSON"),
    field(
        "exec",
        Shape::Either(EXEC),
        "Run a command in the guest: a line for its shell, or a list of words",
    ),
    field("qmp", Shape::Texts, "Send a command to QEMU's monitor: COMMAND, and key=value or JSON"),
    field("qga", Shape::Texts, "Send a command to the guest agent: COMMAND, and key=value or JSON"),
    field("vm", Shape::Either(VM), "Change the VM's state, or ask for all that is known of it"),
    field(
        "wait",
        Shape::Either(WAIT),
        "Wait until the guest agent answers, the VM is in a state, or a command exits with 0",
    ),
    field("cp", Shape::Map(CP), "Copy a file into the guest or out of it"),
    field("key", Shape::Texts, "Press keys: chords such as ctrl-alt-del, one after the other"),
    field("type", Shape::Text, "Type a text, on a US keyboard"),
    field("mouse", Shape::Texts, "Move, click, scroll or drag with the mouse, as in click 50% 50%"),
    field("screenshot", Shape::Text, "Take a picture of the screen, into this folder"),
    field("assert", Shape::Map(ASSERT), "Compare what the step before yielded; all of it has to be so"),
];

/// The keys of a step of which there must be exactly one.
pub(super) const VERBS: &[&str] =
    &["exec", "qmp", "qga", "vm", "wait", "cp", "key", "type", "mouse", "screenshot", "assert"];

const EXEC: &[Shape] = &[Shape::Texts, Shape::Map(EXEC_MAP)];

pub(super) const EXEC_MAP: &[Field] = &[
    field(
        "command",
        Shape::Texts,
        "A line for the guest's shell, or the program and its arguments as a list",
    ),
    field("env", Shape::Named, "Variables of its environment; it then has these and a PATH, and no others"),
    field("stdin", Shape::Text, "What it reads"),
];

const VM: &[Shape] = &[Shape::Choice(VM_ACTIONS), Shape::Map(VM_MAP)];

pub(super) const VM_MAP: &[Field] = &[
    field("action", Shape::Choice(VM_ACTIONS), "What is done"),
    field("wait", Shape::Bool, "Whether the step ends only when the state is reached"),
];

const WAIT: &[Shape] = &[Shape::Choice(&["agent"]), Shape::Map(WAIT_MAP)];

pub(super) const WAIT_MAP: &[Field] = &[
    field("state", Shape::Choice(STATES), "The state to wait for"),
    field(
        "exec",
        Shape::Either(EXEC),
        "The command that has to exit with 0; it is run again and again until then",
    ),
];

pub(super) const CP: &[Field] = &[
    field("push", Shape::Text, "The file here that goes into the guest"),
    field("pull", Shape::Text, "The file in the guest that is fetched"),
    field(
        "to",
        Shape::Text,
        "Where it goes: a path in the guest; or a folder here, below which it is HOST/VM/NAME",
    ),
];

pub(super) const ASSERT: &[Field] = &[
    field("exit_code", Shape::Integer, "The exit code of the process before"),
    field(
        "stdout",
        Shape::Text,
        "A regular expression on its standard output, or on the JSON that a step yielded",
    ),
    field("stderr", Shape::Text, "A regular expression on its standard error"),
    field("state", Shape::Choice(STATES), "The state that the VM is in"),
];
