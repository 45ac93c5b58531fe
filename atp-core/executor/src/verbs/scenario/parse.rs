//! From YAML to a scenario. All problems of a file are found at once, as far as one does not hide another.

use std::collections::BTreeMap;

use atp_api::{ScenarioSpec, StateFilter};

use super::error::ScenarioError;
use super::evidence;
use super::fields::{ISOLATE, SCENARIO};
use super::include::Source;
use super::node::Node;
use super::read::{Keys, Names, Result, choice, named, scalar, texts};
use super::steps::StepReader;
use super::template::{Template, Values, is_name};
use super::{OWN, Scenario};

/// Reads a scenario, and the files that it includes from `source`.
///
/// # Errors
/// Every problem, in the order of the files and lines; at least one.
pub(super) fn scenario(text: &str, source: Source<'_>) -> Result<Scenario, Vec<ScenarioError>> {
    let (mut problems, mut missing) = (Vec::new(), Vec::new());
    let scenario = read(text, source, &mut problems, &mut missing).map_err(|error| problems.push(error));
    problems.sort_by(|one, other| (&one.file, one.place).cmp(&(&other.file, other.place)));
    // Last of the file, as they are nowhere in it; and what is wrong may be a misspelt one of them.
    let end = problems.partition_point(|problem| problem.file.is_none());
    problems.splice(end..end, missing);
    match scenario {
        Ok(scenario) if problems.is_empty() => Ok(scenario),
        _ => Err(problems),
    }
}

/// Reads what is well-formed, and notes the other problems. The error is one that leaves nothing to go on with.
fn read(
    text: &str,
    source: Source<'_>,
    problems: &mut Vec<ScenarioError>,
    missing: &mut Vec<ScenarioError>,
) -> Result<Scenario> {
    let root = Node::parse(text)?;
    let top = Keys::noting(&root, SCENARIO, "a scenario", problems)?;
    let mut variables = Values::new();
    for (place, name, value) in noted(named(top.get("variables")), problems) {
        if OWN.contains(&name) || !is_name(name) {
            let hint = "letters, digits and _, but not host, vm or uuid, which are properties of every VM";
            let error = ScenarioError::at(place, format!("a variable cannot be named {name:?}"));
            problems.push(error.with_hint(hint));
        }
        // Texts that use it have no other problem.
        variables.insert(name.to_owned(), noted(scalar(value), problems));
    }
    let own = OWN.into_iter().map(str::to_owned);
    let mut names = Names::new(own.chain(variables.keys().cloned()));

    let file_only = Names::new(variables.keys().cloned());
    let selectors = |node: &Node| {
        texts(node)?
            .into_iter()
            .map(|node| Ok((node.place, file_only.template(node)?)))
            .collect::<Result<Vec<_>>>()
    };
    let mut labels = BTreeMap::new();
    for (_, key, value) in noted(named(top.get("labels")), problems) {
        if let Some(template) = noted(file_only.template(value).map(Some), problems) {
            labels.insert(key.to_owned(), (value.place, template));
        }
    }
    let state = top.get("state").map(|node| choice(node, StateFilter::NAMES)).transpose();
    let state = noted(state, problems).and_then(|state| state.parse().ok()).unwrap_or(StateFilter::Any);
    let mut need = |name| top.need(name).map_err(|error| missing.push(error)).ok();
    let (name, targets, steps) = (need("name"), need("targets"), need("steps"));
    let name = noted(name.map(scalar).transpose(), problems).unwrap_or_default();
    let description = noted(top.get("description").map(scalar).transpose(), problems);
    let targets = noted(targets.map(selectors).transpose(), problems).unwrap_or_default();
    let exclude = noted(top.get("exclude").map(selectors).transpose(), problems).unwrap_or_default();
    let evidence = noted(top.get("evidence").map(|node| evidence::read(node, &names)).transpose(), problems);
    let isolate = noted(top.get("isolate").map(|node| isolate(node, &file_only)).transpose(), problems);
    let mut reader = StepReader::new(&mut names, source, problems);
    let steps = steps.map(|node| reader.steps(node)).unwrap_or_default();
    // It is not known which steps a target completes before the teardown: a variable without a value is reported then.
    let teardown = top.get("teardown").map(|node| reader.steps(node)).unwrap_or_default();
    let included = reader.into_included();
    let spec = ScenarioSpec { text: text.to_owned(), variables: BTreeMap::new(), included, files: None };
    let scenario = Scenario {
        spec,
        name,
        description,
        targets,
        exclude,
        state,
        labels,
        evidence,
        isolate,
        steps,
        teardown,
        variables,
        places: None,
    };
    // Report an invalid selector with its place, as far as it can be known here.
    scenario.selection()?;
    Ok(scenario)
}

/// What was read, or nothing and the problem noted.
fn noted<T: Default>(read: Result<T>, problems: &mut Vec<ScenarioError>) -> T {
    read.unwrap_or_else(|error| {
        problems.push(error);
        T::default()
    })
}

/// The snapshot that VMs are taken back to.
fn isolate(node: &Node, names: &Names) -> Result<Template> {
    names.template(Keys::of(node, ISOLATE, "isolate")?.need("snapshot")?)
}
