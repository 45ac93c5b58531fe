//! The keys there are, and what each takes. What a source says is checked against it.

use std::collections::BTreeMap;

use config::{Map, Value, ValueKind};

use crate::kind::Kind;
use crate::layer::{Form, Layer};
use crate::problem::ConfigProblem;
use crate::{key_text, sorted, values};

/// How like a known key an unknown one must be for the known one to be suggested (0 to 1).
const LIKENESS: f64 = 0.5;

/// How like a setting's name the unknown name of an environment variable must be to count as a misspelt setting, and not as
/// another program's variable (0 to 1).
const VARIABLE_LIKENESS: f64 = 0.75;

/// What can be tried with a value that cannot be used.
pub const CORRECT_IT: &str = "correct the value, or remove the setting to use its default";

/// A part of the tree of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schema {
    /// A section with known keys.
    Section(BTreeMap<String, Schema>),
    /// A section with keys of the user's choice, each with the same inside.
    Each(Box<Schema>),
    /// A value.
    Value(Kind),
    /// A key of another program that reads the same file: whatever it holds is passed over.
    Foreign,
    /// The former name of another key of the same section: it is still read.
    Renamed(String),
}

impl Schema {
    /// A section with these keys.
    pub fn section<const N: usize>(keys: [(&str, Schema); N]) -> Self {
        Schema::Section(keys.into_iter().map(|(key, schema)| (key.to_owned(), schema)).collect())
    }

    /// The keys and kinds that these defaults show, so that none can be forgotten.
    pub fn of_defaults(defaults: &Map<String, Value>) -> Self {
        let below = |value: &Value| match &value.kind {
            ValueKind::Table(table) => Schema::of_defaults(table),
            kind => Schema::Value(Kind::of(kind)),
        };
        Schema::Section(defaults.iter().map(|(key, value)| (key.clone(), below(value))).collect())
    }

    /// Puts another schema, or none, in the place of a key. A path that leads nowhere changes nothing.
    pub fn replace(&mut self, path: &[&str], by: Option<Schema>) {
        let (Schema::Section(keys), Some((first, rest))) = (self, path.split_first()) else { return };
        match (keys.get_mut(*first), by) {
            (Some(schema), by) if !rest.is_empty() => schema.replace(rest, by),
            (Some(schema), Some(by)) => *schema = by,
            _ => drop(keys.remove(*first)),
        }
    }

    /// Adds the keys of another schema. Where both have a section, the two are joined; where both have a value, the other's
    /// counts.
    pub(crate) fn join(&mut self, other: Schema) {
        match (self, other) {
            (Schema::Section(keys), Schema::Section(others)) => {
                for (key, other) in others {
                    match keys.get_mut(&key) {
                        Some(schema) => schema.join(other),
                        None => drop(keys.insert(key, other)),
                    }
                }
            }
            (schema, other) => *schema = other,
        }
    }

    /// Makes a key of a section readable under its former name too. A path that leads nowhere changes nothing.
    pub fn keep_former(&mut self, section: &[&str], former: &str, name: &str) {
        let (Schema::Section(keys), rest) = (self, section.split_first()) else { return };
        match rest {
            None => drop(keys.insert(former.to_owned(), Schema::Renamed(name.to_owned()))),
            Some((first, rest)) => {
                if let Some(schema) = keys.get_mut(*first) {
                    schema.keep_former(rest, former, name);
                }
            }
        }
    }

    /// Checks a source: returns what can be used of it, and adds what cannot to `problems`.
    ///
    /// A variable whose name, without the prefix, has one part and is not like any key is passed over: other
    /// programs may have variables that start alike.
    pub fn check(&self, layer: Layer, problems: &mut Vec<ConfigProblem>) -> Layer {
        let Layer { form, table } = layer;
        let mut check = Check { root: self, form: &form, path: Vec::new(), problems };
        let table = check.section(self, &table);
        Layer { form, table }
    }

    /// The full paths of all keys; a key of the user's choice is `*`.
    fn paths(&self, prefix: &[String], found: &mut Vec<Vec<String>>) {
        let below = |key: &str| [prefix, &[key.to_owned()]].concat();
        match self {
            // A former name is nothing to suggest.
            Schema::Section(keys) => {
                let present = keys.iter().filter(|(_, schema)| !matches!(schema, Schema::Renamed(_)));
                present.for_each(|(key, schema)| {
                    found.push(below(key));
                    schema.paths(&below(key), found);
                });
            }
            Schema::Each(schema) => schema.paths(&below("*"), found),
            Schema::Value(_) | Schema::Renamed(_) | Schema::Foreign => {}
        }
    }
}

/// One check of one source under way.
struct Check<'a> {
    root: &'a Schema,
    form: &'a Form,
    path: Vec<String>,
    problems: &'a mut Vec<ConfigProblem>,
}

impl Check<'_> {
    fn section(&mut self, schema: &Schema, table: &Map<String, Value>) -> Map<String, Value> {
        let mut usable = Map::new();
        for (key, value) in sorted(table) {
            self.path.push(key.to_owned());
            let inner = match schema {
                Schema::Section(keys) => keys.get(key),
                Schema::Each(schema) => Some(schema.as_ref()),
                Schema::Value(_) | Schema::Renamed(_) | Schema::Foreign => None,
            };
            let (key, inner) = match (inner, schema) {
                (Some(Schema::Renamed(name)), Schema::Section(keys)) => (name.as_str(), keys.get(name)),
                _ => (key, inner),
            };
            match inner {
                Some(Schema::Foreign) => {}
                Some(_) if key != self.path[self.path.len() - 1] && table.contains_key(key) => {
                    self.set_twice(key, value);
                }
                Some(schema) => {
                    if let Some(kind) = self.value(schema, value) {
                        usable.insert(
                            key.to_owned(),
                            Value::new(value.origin().map(str::to_owned).as_ref(), kind),
                        );
                    }
                }
                None => self.unknown(value),
            }
            self.path.pop();
        }
        usable
    }

    fn value(&mut self, schema: &Schema, value: &Value) -> Option<ValueKind> {
        match (schema, &value.kind) {
            (Schema::Value(kind), _) => {
                let read = kind.read(value, *self.form != Form::Typed);
                if read.is_none() {
                    self.unusable(value, &kind.expectation());
                }
                read
            }
            (schema, ValueKind::Table(table)) => Some(self.section(schema, table).into()),
            _ => {
                self.unusable(value, "a section with further keys");
                None
            }
        }
    }

    fn unusable(&mut self, value: &Value, expectation: &str) {
        let (key, origin) = (key_text(&self.path), value.origin().map(str::to_owned));
        let problem = format!("`{key}` is {}; expected {expectation}", shown(value));
        self.problems.push(ConfigProblem::new(key, origin, problem).hint(CORRECT_IT));
    }

    /// A key stands under its former name beside its present one.
    fn set_twice(&mut self, name: &str, value: &Value) {
        let (key, origin) = (key_text(&self.path), value.origin().map(str::to_owned));
        let problem = format!("`{key}` is the former name of `{name}`, which is set too");
        self.problems.push(ConfigProblem::new(key, origin, problem).hint("remove the former name"));
    }

    fn unknown(&mut self, value: &Value) {
        let nearest = nearest(self.root, &self.path);
        if let Form::Variables(_) = self.form
            && self.path.len() == 1
            && nearest.as_ref().is_none_or(|(_, like)| *like < VARIABLE_LIKENESS)
        {
            return;
        }
        // For a whole section, the first value in it: that is where a variable has its name.
        let first = match &value.kind {
            ValueKind::Table(table) => values(table).first().map_or(value, |(_, first)| *first),
            _ => value,
        };
        let origin = first.origin().map(str::to_owned);
        let key = key_text(&self.path);
        let mut problem = ConfigProblem::new(key.clone(), origin, format!("unknown key `{key}`"));
        if let Some((path, _)) = nearest {
            let in_place = path[..path.len() - 1] == self.path[..self.path.len() - 1];
            let known = match (self.form, path.last()) {
                (Form::Typed, Some(last)) if in_place => last.clone(),
                (form, _) => form.key(&path),
            };
            problem = problem.hint(format!("did you mean `{known}`?"));
        }
        self.problems.push(problem);
    }
}

/// A value in a message. Text that may be a URI is not shown: it may hold a password.
fn shown(value: &Value) -> String {
    match &value.kind {
        ValueKind::String(text) if text.contains('@') || text.contains("://") => "text".to_owned(),
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Table(_) => "a section".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        kind => kind.to_string(),
    }
}

/// The known key most like an unknown one, and how like it is: by the last part of the key, or by the whole.
fn nearest(root: &Schema, unknown: &[String]) -> Option<(Vec<String>, f64)> {
    let mut known = Vec::new();
    root.paths(&[], &mut known);
    let (last, section) = unknown.split_last()?;
    let fits = |known: &[String]| {
        known.len() == section.len()
            && known.iter().zip(section).all(|(known, ours)| known == "*" || known == ours)
    };
    let mut best: Option<(Vec<String>, f64)> = None;
    for path in known {
        let Some((name, of)) = path.split_last() else { continue };
        if unknown.starts_with(&path) {
            // The section that it is in.
            continue;
        }
        let mut like = strsim::normalized_damerau_levenshtein(name, last);
        if !fits(of) {
            // A key put in the wrong section, or a section misspelled: less likely than a slip in the key.
            let whole = strsim::normalized_damerau_levenshtein(&path.join("."), &unknown.join("."));
            like = 0.8 * like.max(whole) + 0.1 * whole;
        } else if !section.is_empty() && name.strip_prefix(last).is_some_and(|rest| rest.starts_with('_')) {
            // The key without its last words: likelier than a slip in another one.
            like = 0.9 + 0.1 * like;
        }
        if like >= LIKENESS && best.as_ref().is_none_or(|(_, most)| like > *most) {
            best = Some((path, like));
        }
    }
    best.map(|(mut path, like)| {
        // The user's own keys, as far as the two go the same way.
        for (part, ours) in path.iter_mut().zip(unknown) {
            if part == "*" {
                part.clone_from(ours);
            }
            if part != ours {
                break;
            }
        }
        (path, like)
    })
}
