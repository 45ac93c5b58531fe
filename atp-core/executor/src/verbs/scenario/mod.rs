//! Scenarios: steps that every target goes through, written in a file.
//!
//! ```
//! let scenario: atp_executor::Scenario = r#"
//! name: kernel
//! targets: web-*
//! steps:
//!   - wait: agent
//!     timeout: 30s
//!   - exec: uname -r
//!     capture: kernel
//!   - assert:
//!       stdout: '^6\.'
//! teardown:
//!   - exec: echo ${kernel} is what ${vm} runs
//! "#
//! .parse()?;
//! assert_eq!((scenario.name(), scenario.steps().len()), ("kernel", 3));
//! # Ok::<(), atp_executor::ScenarioError>(())
//! ```
//!
//! A scenario is an operation like others ([`Operation::Scenario`](crate::Operation::Scenario)): each target goes through
//! its steps independently and has one outcome, with the result of each step in its data. Limits, batches, deadlines,
//! journals and early ends are those of any run. The format is described in
//! `docs/scenarios.md`; [`schema`] gives it to editors.

mod assertion;
mod console;
mod control;
mod error;
mod evidence;
pub(super) mod fields;
mod files;
mod include;
pub(super) mod node;
mod parse;
mod places;
pub(super) mod read;
pub(super) mod report;
mod run;
mod schema;
mod screen;
mod step;
mod steps;
pub(super) mod template;

use std::collections::BTreeMap;
use std::iter::repeat_n;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use atp_api::{LabelFilter, ScenarioReport, ScenarioSpec, StateFilter};
use atp_transport::HostId;

use crate::selection::Selection;
use crate::selector::Selector;

pub use self::assertion::{Assertion, FileAssertion, Matcher};
pub use self::control::{Retry, When};
pub use self::error::{Place, ScenarioError};
pub use self::evidence::Evidence;
pub use self::places::FilePlaces;
pub use self::schema::schema;
pub use self::screen::ScreenAssertion;
pub use self::step::{Action, Step, StepOperation};
pub use self::template::Template;

pub(super) use self::run::{perform, undo};

use self::error::nearest;
use self::template::Values;
use super::facts::VerbFacts;

/// A scenario, parsed and checked. Parse it from the text of its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// The text of the file, and the variables that were set.
    spec: ScenarioSpec,
    name: String,
    description: Option<String>,
    variables: Values,
    targets: Vec<(Place, Template)>,
    exclude: Vec<(Place, Template)>,
    state: StateFilter,
    labels: BTreeMap<String, (Place, Template)>,
    evidence: Option<Evidence>,
    /// The snapshot that each VM is taken back to before the first step and at every end.
    isolate: Option<Template>,
    steps: Vec<Step>,
    teardown: Vec<Step>,
    /// Where its files are, if not where its steps say.
    places: Option<FilePlaces>,
}

/// The facts are those of the scenario's steps.
pub(super) fn facts(scenario: &Scenario) -> &'static VerbFacts {
    const CHANGE: VerbFacts = VerbFacts::change("run");
    match (scenario.is_disruptive(), scenario.only_looks()) {
        (true, _) => &VerbFacts { disruptive: true, ..CHANGE },
        (false, true) => &VerbFacts { only_looks: true, ..CHANGE },
        (false, false) => &CHANGE,
    }
}

/// The variables that are properties of each target.
const OWN: [&str; 3] = ["host", "uuid", "vm"];

impl Scenario {
    /// Reads a scenario's file, and the files that it includes.
    ///
    /// # Errors
    /// All that is wrong with them; at least one.
    pub fn load(path: &Path) -> Result<Self, Vec<ScenarioError>> {
        let text = include::read_text(path).map_err(|error| {
            let message = format!("the file cannot be read: {error}");
            vec![ScenarioError { file: None, place: None, message, hint: None }]
        })?;
        parse::scenario(&text, &mut include::of_folder(path.parent().unwrap_or(Path::new(""))))
    }

    /// The report of a target on which nothing is begun.
    pub fn not_begun(&self) -> ScenarioReport {
        ScenarioReport {
            scenario: self.name().to_owned(),
            steps: Vec::new(),
            steps_total: self.steps().len(),
            teardown: Vec::new(),
            teardown_total: self.teardown().len(),
            console: None,
            evidence: None,
            isolated: None,
        }
    }

    /// Whether a file has a list of steps, which scenarios include, and is no scenario.
    pub fn is_included_file(path: &Path) -> bool {
        include::read_text(path).is_ok_and(|text| include::is_steps(&text))
    }

    /// Parses a scenario and gives variables other values.
    ///
    /// # Errors
    /// As those of parsing, and of [`set`](Self::set); or it has files of a service, which only
    /// [`with_places`](Self::with_places) gives it.
    pub fn prepare(spec: &ScenarioSpec) -> Result<Self, ScenarioError> {
        if spec.files.is_some() {
            return Err(ScenarioError {
                file: None,
                place: None,
                message: "the field `files` is for a service: here steps read the files that they name"
                    .to_owned(),
                hint: None,
            });
        }
        let parsed = parse::scenario(&spec.text, &mut include::of_texts(&spec.included));
        let mut scenario = parsed.map_err(first)?;
        for (name, value) in &spec.variables {
            scenario.set(name, value)?;
        }
        Ok(scenario)
    }

    /// What it was made from.
    pub fn spec(&self) -> &ScenarioSpec {
        &self.spec
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is for.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// What each target goes through, until a step fails.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What each target goes through at the end in any case.
    pub fn teardown(&self) -> &[Step] {
        &self.teardown
    }

    /// What is collected if a step fails.
    pub fn evidence(&self) -> Option<&Evidence> {
        self.evidence.as_ref()
    }

    /// Whether the VM's console is captured.
    fn needs_console(&self) -> bool {
        self.evidence.as_ref().is_some_and(|evidence| evidence.console.is_some())
            || self.all_steps().any(Step::needs_console)
    }

    /// Gives a variable another value than the file does.
    ///
    /// # Errors
    /// The file has no such variable.
    pub fn set(&mut self, name: &str, value: impl Into<String>) -> Result<(), ScenarioError> {
        match self.variables.get_mut(name) {
            Some(variable) => {
                *variable = value.into();
                self.spec.variables.insert(name.to_owned(), variable.clone());
            }
            None => {
                return Err(ScenarioError {
                    file: None,
                    place: None,
                    message: format!("the scenario has no variable {name:?}"),
                    hint: Some(nearest(name, self.variables.keys().map(String::as_str))),
                });
            }
        }
        Ok(())
    }

    /// The VMs it is for.
    ///
    /// # Errors
    /// With its variables filled in, a selector is not valid.
    pub fn selection(&self) -> Result<Selection, ScenarioError> {
        let selectors = |templates: &[(Place, Template)]| {
            let selector = |(place, template): &(Place, Template)| {
                let text = self.fill(*place, template)?;
                text.parse::<Selector>()
                    .map_err(|error| ScenarioError::at(*place, error.to_string()).with_hint(error.hint()))
            };
            templates.iter().map(selector).collect::<Result<Vec<_>, _>>()
        };
        let label = |(key, (place, template)): (&String, &(Place, Template))| {
            Ok(LabelFilter { key: key.clone(), value: self.fill(*place, template)? })
        };
        Ok(Selection {
            selectors: selectors(&self.targets)?,
            exclude: selectors(&self.exclude)?,
            state: self.state,
            labels: self.labels.iter().map(label).collect::<Result<_, _>>()?,
        })
    }

    /// Whether each VM is taken back to a snapshot before the first step and at every end.
    pub fn is_isolated(&self) -> bool {
        self.isolate.is_some()
    }

    /// Whether a step takes a running VM away from its users, or what they wrote is lost.
    pub fn is_disruptive(&self) -> bool {
        self.is_isolated()
            || self.all_steps().any(|step| step.operation().is_some_and(StepOperation::is_disruptive))
    }

    /// Whether all steps only look.
    pub fn only_looks(&self) -> bool {
        !self.is_isolated()
            && self.all_steps().all(|step| match &step.action {
                Action::Do(operation) => operation.only_looks(),
                Action::Assert(_) | Action::AwaitConsole(_) => true,
            })
            // A command for evidence may do anything in the guest.
            && self.evidence.as_ref().is_none_or(|evidence| evidence.commands.is_empty())
    }

    /// The maximum time for a target, if a step without its own time may take `timeout`.
    pub fn budget(&self, timeout: Duration) -> Duration {
        let reverts = if self.is_isolated() { 2 } else { 0 };
        let times = self.all_steps().map(|step| step.budget(timeout)).chain(repeat_n(timeout, reverts));
        let steps = times.fold(Duration::ZERO, Duration::saturating_add).max(timeout);
        let evidence = self.evidence.as_ref().map_or(Duration::ZERO, |_| evidence::TIME);
        steps.saturating_add(evidence)
    }

    fn all_steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().chain(&self.teardown)
    }

    fn fill(&self, place: Place, template: &Template) -> Result<String, ScenarioError> {
        template.fill(&self.variables).map_err(|reason| {
            ScenarioError::at(place, reason.to_string())
                .with_hint("the selection of VMs can only use the variables of the file")
        })
    }

    /// The values that a target begins with.
    fn values(&self, host: &HostId, vm: &str, uuid: &str) -> Values {
        let own = OWN.into_iter().zip([host.as_str(), uuid, vm]);
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.variables.clone().into_iter().chain(own).collect()
    }
}

impl FromStr for Scenario {
    type Err = ScenarioError;

    fn from_str(text: &str) -> Result<Self, ScenarioError> {
        let mut none =
            |_: &str| Err("only a scenario that is read from a file can include others".to_owned());
        parse::scenario(text, &mut none).map_err(first)
    }
}

/// The first of the problems of a file.
fn first(problems: Vec<ScenarioError>) -> ScenarioError {
    problems.into_iter().next().unwrap_or_else(|| ScenarioError {
        file: None,
        place: None,
        message: "it is not a scenario".to_owned(),
        hint: None,
    })
}
