//! YAML as a tree of values with their places.
//!
//! Scalars are kept as they are written: a version `1.10` is not the number 1.1, and `no` is the word.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::error::{Place, ScenarioError};

/// A value and its place.
#[derive(Debug, Clone)]
pub(in crate::verbs) struct Node {
    pub(in crate::verbs) place: Place,
    pub(in crate::verbs) value: Value,
}

#[derive(Debug, Clone)]
pub(in crate::verbs) enum Value {
    /// Nothing, or `null`, or `~`.
    Nothing,
    /// A scalar as it is written, and what YAML takes it for.
    Scalar(String, Kind),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// What YAML takes a scalar for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::verbs) enum Kind {
    Text,
    Bool(bool),
    Number,
}

#[derive(Debug, Clone)]
pub(in crate::verbs) struct Key {
    pub(in crate::verbs) place: Place,
    pub(in crate::verbs) name: String,
}

/// What the text should be.
const A_SCENARIO: &str = "a scenario is a YAML file with the keys name, targets and steps: docs/scenarios.md";

impl Node {
    /// Parses one document.
    pub(in crate::verbs) fn parse(text: &str) -> Result<Node, ScenarioError> {
        let raw: Spanned<Raw> = serde_saphyr::from_str(text).map_err(|error| {
            let place = error.location().map_or(Place { line: 1, column: 1 }, Place::of);
            // The rest of its message draws the source line, which the caller does not need.
            let message = error.without_snippet().to_string();
            let message = message.lines().next().unwrap_or_default();
            // Behind the place, or without one, comes advice to programmers.
            let ends = [" at line ", ", set ", "; use "];
            let message =
                ends.iter().filter_map(|end| message.find(end)).min().map_or(message, |end| &message[..end]);
            ScenarioError::at(place, message.to_owned()).with_hint(A_SCENARIO)
        })?;
        Ok(Node::of(raw, text))
    }

    fn of(raw: Spanned<Raw>, text: &str) -> Node {
        let place = Place::of(raw.referenced);
        let value = match raw.value {
            Raw::Nothing => Value::Nothing,
            Raw::Text(scalar) => Value::Scalar(scalar, Kind::Text),
            Raw::Bool(truth) => Value::Scalar(
                written(text, raw.defined).unwrap_or_else(|| truth.to_string()),
                Kind::Bool(truth),
            ),
            Raw::Number(number) => Value::Scalar(written(text, raw.defined).unwrap_or(number), Kind::Number),
            Raw::List(items) => Value::List(items.into_iter().map(|item| Node::of(item, text)).collect()),
            Raw::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| {
                        (Key { place: Place::of(key.referenced), name: key.value }, Node::of(value, text))
                    })
                    .collect(),
            ),
        };
        Node { place, value }
    }

    /// About the size of what it says, bytes.
    pub(in crate::verbs) fn size(&self) -> usize {
        let inner = match &self.value {
            Value::Nothing => 0,
            Value::Scalar(text, _) => text.len(),
            Value::List(items) => items.iter().map(Node::size).sum(),
            Value::Map(entries) => entries.iter().map(|(key, node)| key.name.len() + node.size()).sum(),
        };
        // A value that is empty costs something too.
        inner + 16
    }

    /// What it is, for a message.
    pub(in crate::verbs) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Nothing => "nothing",
            Value::Scalar(_, Kind::Text) => "text",
            Value::Scalar(_, Kind::Bool(_)) => "a truth value",
            Value::Scalar(_, Kind::Number) => "a number",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

impl Place {
    fn of(location: Location) -> Self {
        let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).max(1);
        Place { line: number(location.line()), column: number(location.column()) }
    }
}

/// A scalar as it stands in the text.
fn written(text: &str, location: Location) -> Option<String> {
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    let end = start.checked_add(usize::try_from(location.span().byte_len()?).ok()?)?;
    text.get(start..end).map(|scalar| scalar.trim().to_owned())
}

/// A value as the parser gives it.
enum Raw {
    Nothing,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Nothing)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}
