//! From YAML to a scenario, with errors that say where and what was expected.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use atp_protocol::RawCommand;
use atp_transport::domain::{DomainState, Lifecycle};
use atp_transport::settings::{DurationError, parse_duration};
use regex::Regex;

use super::error::{Place, ScenarioError, nearest};
use super::fields::{
    ASSERT, CP, EXEC_MAP, Field, SCENARIO, STATES, STEP, VERBS, VM_ACTIONS, VM_MAP, WAIT_MAP,
};
use super::node::{Kind, Node, Value};
use super::step::{
    Action, Assertion, ExecTemplate, Matcher, Step, StepOperation, WaitFor, parse_chords, parse_mouse,
};
use super::template::{Template, Values, is_name};
use super::{OWN, Scenario};
use crate::selection::StateFilter;
use crate::verbs::LifecycleSpec;

type Result<T, E = ScenarioError> = std::result::Result<T, E>;

pub(super) fn scenario(text: &str) -> Result<Scenario> {
    let root = Node::parse(text)?;
    let top = Keys::of(&root, SCENARIO, "a scenario")?;
    let mut variables = Values::new();
    for (place, name, value) in named(top.get("variables"))? {
        if OWN.contains(&name) || !is_name(name) {
            let hint = "letters, digits and _, and not host, vm or uuid, which every VM has of its own";
            return Err(
                ScenarioError::at(place, format!("a variable cannot be named {name:?}")).with_hint(hint)
            );
        }
        variables.insert(name.to_owned(), scalar(value)?);
    }
    let mut names = Names { known: OWN.into_iter().map(str::to_owned).collect() };
    names.known.extend(variables.keys().cloned());

    let file_only = Names { known: variables.keys().cloned().collect() };
    let selectors = |node: Option<&Node>| {
        let texts = node.map(texts).transpose()?.unwrap_or_default();
        texts.into_iter().map(|node| Ok((node.place, file_only.template(node)?))).collect::<Result<Vec<_>>>()
    };
    let mut labels = BTreeMap::new();
    for (_, key, value) in named(top.get("labels"))? {
        labels.insert(key.to_owned(), (value.place, file_only.template(value)?));
    }
    let state = match top.get("state") {
        Some(node) => {
            let words = ["any", "running", "shut-off", "paused"];
            choice(node, &words)?.parse().unwrap_or(StateFilter::Any)
        }
        None => StateFilter::Any,
    };
    let scenario = Scenario {
        name: scalar(top.need("name")?)?,
        description: top.get("description").map(scalar).transpose()?,
        targets: selectors(Some(top.need("targets")?))?,
        exclude: selectors(top.get("exclude"))?,
        state,
        labels,
        steps: steps(top.need("steps")?, &mut names)?,
        // In the teardown it is not known how far a target got: what is not there then is told then.
        teardown: top.get("teardown").map(|node| steps(node, &mut names)).transpose()?.unwrap_or_default(),
        variables,
    };
    // What can be known to be no selector is told with its place.
    scenario.selection()?;
    Ok(scenario)
}

/// The names that a text may refer to.
struct Names {
    known: BTreeSet<String>,
}

impl Names {
    fn template(&self, node: &Node) -> Result<Template> {
        self.text_template(&scalar(node)?, node.place)
    }

    fn text_template(&self, text: &str, place: Place) -> Result<Template> {
        let template = Template::parse(text).map_err(|message| ScenarioError::at(place, message))?;
        for name in template.variables() {
            if !self.known.contains(name) {
                return Err(ScenarioError::at(place, format!("there is no variable {name:?} here"))
                    .with_hint(nearest(name, self.known.iter().map(String::as_str))));
            }
        }
        Ok(template)
    }

    fn capture(&mut self, node: &Node) -> Result<String> {
        let name = scalar(node)?;
        if !is_name(&name) || OWN.contains(&name.as_str()) {
            return Err(ScenarioError::at(node.place, format!("a variable cannot be named {name:?}")));
        }
        self.known.insert(name.clone());
        Ok(name)
    }
}

fn steps(node: &Node, names: &mut Names) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    for node in list(node, "steps")? {
        let step = step(node, names)?;
        if let Action::Assert(assertion) = &step.action {
            let judged = steps.iter_mut().rev().find(|step| !matches!(step.action, Action::Assert(_)));
            let is_exec =
                judged.as_ref().is_some_and(|step| matches!(step.action, Action::Do(StepOperation::Exec(_))));
            if (assertion.exit_code.is_some() || assertion.stderr.is_some()) && !is_exec {
                return Err(ScenarioError::at(
                    node.place,
                    "exit_code and stderr are of an exec step just before",
                ));
            }
            match judged {
                Some(judged) => judged.exit_is_judged |= assertion.exit_code.is_some(),
                None if assertion.stdout.is_some() => {
                    return Err(ScenarioError::at(
                        node.place,
                        "no step before yields what this could look at",
                    ));
                }
                None => {}
            }
        }
        steps.push(step);
    }
    Ok(steps)
}

fn step(node: &Node, names: &mut Names) -> Result<Step> {
    let keys = Keys::of(node, STEP, "a step")?;
    let verbs: Vec<_> = VERBS.iter().filter_map(|verb| Some((*verb, keys.get(verb)?))).collect();
    let (verb, what) = match verbs[..] {
        [only] => only,
        [] => {
            return Err(ScenarioError::at(node.place, "a step has to do something")
                .with_hint(format!("one of {}", VERBS.join(", "))));
        }
        [_, (second, at), ..] => {
            return Err(ScenarioError::at(
                at.place,
                format!("a step does one thing, and this is a second: {second}"),
            )
            .with_hint("make it a step of its own"));
        }
    };
    let action = match verb {
        "exec" => Action::Do(StepOperation::Exec(exec(what, names)?)),
        "qmp" => Action::Do(StepOperation::Qmp(command(what, names)?)),
        "qga" => Action::Do(StepOperation::Qga(command(what, names)?)),
        "vm" => Action::Do(vm(what)?),
        "wait" => Action::Do(StepOperation::Wait(wait_for(what, names)?)),
        "cp" => Action::Do(copy(what, names)?),
        "key" => Action::Do(StepOperation::Key(words(what, names, |words| parse_chords(words).map(drop))?)),
        "type" => Action::Do(StepOperation::Type(names.template(what)?)),
        "mouse" => {
            Action::Do(StepOperation::Mouse(words(what, names, |words| parse_mouse(words).map(drop))?))
        }
        "screenshot" => Action::Do(StepOperation::Screenshot(names.template(what)?)),
        _ => Action::Assert(assertion(what)?),
    };
    let capture = match keys.get("capture") {
        Some(node) if yields(&action) => Some(names.capture(node)?),
        Some(node) => return Err(ScenarioError::at(node.place, format!("{verb} yields nothing to keep"))),
        None => None,
    };
    let mut step = Step {
        name: String::new(),
        action,
        timeout: keys.get("timeout").map(duration).transpose()?,
        capture,
        exit_is_judged: false,
        place: node.place,
    };
    step.name = keys.get("name").map(scalar).transpose()?.unwrap_or_else(|| step.op().to_owned());
    Ok(step)
}

/// Whether there is something to keep of what a step does.
fn yields(action: &Action) -> bool {
    let Action::Do(operation) = action else { return false };
    matches!(
        operation,
        StepOperation::Exec(_) | StepOperation::Qmp(_) | StepOperation::Qga(_) | StepOperation::Info
    )
}

fn copy(node: &Node, names: &Names) -> Result<StepOperation> {
    let keys = Keys::of(node, CP, "cp")?;
    let to = names.template(keys.need("to")?)?;
    match (keys.get("push"), keys.get("pull")) {
        (Some(from), None) => Ok(StepOperation::Push { from: names.template(from)?, to }),
        (None, Some(from)) => Ok(StepOperation::Pull { from: names.template(from)?, to }),
        _ => Err(ScenarioError::at(node.place, "cp is one way: push a file, or pull one")),
    }
}

fn exec(node: &Node, names: &Names) -> Result<ExecTemplate> {
    let Value::Map(_) = node.value else {
        return process(node, Vec::new(), None, names);
    };
    let keys = Keys::of(node, EXEC_MAP, "exec")?;
    let env = named(keys.get("env"))?.into_iter().map(|(place, name, value)| {
        if name.is_empty() || name.contains('=') {
            return Err(ScenarioError::at(
                place,
                format!("{name:?} is not the name of an environment variable"),
            ));
        }
        Ok((name.to_owned(), names.template(value)?))
    });
    let stdin = keys.get("stdin").map(|node| names.template(node)).transpose()?;
    process(keys.need("command")?, env.collect::<Result<_>>()?, stdin, names)
}

/// A line for the shell, or words.
fn process(
    node: &Node,
    env: Vec<(String, Template)>,
    stdin: Option<Template>,
    names: &Names,
) -> Result<ExecTemplate> {
    let shell = !matches!(node.value, Value::List(_));
    let words = texts(node)?.into_iter().map(|word| names.template(word)).collect::<Result<_>>()?;
    Ok(ExecTemplate { words, shell, env, stdin })
}

fn command(node: &Node, names: &Names) -> Result<Vec<Template>> {
    words(node, names, |words| RawCommand::from_words(words).map(drop).map_err(|error| error.to_string()))
}

/// Words of a list, or of a text. Those without variables are checked here.
fn words(
    node: &Node,
    names: &Names,
    check: impl Fn(&[String]) -> std::result::Result<(), String>,
) -> Result<Vec<Template>> {
    let words: Vec<(Place, String)> = match &node.value {
        Value::List(_) => {
            texts(node)?.into_iter().map(|word| Ok((word.place, scalar(word)?))).collect::<Result<_>>()?
        }
        _ => scalar(node)?.split_whitespace().map(|word| (node.place, word.to_owned())).collect(),
    };
    let templates: Vec<_> =
        words.iter().map(|(place, word)| names.text_template(word, *place)).collect::<Result<_>>()?;
    if templates.iter().all(|template| template.variables().next().is_none()) {
        let words: Vec<_> = words.into_iter().map(|(_, word)| word).collect();
        check(&words).map_err(|message| ScenarioError::at(node.place, message))?;
    }
    Ok(templates)
}

fn vm(node: &Node) -> Result<StepOperation> {
    let (action, wait) = match &node.value {
        Value::Map(_) => {
            let keys = Keys::of(node, VM_MAP, "vm")?;
            (keys.need("action")?, keys.get("wait").map(truth).transpose()?.unwrap_or(false))
        }
        _ => (node, false),
    };
    let action = match choice(action, VM_ACTIONS)? {
        "start" => Lifecycle::Start,
        "shutdown" => Lifecycle::Shutdown,
        "reboot" => Lifecycle::Reboot,
        "reset" => Lifecycle::Reset,
        "destroy" => Lifecycle::Destroy,
        "suspend" => Lifecycle::Suspend,
        "resume" => Lifecycle::Resume,
        _ => return Ok(StepOperation::Info),
    };
    Ok(StepOperation::Lifecycle(LifecycleSpec { action, wait }))
}

fn wait_for(node: &Node, names: &Names) -> Result<WaitFor> {
    let Value::Map(_) = node.value else {
        choice(node, &["agent"])
            .map_err(|error| error.with_hint("agent, or state: STATE, or exec: COMMAND"))?;
        return Ok(WaitFor::Agent);
    };
    let keys = Keys::of(node, WAIT_MAP, "wait")?;
    match (keys.get("state"), keys.get("exec")) {
        (Some(node), None) => Ok(WaitFor::State(state(node)?)),
        (None, Some(node)) => Ok(WaitFor::Exec(exec(node, names)?)),
        _ => Err(ScenarioError::at(node.place, "wait is for one thing: a state, or a command")),
    }
}

fn assertion(node: &Node) -> Result<Assertion> {
    let keys = Keys::of(node, ASSERT, "assert")?;
    if keys.entries.is_empty() {
        return Err(ScenarioError::at(node.place, "an assert has to expect something")
            .with_hint("exit_code, stdout, stderr or state"));
    }
    let matcher = |node: &Node| {
        let text = scalar(node)?;
        Regex::new(&text).map(Matcher).map_err(|error| {
            // The crate draws the expression with a marker below it; its last line is the reason.
            let message = error.to_string();
            let reason = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
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

/// A mapping of which the keys are known.
struct Keys<'a> {
    place: Place,
    what: &'static str,
    entries: Vec<(&'a str, &'a Node)>,
}

impl<'a> Keys<'a> {
    fn of(node: &'a Node, fields: &[Field], what: &'static str) -> Result<Self> {
        let Value::Map(map) = &node.value else {
            return Err(expected(node, &format!("{what} with its keys")));
        };
        let mut entries: Vec<(&str, &Node)> = Vec::new();
        for (key, value) in map {
            if !fields.iter().any(|field| field.name == key.name) {
                return Err(ScenarioError::at(key.place, format!("{what} has no key {:?}", key.name))
                    .with_hint(nearest(&key.name, fields.iter().map(|field| field.name))));
            }
            if entries.iter().any(|(name, _)| *name == key.name) {
                return Err(ScenarioError::at(key.place, format!("the key {:?} is there twice", key.name)));
            }
            entries.push((&key.name, value));
        }
        Ok(Keys { place: node.place, what, entries })
    }

    fn get(&self, name: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(key, _)| *key == name).map(|(_, node)| *node)
    }

    fn need(&self, name: &'static str) -> Result<&'a Node> {
        self.get(name)
            .ok_or_else(|| ScenarioError::at(self.place, format!("{} needs the key {name:?}", self.what)))
    }
}

/// The entries of a mapping with names of one's own.
fn named(node: Option<&Node>) -> Result<Vec<(Place, &str, &Node)>> {
    match node.map(|node| (node, &node.value)) {
        None | Some((_, Value::Nothing)) => Ok(Vec::new()),
        Some((_, Value::Map(map))) => {
            Ok(map.iter().map(|(key, value)| (key.place, key.name.as_str(), value)).collect())
        }
        Some((node, _)) => Err(expected(node, "a mapping of names to texts")),
    }
}

fn list<'a>(node: &'a Node, what: &str) -> Result<&'a [Node]> {
    match &node.value {
        Value::List(items) if !items.is_empty() => Ok(items),
        Value::List(_) => Err(ScenarioError::at(node.place, format!("a list of {what} without any"))),
        _ => Err(expected(node, &format!("a list of {what}"))),
    }
}

/// A text by itself, or those of a list.
fn texts(node: &Node) -> Result<Vec<&Node>> {
    match &node.value {
        Value::List(_) => Ok(list(node, "texts")?.iter().collect()),
        _ => Ok(vec![node]),
    }
}

fn scalar(node: &Node) -> Result<String> {
    match &node.value {
        Value::Scalar(text, _) if !text.is_empty() => Ok(text.clone()),
        Value::Scalar(_, Kind::Text) => Ok(String::new()),
        _ => Err(expected(node, "text")),
    }
}

fn integer(node: &Node) -> Result<i32> {
    scalar(node)?.parse().map_err(|_| expected(node, "a whole number"))
}

fn truth(node: &Node) -> Result<bool> {
    match node.value {
        Value::Scalar(_, Kind::Bool(truth)) => Ok(truth),
        _ => Err(expected(node, "true or false")),
    }
}

fn duration(node: &Node) -> Result<Duration> {
    match parse_duration(&scalar(node)?) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        Err(error @ DurationError::TooLong) => Err(ScenarioError::at(node.place, error.to_string())),
        _ => Err(expected(node, "a time such as 30s, 2m or 500ms")),
    }
}

fn choice<'a>(node: &Node, words: &[&'a str]) -> Result<&'a str> {
    let text = scalar(node)?;
    words.iter().find(|word| **word == text).copied().ok_or_else(|| {
        ScenarioError::at(node.place, format!("{text:?} is none of {}", words.join(", ")))
            .with_hint(nearest(&text, words.iter().copied()))
    })
}

fn state(node: &Node) -> Result<DomainState> {
    Ok(match choice(node, STATES)? {
        "running" => DomainState::Running,
        "paused" => DomainState::Paused,
        _ => DomainState::ShutOff,
    })
}

fn expected(node: &Node, what: &str) -> ScenarioError {
    ScenarioError::at(node.place, format!("expected {what}, not {}", node.kind()))
}
