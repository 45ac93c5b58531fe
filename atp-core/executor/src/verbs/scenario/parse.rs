//! From YAML to a scenario.

use std::collections::BTreeMap;

use atp_api::{ScenarioSpec, StateFilter};

use super::error::ScenarioError;
use super::evidence;
use super::fields::{ISOLATE, SCENARIO};
use super::node::Node;
use super::read::{Keys, Names, Result, choice, duration, list, named, scalar, texts};
use super::step::{self, Action, Step, StepOperation};
use super::template::{Template, Values, is_name};
use super::{OWN, Scenario};

pub(super) fn scenario(text: &str) -> Result<Scenario> {
    let root = Node::parse(text)?;
    let top = Keys::of(&root, SCENARIO, "a scenario")?;
    let mut variables = Values::new();
    for (place, name, value) in named(top.get("variables"))? {
        if OWN.contains(&name) || !is_name(name) {
            let hint = "letters, digits and _, but not host, vm or uuid, which are properties of every VM";
            return Err(
                ScenarioError::at(place, format!("a variable cannot be named {name:?}")).with_hint(hint)
            );
        }
        variables.insert(name.to_owned(), scalar(value)?);
    }
    let own = OWN.into_iter().map(str::to_owned);
    let mut names = Names::new(own.chain(variables.keys().cloned()));

    let file_only = Names::new(variables.keys().cloned());
    let selectors = |node: Option<&Node>| {
        let texts = node.map(texts).transpose()?.unwrap_or_default();
        texts.into_iter().map(|node| Ok((node.place, file_only.template(node)?))).collect::<Result<Vec<_>>>()
    };
    let mut labels = BTreeMap::new();
    for (_, key, value) in named(top.get("labels"))? {
        labels.insert(key.to_owned(), (value.place, file_only.template(value)?));
    }
    let state = match top.get("state") {
        Some(node) => choice(node, StateFilter::NAMES)?.parse().unwrap_or(StateFilter::Any),
        None => StateFilter::Any,
    };
    let scenario = Scenario {
        spec: ScenarioSpec { text: text.to_owned(), variables: BTreeMap::new(), files: None },
        name: scalar(top.need("name")?)?,
        description: top.get("description").map(scalar).transpose()?,
        targets: selectors(Some(top.need("targets")?))?,
        exclude: selectors(top.get("exclude"))?,
        state,
        labels,
        evidence: top.get("evidence").map(|node| evidence::read(node, &names)).transpose()?,
        isolate: top.get("isolate").map(|node| isolate(node, &file_only)).transpose()?,
        steps: steps(top.need("steps")?, &mut names)?,
        // It is not known which steps a target completes before the teardown: a variable without a value is reported then.
        teardown: top.get("teardown").map(|node| steps(node, &mut names)).transpose()?.unwrap_or_default(),
        variables,
        places: None,
    };
    // Report an invalid selector with its place, as far as it can be known here.
    scenario.selection()?;
    Ok(scenario)
}

/// The snapshot that VMs are taken back to.
fn isolate(node: &Node, names: &Names) -> Result<Template> {
    names.template(Keys::of(node, ISOLATE, "isolate")?.need("snapshot")?)
}

fn steps(node: &Node, names: &mut Names) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    for node in list(node, "steps")? {
        let step = read_step(node, names)?;
        if let Action::Assert(assertion) = &step.action {
            let judged = steps.iter_mut().rev().find(|step| !matches!(step.action, Action::Assert(_)));
            let is_exec =
                judged.as_ref().is_some_and(|step| matches!(step.action, Action::Do(StepOperation::Exec(_))));
            if (assertion.exit_code.is_some() || assertion.stderr.is_some()) && !is_exec {
                return Err(ScenarioError::at(
                    node.place,
                    "exit_code and stderr need an exec step directly before",
                ));
            }
            match judged {
                Some(judged) => judged.exit_is_judged |= assertion.exit_code.is_some(),
                None if assertion.stdout.is_some() => {
                    return Err(ScenarioError::at(node.place, "no previous step has a result to check"));
                }
                None => {}
            }
        }
        steps.push(step);
    }
    Ok(steps)
}

fn read_step(node: &Node, names: &mut Names) -> Result<Step> {
    let keys = Keys::of(node, &step::keys(), "a step")?;
    let verbs: Vec<_> =
        step::VERBS.iter().filter_map(|verb| Some((verb, keys.get(verb.field.name)?))).collect();
    let (verb, what) = match verbs[..] {
        [only] => only,
        [] => {
            return Err(ScenarioError::at(node.place, "a step needs an action")
                .with_hint(format!("one of {}", step::verb_names().join(", "))));
        }
        [_, (second, at), ..] => {
            let name = second.field.name;
            let message = format!("a step has one action, and this is a second one: {name}");
            return Err(ScenarioError::at(at.place, message).with_hint("make it a separate step"));
        }
    };
    let action = (verb.read)(what, names)?;
    let capture = match keys.get("capture") {
        Some(node) if can_be_captured(&action) => Some(names.capture(node)?),
        Some(node) => {
            let message = format!("{} has no result to capture", verb.field.name);
            return Err(ScenarioError::at(node.place, message));
        }
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

/// Whether a variable can keep what a step yields.
fn can_be_captured(action: &Action) -> bool {
    match action {
        Action::Do(operation) => operation.can_be_captured(),
        Action::Assert(_) | Action::AwaitConsole(_) => false,
    }
}
