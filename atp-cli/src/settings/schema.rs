//! The keys there are, and what each takes. What a layer says is checked against it.
//!
//! The keys of `[transport]` are those of [`TransportConfig`], told from its defaults, so that none can be
//! forgotten here.

use std::collections::BTreeMap;

use atp_transport::TransportConfig;
use config::{Map, Value, ValueKind};

use crate::args::{ColorMode, LogFormat, OutputFormat};
use crate::problem::Problem;
use crate::settings::kind::Kind;
use crate::settings::layer::{self, Layer};

/// How like a known key an unknown one must be for the known one to be suggested (0 to 1).
const LIKENESS: f64 = 0.5;

/// How like a setting's name the name of an environment variable must be, that is none, to be taken for a
/// slip of the pen and not for some other program's.
const VARIABLE_LIKENESS: f64 = 0.75;

/// A part of the tree of keys.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    /// A table with known keys.
    Section(BTreeMap<String, Node>),
    /// A table with keys of the user's choice, each with the same inside.
    Each(Box<Node>),
    /// A value.
    Leaf(Kind),
}

impl Node {
    /// Every key of every section.
    pub(crate) fn all() -> Self {
        let host = Node::section([
            ("uri", Node::Leaf(Kind::Text)),
            ("address", Node::Leaf(Kind::Text)),
            ("groups", Node::Leaf(Kind::TextList)),
            ("labels", Node::Each(Box::new(Node::Leaf(Kind::Text)))),
            ("weight", Node::Leaf(Kind::AtLeastOne)),
        ]);
        Node::section([
            ("output", Node::Leaf(Kind::choice::<OutputFormat>())),
            ("parallel", Node::Leaf(Kind::AtLeastOne)),
            ("timeout", Node::Leaf(Kind::Timeout)),
            ("color", Node::Leaf(Kind::choice::<ColorMode>())),
            ("log_format", Node::Leaf(Kind::choice::<LogFormat>())),
            ("transport", Node::of_defaults(&transport_defaults())),
            ("hosts", Node::Each(Box::new(host))),
        ])
    }

    fn section<const N: usize>(keys: [(&str, Node); N]) -> Self {
        Node::Section(keys.into_iter().map(|(key, node)| (key.to_owned(), node)).collect())
    }

    /// The keys and kinds that these defaults show.
    fn of_defaults(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::Object(fields) => Node::Section(
                fields.iter().map(|(key, value)| (key.clone(), Node::of_defaults(value))).collect(),
            ),
            serde_json::Value::Bool(_) => Node::Leaf(Kind::Bool),
            serde_json::Value::Number(number) if number.is_f64() => Node::Leaf(Kind::Number),
            serde_json::Value::Number(_) => Node::Leaf(Kind::Count),
            serde_json::Value::String(text) if humantime::parse_duration(text).is_ok() => {
                Node::Leaf(Kind::Duration)
            }
            serde_json::Value::Array(_) => Node::Leaf(Kind::TextList),
            serde_json::Value::String(_) | serde_json::Value::Null => Node::Leaf(Kind::Text),
        }
    }

    /// Checks a layer: keeps what can be used, and reports the rest.
    pub(crate) fn check(&self, layer: &mut Layer, problems: &mut Vec<Problem>) {
        let table = std::mem::take(&mut layer.table);
        let mut check = Check { root: self, is_text: layer.is_text, path: Vec::new(), problems };
        layer.table = check.table(self, table);
    }

    /// The full paths of all keys; a key of the user's choice is `*`.
    fn paths(&self, prefix: &[String], found: &mut Vec<Vec<String>>) {
        let below = |key: &str| [prefix, &[key.to_owned()]].concat();
        match self {
            Node::Section(keys) => keys.iter().for_each(|(key, node)| {
                found.push(below(key));
                node.paths(&below(key), found);
            }),
            Node::Each(node) => node.paths(&below("*"), found),
            Node::Leaf(_) => {}
        }
    }
}

/// The defaults of `[transport]`, as this program has them: nothing connects to a host that no work needs.
pub(crate) fn transport_defaults() -> serde_json::Value {
    let mut defaults = TransportConfig::default();
    defaults.pool.min_connections_per_host = 0;
    serde_json::to_value(&defaults).unwrap_or_default()
}

/// One check of one layer under way.
struct Check<'a> {
    root: &'a Node,
    is_text: bool,
    path: Vec<String>,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    fn table(&mut self, node: &Node, table: Map<String, Value>) -> Map<String, Value> {
        let mut usable = Map::new();
        let mut entries: Vec<_> = table.into_iter().collect();
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (key, value) in entries {
            self.path.push(key.clone());
            let inner = match node {
                Node::Section(keys) => keys.get(&key),
                Node::Each(node) => Some(node.as_ref()),
                Node::Leaf(_) => None,
            };
            let checked = match inner {
                Some(node) => self.value(node, value),
                None => {
                    self.unknown(&value);
                    None
                }
            };
            if let Some(value) = checked {
                usable.insert(key, value);
            }
            self.path.pop();
        }
        usable
    }

    fn value(&mut self, node: &Node, value: Value) -> Option<Value> {
        let origin = value.origin().map(str::to_owned);
        match node {
            Node::Leaf(kind) => match kind.read(&value, self.is_text) {
                Some(read) => Some(Value::new(origin.as_ref(), read)),
                None => {
                    self.unusable(&value, &kind.expectation());
                    None
                }
            },
            Node::Section(_) | Node::Each(_) => match value.kind {
                ValueKind::Table(table) => Some(Value::new(origin.as_ref(), self.table(node, table))),
                _ => {
                    self.unusable(&value, "a section with keys of its own");
                    None
                }
            },
        }
    }

    fn unusable(&mut self, value: &Value, expectation: &str) {
        let (key, origin) = (key_text(&self.path), value.origin().unwrap_or(layer::DEFAULT));
        let found = match &value.kind {
            // A host's text may hold a password.
            ValueKind::String(_) if self.path.first().is_some_and(|section| section == "hosts") => {
                "text".to_owned()
            }
            ValueKind::String(text) => format!("{text:?}"),
            ValueKind::Table(_) => "a section".to_owned(),
            ValueKind::Array(_) => "a list".to_owned(),
            _ => value.to_string(),
        };
        let key = if self.is_text { String::new() } else { format!("`{key}` ") };
        self.problems.push(Problem::new(format!("{origin}: {key}is {found}; expected {expectation}")).hint(
            "correct the value, or take the setting out to use its default (`atp config show` prints it)",
        ));
    }

    fn unknown(&mut self, value: &Value) {
        let nearest = nearest(self.root, &self.path);
        let origin = value.origin().unwrap_or(layer::DEFAULT);
        if self.is_text {
            // Another program may have variables that start alike.
            let of_ours =
                self.path.len() > 1 || nearest.as_ref().is_some_and(|(_, like)| *like >= VARIABLE_LIKENESS);
            if of_ours {
                let hint = match &nearest {
                    Some((path, _)) => format!("did you mean {}?", layer::variable(path)),
                    None => "`atp config show` prints every setting".to_owned(),
                };
                let problem =
                    format!("the environment sets {}, which is no setting", leaf_variable(&self.path, value));
                self.problems.push(Problem::new(problem).hint(hint));
            }
            return;
        }
        let hint = match &nearest {
            Some((path, _)) if path[..path.len() - 1] == self.path[..self.path.len() - 1] => {
                format!("did you mean `{}`?", path[path.len() - 1])
            }
            Some((path, _)) => format!("did you mean `{}`?", key_text(path)),
            None => "`atp config show` prints every setting".to_owned(),
        };
        self.problems
            .push(Problem::new(format!("{origin}: unknown key `{}`", key_text(&self.path))).hint(hint));
    }
}

/// The variable that set a value; for a whole section, the first one that reached into it.
fn leaf_variable(path: &[String], value: &Value) -> String {
    match &value.kind {
        ValueKind::Table(table) => table.values().next().and_then(Value::origin).map(str::to_owned),
        _ => value.origin().map(str::to_owned),
    }
    .unwrap_or_else(|| layer::variable(path))
}

/// The known key most like an unknown one, and how like it is: by the last part of the key, or by the whole.
fn nearest(root: &Node, unknown: &[String]) -> Option<(Vec<String>, f64)> {
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
        let mut like = strsim::normalized_damerau_levenshtein(name, last);
        let in_place = fits(of);
        if !in_place {
            // A key put in the wrong section, or a section misspelled: less likely than a slip in the key.
            let whole = strsim::normalized_damerau_levenshtein(&path.join("."), &unknown.join("."));
            like = like.max(whole) * 0.9;
        }
        if like >= LIKENESS && best.as_ref().is_none_or(|(_, most)| like > *most) {
            let path = if in_place { [section, std::slice::from_ref(name)].concat() } else { path };
            best = Some((path, like));
        }
    }
    best
}

/// A key as it is written in a file.
pub(crate) fn key_text(path: &[String]) -> String {
    let bare = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-*".contains(&b))
    };
    path.iter()
        .map(|part| if bare(part) { part.clone() } else { format!("{part:?}") })
        .collect::<Vec<_>>()
        .join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn problems_of(text: &str) -> Vec<Problem> {
        let mut layer = Layer::file(Path::new("f.toml"), text).unwrap();
        let mut problems = Vec::new();
        Node::all().check(&mut layer, &mut problems);
        problems
    }

    fn problems_of_variable(name: &str, value: &str) -> Vec<Problem> {
        let mut layer = Layer::environment(&[(name.to_owned(), value.to_owned())]);
        let mut problems = Vec::new();
        Node::all().check(&mut layer, &mut problems);
        problems
    }

    #[test]
    fn an_unknown_key_gets_the_nearest_known_one() {
        for (text, unknown, suggestion) in [
            ("paralel = 3", "`paralel`", "`parallel`"),
            (
                "[transport.pool]\nmax_conections_per_host = 3",
                "`transport.pool.max_conections_per_host`",
                "`max_connections_per_host`",
            ),
            (
                "[transport]\nmax_connections_per_host = 3",
                "`transport.max_connections_per_host`",
                "`transport.pool.max_connections_per_host`",
            ),
            ("[transprot]\ncall_timeout = \"3s\"", "`transprot`", "`transport`"),
            ("[hosts.\"a.b\"]\nurl = \"x\"", "`hosts.\"a.b\".url`", "`uri`"),
            ("[hosts.h1]\ngroup = [\"x\"]", "`hosts.h1.group`", "`groups`"),
        ] {
            let [problem] = &problems_of(text)[..] else { panic!("{text}: {:?}", problems_of(text)) };
            assert!(problem.message.contains("f.toml:") && problem.message.contains(unknown), "{problem:?}");
            assert!(problem.hint.as_deref().unwrap().contains(suggestion), "{problem:?}");
        }
    }

    #[test]
    fn a_key_like_no_other_gets_no_suggestion() {
        let [problem] = &problems_of("zzzzzz = 1")[..] else { panic!() };
        assert!(!problem.hint.as_deref().unwrap().contains("did you mean"), "{problem:?}");
    }

    #[test]
    fn values_of_the_wrong_type_are_named_with_what_was_expected() {
        for (text, key, expectation) in [
            ("parallel = \"many\"", "`parallel`", "at least 1"),
            ("parallel = 0", "`parallel`", "at least 1"),
            ("timeout = 30", "`timeout`", "30s"),
            ("timeout = \"0s\"", "`timeout`", "longer than 0"),
            ("output = \"xml\"", "`output`", "\"jsonl\""),
            ("transport = 3", "`transport`", "section"),
            ("[transport]\nauto_reconnect = \"yes\"", "`transport.auto_reconnect`", "true or false"),
            (
                "[transport.pool]\nmax_connections_per_host = -1",
                "`transport.pool.max_connections_per_host`",
                "whole number",
            ),
            ("[transport.reconnect]\nmultiplier = \"x\"", "`transport.reconnect.multiplier`", "a number"),
            ("[hosts]\nh1 = \"test:///default\"", "`hosts.h1`", "section"),
            ("[hosts.h1]\ngroups = \"a\"", "`hosts.h1.groups`", "list"),
            ("[hosts.h1.labels]\nrack = 2", "`hosts.h1.labels.rack`", "quotes"),
        ] {
            let [problem] = &problems_of(text)[..] else { panic!("{text}: {:?}", problems_of(text)) };
            assert!(problem.message.contains(key) && problem.message.contains(expectation), "{problem:?}");
        }
    }

    #[test]
    fn all_problems_of_a_file_are_reported() {
        assert_eq!(problems_of("paralel = 3\ntimeout = 3\n[transport]\ncall_timeout = 5\n").len(), 3);
    }

    #[test]
    fn text_of_the_environment_is_read_as_what_is_wanted() {
        for (name, value) in [
            ("ATP_PARALLEL", "8"),
            ("ATP_TIMEOUT", "5s"),
            ("ATP_TRANSPORT__AUTO_RECONNECT", "false"),
            ("ATP_TRANSPORT__RECONNECT__MULTIPLIER", "1.5"),
            ("ATP_TRANSPORT__RECONNECT__MULTIPLIER", "2"),
            ("ATP_HOSTS__H1__GROUPS", "a, b"),
            ("ATP_HOSTS__H1__LABELS__RACK", "2"),
        ] {
            assert_eq!(problems_of_variable(name, value), [], "{name}={value}");
        }
        let [problem] = &problems_of_variable("ATP_PARALLEL", "many")[..] else { panic!() };
        assert!(problem.message.starts_with("ATP_PARALLEL: is \"many\""), "{problem:?}");
    }

    #[test]
    fn variables_that_are_no_setting() {
        let [problem] = &problems_of_variable("ATP_TRANSPORT__POOL__MAX_CONECTIONS_PER_HOST", "3")[..] else {
            panic!()
        };
        assert!(problem.hint.as_deref().unwrap().contains("ATP_TRANSPORT__POOL__MAX_CONNECTIONS_PER_HOST"));
        let [problem] = &problems_of_variable("ATP_PARALEL", "3")[..] else { panic!() };
        assert!(problem.hint.as_deref().unwrap().contains("ATP_PARALLEL"));
        assert_eq!(problems_of_variable("ATP_RANKINGS", "tennis"), []);
    }
}
