//! Reading the values of a scenario file, with errors that say where and what was expected.

use std::collections::BTreeSet;
use std::time::Duration;

use atp_settings::{DurationError, parse_duration};
use atp_transport::domain::DomainState;

use super::OWN;
use super::error::{Place, ScenarioError, nearest};
use super::fields::{Field, STATES};
use super::node::{Kind, Node, Value};
use super::template::{Template, is_name};

pub(in crate::verbs) type Result<T, E = ScenarioError> = std::result::Result<T, E>;

/// The names that a text may refer to.
pub(in crate::verbs) struct Names {
    known: BTreeSet<String>,
}

impl Names {
    pub(in crate::verbs) fn new(known: impl IntoIterator<Item = String>) -> Self {
        Names { known: known.into_iter().collect() }
    }

    /// Reads a text with variables.
    pub(in crate::verbs) fn template(&self, node: &Node) -> Result<Template> {
        self.text_template(&scalar(node)?, node.place)
    }

    pub(in crate::verbs) fn text_template(&self, text: &str, place: Place) -> Result<Template> {
        let template = Template::parse(text).map_err(|message| ScenarioError::at(place, message))?;
        for name in template.variables() {
            if !self.known.contains(name) {
                return Err(ScenarioError::at(place, format!("there is no variable {name:?} here"))
                    .with_hint(nearest(name, self.known.iter().map(String::as_str))));
            }
        }
        Ok(template)
    }

    /// Adds a variable that texts may refer to until it is [removed](Self::remove). There must be none of this name.
    pub(super) fn add(&mut self, name: &str, place: Place) -> Result<()> {
        if !is_name(name) || OWN.contains(&name) {
            return Err(ScenarioError::at(place, format!("a variable cannot be named {name:?}")));
        }
        if !self.known.insert(name.to_owned()) {
            let message = format!("there is a variable {name:?} already");
            return Err(ScenarioError::at(place, message).with_hint("choose another name"));
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.known.remove(name);
    }

    /// Reads the name of the variable that a step sets; texts after it may refer to it.
    pub(in crate::verbs) fn capture(&mut self, node: &Node) -> Result<String> {
        let name = scalar(node)?;
        if !is_name(&name) || OWN.contains(&name.as_str()) {
            return Err(ScenarioError::at(node.place, format!("a variable cannot be named {name:?}")));
        }
        self.known.insert(name.clone());
        Ok(name)
    }
}

/// A mapping of which the keys are known.
pub(in crate::verbs) struct Keys<'a> {
    place: Place,
    what: &'static str,
    entries: Vec<(&'a str, &'a Node)>,
}

impl<'a> Keys<'a> {
    pub(in crate::verbs) fn of(node: &'a Node, fields: &[Field], what: &'static str) -> Result<Self> {
        let mut problems = Vec::new();
        let keys = Self::noting(node, fields, what, &mut problems)?;
        problems.into_iter().next().map_or(Ok(keys), Err)
    }

    /// As [`of`](Self::of), but a key that is unknown or given twice is noted and passed over.
    pub(super) fn noting(
        node: &'a Node,
        fields: &[Field],
        what: &'static str,
        problems: &mut Vec<ScenarioError>,
    ) -> Result<Self> {
        let Value::Map(map) = &node.value else {
            return Err(expected(node, &format!("{what} with its keys")));
        };
        let mut entries: Vec<(&str, &Node)> = Vec::new();
        for (key, value) in map {
            if !fields.iter().any(|field| field.name == key.name) {
                let unknown = ScenarioError::at(key.place, format!("{what} has no key {:?}", key.name));
                problems.push(unknown.with_hint(nearest(&key.name, fields.iter().map(|field| field.name))));
            } else if entries.iter().any(|(name, _)| *name == key.name) {
                let twice = format!("the key {:?} is given twice", key.name);
                problems.push(ScenarioError::at(key.place, twice));
            } else {
                entries.push((&key.name, value));
            }
        }
        Ok(Keys { place: node.place, what, entries })
    }

    pub(in crate::verbs) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a key.
    pub(in crate::verbs) fn get(&self, name: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(key, _)| *key == name).map(|(_, node)| *node)
    }

    /// The place of the value of a key that is none of these.
    pub(super) fn other_than(&self, names: &[&str]) -> Option<Place> {
        self.entries.iter().find(|(key, _)| !names.contains(key)).map(|(_, node)| node.place)
    }

    /// The value of a required key.
    pub(in crate::verbs) fn need(&self, name: &'static str) -> Result<&'a Node> {
        self.get(name)
            .ok_or_else(|| ScenarioError::at(self.place, format!("{} needs the key {name:?}", self.what)))
    }
}

/// The entries of a mapping with free names.
pub(in crate::verbs) fn named(node: Option<&Node>) -> Result<Vec<(Place, &str, &Node)>> {
    match node.map(|node| (node, &node.value)) {
        None | Some((_, Value::Nothing)) => Ok(Vec::new()),
        Some((_, Value::Map(map))) => {
            Ok(map.iter().map(|(key, value)| (key.place, key.name.as_str(), value)).collect())
        }
        Some((node, _)) => Err(expected(node, "a mapping of names to texts")),
    }
}

pub(in crate::verbs) fn list<'a>(node: &'a Node, what: &str) -> Result<&'a [Node]> {
    match &node.value {
        Value::List(items) if !items.is_empty() => Ok(items),
        Value::List(_) => Err(ScenarioError::at(node.place, format!("a list of {what} without any"))),
        _ => Err(expected(node, &format!("a list of {what}"))),
    }
}

/// A text by itself, or those of a list.
pub(in crate::verbs) fn texts(node: &Node) -> Result<Vec<&Node>> {
    match &node.value {
        Value::List(_) => Ok(list(node, "texts")?.iter().collect()),
        _ => Ok(vec![node]),
    }
}

pub(in crate::verbs) fn scalar(node: &Node) -> Result<String> {
    match &node.value {
        Value::Scalar(text, _) if !text.is_empty() => Ok(text.clone()),
        Value::Scalar(_, Kind::Text) => Ok(String::new()),
        _ => Err(expected(node, "text")),
    }
}

pub(in crate::verbs) fn integer(node: &Node) -> Result<i32> {
    scalar(node)?.parse().map_err(|_| expected(node, "a whole number"))
}

pub(in crate::verbs) fn truth(node: &Node) -> Result<bool> {
    match node.value {
        Value::Scalar(_, Kind::Bool(truth)) => Ok(truth),
        _ => Err(expected(node, "true or false")),
    }
}

pub(in crate::verbs) fn duration(node: &Node) -> Result<Duration> {
    match parse_duration(&scalar(node)?) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        Err(error @ DurationError::TooLong) => Err(ScenarioError::at(node.place, error.to_string())),
        _ => Err(expected(node, "a time such as 30s, 2m or 500ms")),
    }
}

pub(in crate::verbs) fn choice<'a>(node: &Node, words: &[&'a str]) -> Result<&'a str> {
    let text = scalar(node)?;
    words.iter().find(|word| **word == text).copied().ok_or_else(|| {
        ScenarioError::at(node.place, format!("{text:?} is not one of {}", words.join(", ")))
            .with_hint(nearest(&text, words.iter().copied()))
    })
}

/// The state named at a key.
pub(in crate::verbs) fn state(node: &Node) -> Result<DomainState> {
    let word = choice(node, STATES)?;
    let known = DomainState::AWAITED.into_iter().find(|(known, _)| *known == word);
    known.map(|(_, state)| state).ok_or_else(|| expected(node, "a state"))
}

pub(in crate::verbs) fn expected(node: &Node, what: &str) -> ScenarioError {
    ScenarioError::at(node.place, format!("expected {what}, not {}", node.kind()))
}

/// Words of a list, or of a text. Those without variables are checked here.
pub(in crate::verbs) fn words(
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
