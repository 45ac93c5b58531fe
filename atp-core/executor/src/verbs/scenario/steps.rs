//! Reading the steps of a scenario: each with all that its keys say, those of included files in the place of their `include`, and
//! those of a `for_each` once for each value.

use std::collections::BTreeMap;

use super::control::{Retry, When};
use super::error::{Place, ScenarioError};
use super::include::{self, Include, Source};
use super::node::Node;
use super::read::{Keys, Names, Result, duration, expected, list, named, scalar};
use super::step::{self, Action, Bindings, Step, StepOperation};
use super::template::Template;

/// The most steps of a scenario, so that files that include others for each of many values do not fill the memory.
const MOST_STEPS: usize = 10_000;
/// The most files that include each other, one in the other.
const DEEPEST: usize = 16;

/// Reads steps, and notes problems.
pub(super) struct StepReader<'a> {
    names: &'a mut Names,
    source: Source<'a>,
    problems: &'a mut Vec<ScenarioError>,
    /// The texts of the included files.
    included: BTreeMap<String, String>,
    /// The included files that it is in, the innermost last.
    files: Vec<String>,
    /// The variables of the `for_each` and `include` that it is in.
    bindings: Bindings,
    /// The conditions of the includes that it is in.
    conditions: Vec<When>,
    count: usize,
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
            files: Vec::new(),
            bindings: Vec::new(),
            conditions: Vec::new(),
            count: 0,
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
            if let Err(error) = self.add(item, steps) {
                self.note(error);
            }
            if self.count >= MOST_STEPS {
                return;
            }
        }
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
        for value in values {
            let problems = self.problems.len();
            self.bindings.push((name.clone(), value));
            let added = self.add_once(node, &keys, is_known, steps);
            self.bindings.pop();
            if let Err(error) = added {
                self.note(error);
            }
            // What is wrong with it is so for each value.
            if self.problems.len() > problems || self.count >= MOST_STEPS {
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
            return self.include(node, keys, what, steps);
        }
        self.count += 1;
        if self.count >= MOST_STEPS {
            return Err(ScenarioError::at(node.place, format!("a scenario has at most {MOST_STEPS} steps")));
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
    fn include(&mut self, node: &Node, keys: &Keys<'_>, what: &Node, steps: &mut Vec<Step>) -> Result<()> {
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
        let text = match self.included.get(&path) {
            Some(text) => text.clone(),
            None => (self.source)(&path)
                .map_err(|reason| refused(format!("{path} cannot be included: {reason}")))?,
        };
        let root = Node::parse(&text);
        self.included.insert(path.clone(), text);
        let root = root.map_err(|error| ScenarioError { file: Some(path.clone()), ..error })?;
        let (bound, conditions) = (self.bindings.len(), self.conditions.len());
        for (value, name, template) in include.with {
            match self.names.add(name, value.place) {
                Ok(()) => self.bindings.push((name.to_owned(), template)),
                Err(error) => self.note(error),
            }
        }
        self.conditions.extend(condition);
        self.files.push(path);
        self.add_all(&root, steps);
        self.files.pop();
        self.conditions.truncate(conditions);
        for (name, _) in self.bindings.drain(bound..) {
            self.names.remove(&name);
        }
        if self.count >= MOST_STEPS && self.problems.is_empty() {
            return Err(ScenarioError::at(node.place, format!("a scenario has at most {MOST_STEPS} steps")));
        }
        Ok(())
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
            when: self.conditions.iter().cloned().chain(when).collect(),
            retry,
            bindings: self.bindings.clone(),
            exit_is_judged: false,
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
