//! Reading the steps of a scenario: each with all that its keys say, those of included files in the place of their `include`, and
//! those of a `for_each` once for each value.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use super::control::{Retry, When};
use super::error::{Place, ScenarioError};
use super::include::{self, Include, Source};
use super::node::Node;
use super::read::{Keys, Names, Result, duration, expected, list, named, scalar};
use super::step::{self, Action, Bindings, Step, StepOperation};
use super::template::Template;

/// The most steps of a scenario, with its includes, those that fail too: files that include others for each of many values take
/// neither the time nor the memory.
const MOST_STEPS: usize = 10_000;
/// The most files that a scenario includes.
const MOST_FILES: usize = 1_000;
/// The most problems that are looked for.
const MOST_PROBLEMS: usize = 200;
/// The largest text of all of them together, and that of all steps as they are carried out, bytes.
const LARGEST: usize = 32 << 20;
/// The most files that include each other, one in the other.
const DEEPEST: usize = 16;

/// Reads steps, and notes problems.
pub(super) struct StepReader<'a> {
    names: &'a mut Names,
    source: Source<'a>,
    problems: &'a mut Vec<ScenarioError>,
    /// The texts of the included files.
    included: BTreeMap<String, String>,
    /// What each file that was looked for is, or why it is none: each is read once.
    read: HashMap<String, Result<Rc<Node>>>,
    /// The included files that it is in, the innermost last.
    files: Vec<String>,
    /// The variables of the `for_each` and `include` that it is in.
    bindings: Bindings,
    /// The conditions of the includes that it is in.
    conditions: Vec<Arc<When>>,
    /// The number of steps and includes that were looked at.
    count: usize,
    /// The size of their texts, bytes.
    size: usize,
    /// Whether there are too many, or they are too large: nothing further is looked at.
    is_full: bool,
}

impl<'a> StepReader<'a> {
    pub(super) fn new(
        names: &'a mut Names,
        source: Source<'a>,
        problems: &'a mut Vec<ScenarioError>,
    ) -> Self {
        StepReader {
            names,
            source,
            problems,
            included: BTreeMap::new(),
            read: HashMap::new(),
            files: Vec::new(),
            bindings: Bindings::default(),
            conditions: Vec::new(),
            count: 0,
            size: 0,
            is_full: false,
        }
    }

    /// The texts of all files that were included, by their paths from the scenario's folder.
    pub(super) fn into_included(self) -> BTreeMap<String, String> {
        self.included
    }

    /// Notes a problem in the present file.
    pub(super) fn note(&mut self, error: ScenarioError) {
        let file = error.file.or_else(|| self.files.last().cloned());
        self.problems.push(ScenarioError { file, ..error });
    }

    /// Reads a list of steps.
    pub(super) fn steps(&mut self, node: &Node) -> Vec<Step> {
        let mut steps = Vec::new();
        self.add_all(node, &mut steps);
        steps
    }

    fn add_all(&mut self, node: &Node, steps: &mut Vec<Step>) {
        let items = match list(node, "steps") {
            Ok(items) => items,
            Err(error) => return self.note(error),
        };
        for item in items {
            let added = self.look_at(item.place, item.size()).and_then(|()| self.add(item, steps));
            if let Err(error) = added {
                self.note(error);
            }
            if self.is_full {
                return;
            }
        }
    }

    /// Counts a step or an include of this size, also if it is refused later.
    fn look_at(&mut self, place: Place, size: usize) -> Result<()> {
        self.count += 1;
        self.size = self.size.saturating_add(size);
        let message = if self.count > MOST_STEPS {
            format!("a scenario has at most {MOST_STEPS} steps, with its includes")
        } else if self.size > LARGEST {
            format!("the steps of a scenario have at most {} MiB of text", LARGEST >> 20)
        } else if self.problems.len() >= MOST_PROBLEMS {
            format!("there are {MOST_PROBLEMS} problems or more: nothing after this was looked at")
        } else {
            return Ok(());
        };
        self.is_full = true;
        Err(ScenarioError::at(place, message))
    }

    /// Adds what one item of a list stands for.
    fn add(&mut self, node: &Node, steps: &mut Vec<Step>) -> Result<()> {
        let mut unknown = Vec::new();
        let keys = Keys::noting(node, &step::keys(), "a step", &mut unknown)?;
        let is_known = unknown.is_empty();
        unknown.into_iter().for_each(|error| self.note(error));
        let Some((name, place, values)) = keys.get("for_each").map(|node| self.each(node)).transpose()?
        else {
            return self.add_once(node, &keys, is_known, steps);
        };
        self.names.add(&name, place)?;
        let size = node.size() - keys.get("for_each").map_or(0, Node::size);
        for (number, value) in values.into_iter().enumerate() {
            let problems = self.problems.len();
            let outer = self.bindings.clone();
            self.bindings = outer.with(vec![(name.clone(), value)]);
            // The first one is counted already.
            let looked = if number == 0 { Ok(()) } else { self.look_at(node.place, size) };
            let added = looked.and_then(|()| self.add_once(node, &keys, is_known, steps));
            self.bindings = outer;
            if let Err(error) = added {
                self.note(error);
            }
            // What is wrong with it is so for each value.
            if self.problems.len() > problems || self.is_full {
                break;
            }
        }
        self.names.remove(&name);
        Ok(())
    }

    /// The variable of a `for_each`, and its values.
    fn each(&self, node: &Node) -> Result<(String, Place, Vec<Template>)> {
        match named(Some(node))?[..] {
            [(place, name, values)] => {
                let values = list(values, "values")?.iter().map(|value| self.names.template(value));
                Ok((name.to_owned(), place, values.collect::<Result<_>>()?))
            }
            _ => Err(expected(node, "one variable with a list of values, such as {port: [22, 80]}")),
        }
    }

    fn add_once(
        &mut self,
        node: &Node,
        keys: &Keys<'_>,
        is_known: bool,
        steps: &mut Vec<Step>,
    ) -> Result<()> {
        if let Some(what) = keys.get(include::STEP.name) {
            return self.include(keys, what, steps);
        }
        let Some(step) = self.step(node, keys, is_known)? else { return Ok(()) };
        if let Action::Assert(assertion) = &step.action {
            let judged = steps.iter_mut().rev().find(|step| !matches!(step.action, Action::Assert(_)));
            let is_exec =
                judged.as_ref().is_some_and(|step| matches!(step.action, Action::Do(StepOperation::Exec(_))));
            // A step before that could not be read may be the one.
            if (assertion.exit_code.is_some() || assertion.stderr.is_some())
                && !is_exec
                && self.problems.is_empty()
            {
                return Err(ScenarioError::at(
                    node.place,
                    "exit_code and stderr need an exec step directly before",
                ));
            }
            match judged {
                Some(judged) => judged.exit_is_judged |= assertion.exit_code.is_some(),
                None if assertion.stdout.is_some() && self.problems.is_empty() => {
                    return Err(ScenarioError::at(node.place, "no previous step has a result to check"));
                }
                None => {}
            }
        }
        steps.push(step);
        Ok(())
    }

    /// Adds the steps of an included file.
    fn include(&mut self, keys: &Keys<'_>, what: &Node, steps: &mut Vec<Step>) -> Result<()> {
        if let Some(other) = keys.other_than(&[include::STEP.name, "when", "for_each"]) {
            let message = "an include goes with when and for_each only";
            return Err(ScenarioError::at(other, message).with_hint("give the other keys to its steps"));
        }
        let include = Include::read(what, self.names)?;
        let condition = keys.get("when").map(|node| When::read(node, self.names)).transpose()?;
        let path = include.path(self.files.last().map(String::as_str))?;
        let refused = |message: String| ScenarioError::at(include.file.place, message);
        if self.files.contains(&path) {
            let chain = self.files.iter().skip_while(|file| **file != path).map(String::as_str);
            let chain: Vec<_> = chain.chain([path.as_str()]).collect();
            return Err(refused(format!("{path} includes itself: {}", chain.join(" includes "))));
        }
        if self.files.len() >= DEEPEST {
            return Err(refused(format!("more than {DEEPEST} files include each other")));
        }
        let root = self.file(&path, include.file.place)?;
        let (outer, depth) = (self.bindings.clone(), self.conditions.len());
        let mut bound = Vec::new();
        for (value, name, template) in include.with {
            match self.names.add(name, value.place) {
                Ok(()) => bound.push((name.to_owned(), template)),
                Err(error) => self.note(error),
            }
        }
        let names: Vec<_> = bound.iter().map(|(name, _)| name.clone()).collect();
        self.bindings = outer.with(bound);
        self.conditions.extend(condition.map(Arc::new));
        self.files.push(path);
        self.add_all(&root, steps);
        self.files.pop();
        self.conditions.truncate(depth);
        self.bindings = outer;
        names.iter().for_each(|name| self.names.remove(name));
        Ok(())
    }

    /// The content of an included file, which is read once.
    fn file(&mut self, path: &str, place: Place) -> Result<Rc<Node>> {
        let known = match self.read.get(path) {
            Some(known) => known.clone(),
            None => {
                let read = self.read_file(path, place);
                self.read.insert(path.to_owned(), read.clone());
                read
            }
        };
        // A file that cannot be read is a problem of each include of it.
        known.map_err(|error| match error.file {
            None => ScenarioError { place: Some(place), ..error },
            Some(_) => error,
        })
    }

    fn read_file(&mut self, path: &str, place: Place) -> Result<Rc<Node>> {
        let mut refused = |message: String, is_full: bool| {
            self.is_full |= is_full;
            Err(ScenarioError::at(place, message))
        };
        if self.read.len() >= MOST_FILES {
            return refused(format!("a scenario includes at most {MOST_FILES} files"), true);
        }
        let text = match (self.source)(path) {
            Ok(text) => text,
            Err(reason) => return refused(format!("{path} cannot be included: {reason}"), false),
        };
        let size = self.included.values().map(String::len).sum::<usize>() + text.len();
        if size > LARGEST {
            return refused(format!("the included files have at most {} MiB", LARGEST >> 20), true);
        }
        let root = Node::parse(&text);
        self.included.insert(path.to_owned(), text);
        root.map(Rc::new).map_err(|error| ScenarioError { file: Some(path.to_owned()), ..error })
    }

    /// The variable that a step sets.
    fn capture(&mut self, keys: &Keys<'_>) -> Result<Option<String>> {
        let Some(node) = keys.get("capture") else { return Ok(None) };
        let name = self.names.capture(node)?;
        match self.bindings.iter().any(|(bound, _)| *bound == name) {
            true => {
                let message = format!("the variable {name:?} is that of a for_each or an include");
                Err(ScenarioError::at(node.place, message).with_hint("choose another name"))
            }
            false => Ok(Some(name)),
        }
    }

    /// Reads one step. `is_known` is whether all of its keys are; without that it may be none.
    fn step(&mut self, node: &Node, keys: &Keys<'_>, is_known: bool) -> Result<Option<Step>> {
        let verbs: Vec<_> =
            step::VERBS.iter().filter_map(|verb| Some((verb, keys.get(verb.field.name)?))).collect();
        let (verb, what) = match verbs[..] {
            [only] => only,
            [] => {
                self.capture(keys)?;
                // An unknown key may be meant as its action.
                return match is_known {
                    true => Err(ScenarioError::at(node.place, "a step needs an action")
                        .with_hint(format!("one of {}", step::verb_names().join(", ")))),
                    false => Ok(None),
                };
            }
            [_, (second, at), ..] => {
                let name = second.field.name;
                let message = format!("a step has one action, and this is a second one: {name}");
                return Err(ScenarioError::at(at.place, message).with_hint("make it a separate step"));
            }
        };
        let when = keys.get("when").map(|node| When::read(node, self.names)).transpose()?;
        let action = (verb.read)(what, self.names);
        // Known also if the action has a problem: the texts after this step have none then.
        let capture = self.capture(keys)?;
        let action = action?;
        if let Some(node) = keys.get("capture").filter(|_| !can_be_captured(&action)) {
            let message = format!("{} has no result to capture", verb.field.name);
            return Err(ScenarioError::at(node.place, message));
        }
        let retry = match keys.get("retry") {
            Some(node) if !changes_by_itself(&action) => {
                let message = "an assert of the step before has the same result each time";
                return Err(ScenarioError::at(node.place, message)
                    .with_hint("give the retry to the step before, or wait for a condition"));
            }
            node => node.map(Retry::read).transpose()?,
        };
        let mut step = Step {
            name: String::new(),
            action,
            timeout: keys.get("timeout").map(duration).transpose()?,
            capture,
            when: self.conditions.iter().cloned().chain(when.map(Arc::new)).collect(),
            retry,
            bindings: self.bindings.clone(),
            exit_is_judged: false,
            file: self.files.last().cloned(),
            place: node.place,
        };
        step.name = keys.get("name").map(scalar).transpose()?.unwrap_or_else(|| step.op().to_owned());
        if let Some((_, value)) = self.bindings.last().filter(|_| keys.get("for_each").is_some()) {
            step.name = format!("{} ({value})", step.name);
        }
        Ok(Some(step))
    }
}

/// Whether a variable can keep what a step yields.
fn can_be_captured(action: &Action) -> bool {
    match action {
        Action::Do(operation) => operation.can_be_captured(),
        Action::Assert(_) | Action::AwaitConsole(_) => false,
    }
}

/// Whether a step can have another result when it is repeated.
fn changes_by_itself(action: &Action) -> bool {
    match action {
        Action::Assert(assertion) => assertion.looks_at_vm(),
        Action::Do(_) | Action::AwaitConsole(_) => true,
    }
}
