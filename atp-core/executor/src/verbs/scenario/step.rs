//! One step of a scenario, and the table of what a step can do.

use std::sync::Arc;
use std::time::Duration;

use atp_api::LifecycleSpec;

use super::assertion::{self, Assertion, Matcher};
use super::control::{Retry, When};
use super::error::Place;
use super::fields::{self, Field};
use super::include;
use super::node::Node;
use super::places::FilePlaces;
use super::read::{Names, Result};
use super::template::{Template, Values, fill, fill_path};
use crate::verbs::exec::{self, ExecTemplate};
use crate::verbs::facts::VerbFacts;
use crate::verbs::transfer::{self, CopyStep};
use crate::verbs::wait::{self, WaitFor};
use crate::verbs::{
    Operation, PreparedPush, key, lifecycle, mouse, pull, qga, qmp, raw_command, screenshot, type_text,
    vm_info,
};

/// One step that a target goes through.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What reports call it.
    pub name: String,
    /// What is done.
    pub action: Action,
    /// The time for it; without one, that of a target.
    pub timeout: Option<Duration>,
    /// The variable that keeps what it yields.
    pub capture: Option<String>,
    /// The conditions without which it is skipped. Steps of one include share those of the include.
    pub when: Vec<Arc<When>>,
    /// How it is repeated if it fails.
    pub retry: Option<Retry>,
    /// The variables that only it has: those of `for_each`, and of the includes that it is in. One may refer to those before it.
    pub bindings: Bindings,
    /// Whether the next step checks the exit code of its process.
    pub exit_is_judged: bool,
    /// The included file that it is in, by its path from the scenario's folder; none for the scenario's own file.
    pub file: Option<String>,
    /// Its position in the file.
    pub place: Place,
}

/// The largest values of the variables that only a step has, together, bytes.
const LARGEST: usize = 1 << 20;

/// The variables of the `for_each` and `include` that a step is in, which its neighbours share.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bindings(Option<Arc<Scope>>);

#[derive(Debug, PartialEq)]
struct Scope {
    outer: Bindings,
    variables: Vec<(String, Template)>,
}

impl Bindings {
    /// These and others, which may refer to them.
    pub(super) fn with(&self, variables: Vec<(String, Template)>) -> Self {
        Bindings(Some(Arc::new(Scope { outer: self.clone(), variables })))
    }

    /// The variables with their values, the outermost first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &(String, Template)> {
        let mut scopes: Vec<_> =
            std::iter::successors(self.0.as_deref(), |scope| scope.outer.0.as_deref()).collect();
        scopes.reverse();
        scopes.into_iter().flat_map(|scope| &scope.variables)
    }

    /// The innermost one.
    pub(super) fn last(&self) -> Option<&(String, Template)> {
        self.iter().next_back()
    }
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A verb of the command line.
    Do(StepOperation),
    /// Compare what the step before yielded with what was expected.
    Assert(Assertion),
    /// Wait until a line of the VM's serial console matches.
    AwaitConsole(Matcher),
}

/// An operation with variables in it.
#[derive(Debug, Clone, PartialEq)]
pub enum StepOperation {
    /// Run a process in the guest.
    Exec(ExecTemplate),
    /// Send a command to QEMU's monitor, as words.
    Qmp(Vec<Template>),
    /// Send a command to the guest agent, as words.
    Qga(Vec<Template>),
    /// Change the VM's state.
    Lifecycle(LifecycleSpec),
    /// Ask for everything known of the VM.
    Info,
    /// Wait until a condition is met.
    Wait(WaitFor),
    /// Copy a file into the guest.
    Push {
        /// The file here.
        from: Template,
        /// Where it goes in the guest.
        to: Template,
    },
    /// Copy a file out of the guest.
    Pull {
        /// The file in the guest.
        from: Template,
        /// The folder here that it goes to, below `HOST/VM/`.
        to: Template,
    },
    /// Press keys, chord by chord.
    Key(Vec<Template>),
    /// Type a text on a US keyboard.
    Type(Template),
    /// Do something with the mouse.
    Mouse(Vec<Template>),
    /// Save a screenshot in this folder.
    Screenshot(Template),
}

impl Step {
    /// The operation it carries out, if it is one.
    pub fn operation(&self) -> Option<&StepOperation> {
        match &self.action {
            Action::Do(operation) => Some(operation),
            Action::Assert(_) | Action::AwaitConsole(_) => None,
        }
    }

    /// The name of what it does: that of an operation, or `assert`.
    pub fn op(&self) -> &'static str {
        match &self.action {
            Action::Do(operation) => operation.name(),
            Action::Assert(_) => "assert",
            Action::AwaitConsole(_) => wait::LOOK.name,
        }
    }

    /// Whether it needs what the VM's console has written.
    pub(super) fn needs_console(&self) -> bool {
        match &self.action {
            Action::AwaitConsole(_) => true,
            Action::Assert(assertion) => !assertion.no_fault_of.is_empty(),
            Action::Do(_) => false,
        }
    }

    /// The time for it, when a step without one may take `timeout`.
    pub(super) fn budget(&self, timeout: Duration) -> Duration {
        let attempt = self.timeout.unwrap_or(timeout);
        self.retry.map_or(attempt, |retry| retry.budget(attempt))
    }

    /// Gives the variables that only it has their values, as they are now. One that is made of the file's own values is such a
    /// value too; a variable that a step has captured is not the file's own any more. The error says which has no value, or that
    /// they are too large.
    pub(super) fn bind(&self, values: &mut Values, own: &mut Values) -> std::result::Result<(), String> {
        let (mut wrong, mut size) = (None, 0);
        for (name, template) in self.bindings.iter() {
            size += template.filled_size(values);
            if size > LARGEST {
                return Err(format!(
                    "the variables of for_each and include are larger than {} MiB",
                    LARGEST >> 20
                ));
            }
            match fill(template, values) {
                Ok(value) => {
                    if template.fill(own).is_ok_and(|of_file| of_file == value) {
                        own.insert(name.clone(), value.clone());
                    }
                    values.insert(name.clone(), value);
                }
                Err(reason) => wrong = wrong.or(Some(reason)),
            }
        }
        wrong.map_or(Ok(()), Err)
    }
}

/// A key that says what a step does.
pub(super) struct StepVerb {
    pub(super) field: Field,
    /// Reads the value of the key.
    pub(super) read: fn(&Node, &Names) -> Result<Action>,
}

const fn verb(field: Field, read: fn(&Node, &Names) -> Result<Action>) -> StepVerb {
    StepVerb { field, read }
}

/// What a step can do. A step has exactly one of these keys.
pub(super) const VERBS: &[StepVerb] = &[
    verb(exec::STEP, |node, names| Ok(StepOperation::Exec(exec::read(node, names)?).into())),
    verb(qmp::STEP, |node, names| Ok(StepOperation::Qmp(raw_command::read(node, names)?).into())),
    verb(qga::STEP, |node, names| Ok(StepOperation::Qga(raw_command::read(node, names)?).into())),
    verb(lifecycle::STEP, |node, _| {
        let change = lifecycle::read(node)?;
        Ok(change.map_or(StepOperation::Info, StepOperation::Lifecycle).into())
    }),
    verb(wait::STEP, |node, names| {
        Ok(match wait::console(node)? {
            Some(line) => Action::AwaitConsole(line),
            None => StepOperation::Wait(wait::read(node, names)?).into(),
        })
    }),
    verb(transfer::STEP, |node, names| {
        let operation = match transfer::read(node, names)? {
            CopyStep::Push(from, to) => StepOperation::Push { from, to },
            CopyStep::Pull(from, to) => StepOperation::Pull { from, to },
        };
        Ok(operation.into())
    }),
    verb(key::STEP, |node, names| Ok(StepOperation::Key(key::read(node, names)?).into())),
    verb(type_text::STEP, |node, names| Ok(StepOperation::Type(names.template(node)?).into())),
    verb(mouse::STEP, |node, names| Ok(StepOperation::Mouse(mouse::read(node, names)?).into())),
    verb(screenshot::STEP, |node, names| Ok(StepOperation::Screenshot(names.template(node)?).into())),
    verb(assertion::STEP, |node, names| Ok(Action::Assert(assertion::read(node, names)?))),
];

impl From<StepOperation> for Action {
    fn from(operation: StepOperation) -> Self {
        Action::Do(operation)
    }
}

/// The keys of a step: those that go with any verb, and the verbs.
pub(super) fn keys() -> Vec<Field> {
    let verbs = VERBS.iter().map(|verb| verb.field);
    fields::STEP.iter().copied().chain(verbs).chain([include::STEP]).collect()
}

/// The names of the verbs, and of what stands for steps.
pub(super) fn verb_names() -> Vec<&'static str> {
    VERBS.iter().map(|verb| verb.field.name).chain([include::STEP.name]).collect()
}

impl StepOperation {
    fn facts(&self) -> &'static VerbFacts {
        match self {
            StepOperation::Exec(_) => &exec::FACTS,
            StepOperation::Qmp(_) => &qmp::FACTS,
            StepOperation::Qga(_) => &qga::FACTS,
            StepOperation::Lifecycle(spec) => lifecycle::facts(spec),
            StepOperation::Info => &vm_info::FACTS,
            StepOperation::Wait(WaitFor::Exec(_)) => &wait::RUN,
            StepOperation::Wait(_) => &wait::LOOK,
            StepOperation::Push { .. } | StepOperation::Pull { .. } => &transfer::FACTS,
            StepOperation::Key(_) => &key::FACTS,
            StepOperation::Type(_) => &type_text::FACTS,
            StepOperation::Mouse(_) => &mouse::FACTS,
            StepOperation::Screenshot(_) => &screenshot::FACTS,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            StepOperation::Push { .. } => "push",
            StepOperation::Pull { .. } => "pull",
            other => other.facts().name,
        }
    }

    pub(super) fn is_disruptive(&self) -> bool {
        self.facts().disruptive
    }

    pub(super) fn only_looks(&self) -> bool {
        self.facts().only_looks
    }

    /// Whether it yields something that a variable can keep.
    pub(super) fn can_be_captured(&self) -> bool {
        matches!(
            self,
            StepOperation::Exec(_) | StepOperation::Qmp(_) | StepOperation::Qga(_) | StepOperation::Info
        )
    }

    /// The operation with values in it. Only the file's `own` values may say where files are on this machine, unless they are
    /// in other `places`. The error says what is wrong.
    pub(super) async fn fill(
        &self,
        values: &Values,
        own: &Values,
        places: Option<&FilePlaces>,
    ) -> Result<Operation, String> {
        Ok(match self {
            StepOperation::Exec(exec) => Operation::Exec(exec.fill(values)?),
            StepOperation::Qmp(words) => Operation::Qmp(raw_command::fill(words, values)?),
            StepOperation::Qga(words) => Operation::Qga(raw_command::fill(words, values)?),
            StepOperation::Lifecycle(spec) => Operation::Lifecycle(*spec),
            StepOperation::Info => Operation::VmInfo,
            StepOperation::Wait(wait) => Operation::Wait(wait.fill(values)?),
            StepOperation::Push { from, to } => {
                let path = fill_path(from, values, own)?;
                let path = places.map_or(Ok(path.clone()), |places| places.source(&path))?;
                Operation::Push(PreparedPush::fill(path, to, values).await?)
            }
            StepOperation::Pull { from, to } => {
                let mut spec = pull::filled(from, to, values, own)?;
                if let Some(places) = places {
                    spec.destination = places.folder_for(&spec.destination)?;
                }
                Operation::Pull(spec)
            }
            StepOperation::Key(chords) => Operation::Key(key::fill(chords, values)?),
            StepOperation::Type(text) => Operation::Type(type_text::fill(text, values)?),
            StepOperation::Mouse(words) => Operation::Mouse(mouse::fill(words, values)?),
            StepOperation::Screenshot(folder) => {
                let mut spec = screenshot::fill(folder, values, own)?;
                if let Some(places) = places {
                    spec.folder = places.folder_for(&spec.folder)?;
                }
                Operation::Screenshot(spec)
            }
        })
    }
}
