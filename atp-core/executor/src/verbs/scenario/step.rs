//! One step of a scenario.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use atp_protocol::files::Source;
use atp_protocol::input::{Chord, Layout, MouseAction, MouseTiming};
use atp_protocol::screenshot::ScreenshotLimits;
use atp_protocol::{ExecSpec, RawCommand};
use atp_transport::domain::DomainState;
use regex::Regex;

use super::error::Place;
use super::template::{Template, Values};
use crate::verbs::{
    Condition, KeySpec, LifecycleSpec, MouseSpec, Operation, PullSpec, PushSpec, ScreenshotSpec,
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
    /// The variable that what it yields is kept in.
    pub capture: Option<String>,
    /// Whether the step after it judges how its process exited.
    pub exit_is_judged: bool,
    /// Where it stands in the file.
    pub place: Place,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A verb of the command line.
    Do(StepOperation),
    /// Compare what the step before yielded with what was expected.
    Assert(Assertion),
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
    /// Wait until something is so.
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
    /// Type a text, on a US keyboard.
    Type(Template),
    /// Do something with the mouse.
    Mouse(Vec<Template>),
    /// Take a picture of the screen, into this folder.
    Screenshot(Template),
}

/// A process to run in the guest, with variables in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecTemplate {
    /// The program and its arguments; or one text, for the guest's shell.
    pub words: Vec<Template>,
    /// Whether it is for the guest's shell.
    pub shell: bool,
    /// Variables of its environment.
    pub env: Vec<(String, Template)>,
    /// What it reads.
    pub stdin: Option<Template>,
}

/// What a step waits for.
#[derive(Debug, Clone, PartialEq)]
pub enum WaitFor {
    /// The guest agent answers.
    Agent,
    /// The VM is in this state.
    State(DomainState),
    /// The process exits with code 0.
    Exec(ExecTemplate),
}

/// What is expected of the step before, or of the VM. All of it has to be so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assertion {
    /// The exit code of its process.
    pub exit_code: Option<i32>,
    /// Its standard output; of a step that is no process, what it yielded, as JSON.
    pub stdout: Option<Matcher>,
    /// Its standard error.
    pub stderr: Option<Matcher>,
    /// The state that the VM is in now.
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

impl Step {
    /// The operation it carries out, if it is one.
    pub fn operation(&self) -> Option<&StepOperation> {
        match &self.action {
            Action::Do(operation) => Some(operation),
            Action::Assert(_) => None,
        }
    }

    /// The name of what it does: that of an operation, or `assert`.
    pub fn op(&self) -> &'static str {
        match &self.action {
            Action::Do(operation) => operation.name(),
            Action::Assert(_) => "assert",
        }
    }

    /// The time for it, when a step without one may take `timeout`.
    pub(super) fn budget(&self, timeout: Duration) -> Duration {
        self.timeout.unwrap_or(timeout)
    }
}

impl StepOperation {
    fn name(&self) -> &'static str {
        match self {
            StepOperation::Exec(_) => "exec",
            StepOperation::Qmp(_) => "qmp",
            StepOperation::Qga(_) => "qga",
            StepOperation::Info => Operation::VmInfo.name(),
            StepOperation::Wait(_) => "wait",
            StepOperation::Push { .. } => "push",
            StepOperation::Pull { .. } => "pull",
            StepOperation::Key(_) => "key",
            StepOperation::Type(_) => "type",
            StepOperation::Mouse(_) => "mouse",
            StepOperation::Screenshot(_) => "screenshot",
            StepOperation::Lifecycle(spec) => Operation::Lifecycle(*spec).name(),
        }
    }

    pub(super) fn is_disruptive(&self) -> bool {
        match self {
            StepOperation::Lifecycle(spec) => Operation::Lifecycle(*spec).is_disruptive(),
            _ => false,
        }
    }

    pub(super) fn only_looks(&self) -> bool {
        match self {
            StepOperation::Info | StepOperation::Screenshot(_) => true,
            StepOperation::Wait(what) => !matches!(what, WaitFor::Exec(_)),
            _ => false,
        }
    }

    /// The operation with values in it; of these, the file's `own` may say where files are here. The error says what
    /// is wrong.
    pub(super) async fn fill(&self, values: &Values, own: &Values) -> Result<Operation, String> {
        Ok(match self {
            StepOperation::Exec(exec) => Operation::Exec(exec.fill(values)?),
            StepOperation::Qmp(words) => Operation::Qmp(command(words, values)?),
            StepOperation::Qga(words) => Operation::Qga(command(words, values)?),
            StepOperation::Info => Operation::VmInfo,
            StepOperation::Wait(what) => Operation::Wait(match what {
                WaitFor::Agent => Condition::Agent,
                WaitFor::State(state) => Condition::State(*state),
                WaitFor::Exec(exec) => Condition::Exec(exec.fill(values)?),
            }),
            StepOperation::Push { from, to } => {
                let path = fill_path(from, values, own)?;
                let source = Source::open(&path).await;
                let source =
                    source.map_err(|error| format!("{} cannot be copied: {error}", path.display()))?;
                let destination = fill(to, values)?;
                Operation::Push(PushSpec { source: Arc::new(source), local_path: path, destination })
            }
            StepOperation::Pull { from, to } => {
                let (path, destination) = (fill(from, values)?, fill_path(to, values, own)?);
                Operation::Pull(PullSpec { path, destination, separate: true })
            }
            StepOperation::Key(chords) => {
                Operation::Key(KeySpec::new(parse_chords(&fill_all(chords, values)?)?))
            }
            StepOperation::Type(text) => {
                let spec = KeySpec::of_text(&fill(text, values)?, Layout::US);
                Operation::Type(spec.map_err(|error| error.to_string())?)
            }
            StepOperation::Mouse(words) => {
                let action = parse_mouse(&fill_all(words, values)?)?;
                Operation::Mouse(MouseSpec { action, timing: MouseTiming::default() })
            }
            StepOperation::Screenshot(folder) => Operation::Screenshot(ScreenshotSpec {
                folder: fill_path(folder, values, own)?,
                screen: 0,
                limits: ScreenshotLimits::default(),
            }),
            StepOperation::Lifecycle(spec) => Operation::Lifecycle(*spec),
        })
    }
}

impl ExecTemplate {
    /// The process with values in it. The error says what is wrong.
    pub(super) fn fill(&self, values: &Values) -> Result<ExecSpec, String> {
        let mut words = fill_all(&self.words, values)?.into_iter();
        let env = self.env.iter().map(|(name, value)| Ok((name.clone(), fill(value, values)?)));
        Ok(ExecSpec {
            program: words.next().unwrap_or_default(),
            args: words.collect(),
            env: env.collect::<Result<_, String>>()?,
            stdin: self.stdin.as_ref().map(|text| fill(text, values)).transpose()?.map(String::into_bytes),
            shell: self.shell,
            ..ExecSpec::default()
        })
    }
}

/// Chords from their words.
pub(super) fn parse_chords(words: &[String]) -> Result<Vec<Chord>, String> {
    words.iter().map(|word| word.parse::<Chord>().map_err(|error| error.to_string())).collect()
}

/// What the mouse does, from its words.
pub(super) fn parse_mouse(words: &[String]) -> Result<MouseAction, String> {
    MouseAction::from_words(words).map_err(|error| error.to_string())
}

fn command(words: &[Template], values: &Values) -> Result<RawCommand, String> {
    RawCommand::from_words(fill_all(words, values)?).map_err(|error| error.to_string())
}

fn fill_all(templates: &[Template], values: &Values) -> Result<Vec<String>, String> {
    templates.iter().map(|template| fill(template, values)).collect()
}

/// A path here. What a guest said, or what a VM is called, is one name in it at most: it does not lead elsewhere.
fn fill_path(template: &Template, values: &Values, own: &Values) -> Result<PathBuf, String> {
    let is_name = |value: &str| !matches!(value, "" | "." | "..") && !value.contains(['/', '\0']);
    for name in template.variables() {
        let value = values.get(name).filter(|value| own.get(name) != Some(value));
        if let Some(value) = value.filter(|value| !is_name(value)) {
            return Err(format!(
                "the variable {name:?} is {value:?} and stands in a path of this machine, where only variables of \
                 the file may be more than the name of a file"
            ));
        }
    }
    fill(template, values).map(PathBuf::from)
}

fn fill(template: &Template, values: &Values) -> Result<String, String> {
    template.fill(values).map_err(|name| format!("the variable {name:?} has no value: no step captured it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_here_is_led_elsewhere_by_the_file_alone() {
        let own = Values::from([("base".to_owned(), "../out".to_owned())]);
        let path = |text: &str, said: &str| {
            let said = ("said".to_owned(), said.to_owned());
            let values = own.clone().into_iter().chain([said]).collect();
            fill_path(&Template::parse(text).unwrap(), &values, &own)
        };
        assert_eq!(path("${base}/${said}.txt", "web-1"), Ok(PathBuf::from("../out/web-1.txt")));
        assert_eq!(path("${base}/x", "/etc/passwd"), Ok(PathBuf::from("../out/x")));
        for said in ["", ".", "..", "/etc/passwd", "../../x", "a/b"] {
            let error = path("${base}/${said}", said).unwrap_err();
            assert!(error.contains("\"said\"") && error.contains(&format!("{said:?}")), "{error}");
        }
    }
}
