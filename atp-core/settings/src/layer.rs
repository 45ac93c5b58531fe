//! One source of settings: a file, the environment, a map, flags. Each of its values remembers where it stands.

use std::borrow::Cow;

use config::{ConfigError, Environment, Map, Source, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::ConfigProblem;

/// What stands between the parts of a key in the name of an environment variable.
const SEPARATOR: &str = "__";

/// One source of settings. [Check](crate::Schema::check) it before it is added to others.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    pub(crate) form: Form,
    pub(crate) table: Map<String, Value>,
}

/// How a source writes keys and values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// Values have types.
    #[default]
    Typed,
    /// Values may be text, to be read as what is wanted.
    Text,
    /// As [`Form::Text`], and keys are names of variables that start with this.
    Variables(String),
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.table.clone())
    }
}

impl Layer {
    /// The text of a TOML file. The origin of each value is `NAME:LINE`.
    ///
    /// # Errors
    /// The text is not TOML. The error does not quote it: the line could hold a password.
    pub fn toml(name: &str, text: &str) -> Result<Self, ConfigProblem> {
        // Found once: to count lines for each value would take the square of the time for a file of 10,000 hosts.
        let ends: Vec<usize> = text.match_indices('\n').map(|(end, _)| end).collect();
        let origin = |at: usize| format!("{name}:{}", ends.partition_point(|end| *end < at) + 1);
        match DeTable::parse(text) {
            Ok(table) => Ok(Layer { form: Form::Typed, table: of_toml(table.get_ref(), &origin) }),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                Err(ConfigProblem::new("", Some(origin(at)), error.message()).hint(
                    "the file is TOML: each section and each key in it is there once; values that are text, including durations and URIs, need quotes",
                ))
            }
        }
    }

    /// The environment variables whose names start with `prefix` and an underscore:
    /// `PREFIX_POOL__IDLE_TIMEOUT` is `pool.idle_timeout`. The origin of each value is the variable's name.
    pub fn environment(prefix: &str, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let source = Environment::with_prefix(prefix).prefix_separator("_").separator(SEPARATOR);
        let prefix = format!("{prefix}_");
        let mut layer = Layer { form: Form::Variables(prefix.clone()), ..Layer::default() };
        for (name, text) in variables.into_iter().filter(|(name, _)| name.starts_with(&prefix)) {
            // One at a time: the source itself does not tell which variable a value is from.
            let one = source.clone().source(Some(Map::from_iter([(name.clone(), text)])));
            for (key, value) in one.collect().unwrap_or_default() {
                layer.set(&key.split('.').collect::<Vec<_>>(), &name, value.kind);
            }
        }
        layer
    }

    /// Its values.
    pub fn table(&self) -> &Map<String, Value> {
        &self.table
    }

    /// A table that was checked before, or is plain data. Its values keep their origins.
    pub fn of_table(table: Map<String, Value>) -> Self {
        Layer { form: Form::Typed, table }
    }

    /// Keys with dots, and their values: `("pool.idle_timeout", "5m")`. Values may be text, as in variables.
    /// `origin` is what the source is called in messages.
    pub fn map<K, V>(origin: &str, entries: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: AsRef<str>,
        V: Into<ValueKind>,
    {
        let mut layer = Layer { form: Form::Text, ..Layer::default() };
        for (key, value) in entries {
            layer.set(&key.as_ref().split('.').collect::<Vec<_>>(), origin, value);
        }
        layer
    }

    /// Sets one value; the sections above it are made as needed. An empty path is no place and sets nothing.
    pub fn set(&mut self, path: &[&str], origin: &str, value: impl Into<ValueKind>) {
        let Some((last, sections)) = path.split_last() else { return };
        let origin = origin.to_owned();
        let mut table = &mut self.table;
        for key in sections {
            let section = table.entry((*key).to_owned()).or_default();
            if !matches!(section.kind, ValueKind::Table(_)) {
                *section = Value::new(Some(&origin), Map::<String, Value>::new());
            }
            let ValueKind::Table(inner) = &mut section.kind else { return };
            table = inner;
        }
        table.insert((*last).to_owned(), Value::new(Some(&origin), value));
    }

    /// What stands at a path: a value, or a table of further ones.
    pub fn get(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.table.get(*first)?, |value, key| match &value.kind {
            ValueKind::Table(table) => table.get(*key),
            _ => None,
        })
    }

    /// Every value with its path, by key.
    pub fn values(&self) -> Vec<(Vec<&str>, &Value)> {
        crate::values(&self.table)
    }
}

impl Form {
    /// A key as this source writes it.
    pub(super) fn key(&self, path: &[String]) -> String {
        match self {
            Form::Variables(prefix) => format!("{prefix}{}", path.join(SEPARATOR).to_uppercase()),
            Form::Typed | Form::Text => crate::key_text(path),
        }
    }
}

fn of_toml(table: &DeTable<'_>, origin: &impl Fn(usize) -> String) -> Map<String, Value> {
    let entry = |(key, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
        (key.get_ref().to_string(), of_toml_value(value, origin))
    };
    table.iter().map(entry).collect()
}

fn of_toml_value(value: &Spanned<DeValue<'_>>, origin: &impl Fn(usize) -> String) -> Value {
    let kind: ValueKind = match value.get_ref() {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Boolean(value) => (*value).into(),
        // A number beyond 64 bits is left as text, and is then of the wrong type wherever it stands.
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => number.into(),
            Err(_) => number.as_str().into(),
        },
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(number) => number.into(),
            Err(_) => number.as_str().into(),
        },
        DeValue::Datetime(time) => time.to_string().into(),
        DeValue::Array(items) => {
            items.iter().map(|item| of_toml_value(item, origin)).collect::<Vec<_>>().into()
        }
        DeValue::Table(table) => of_toml(table, origin).into(),
    };
    Value::new(Some(&origin(value.span().start)), kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Origin and text of a value.
    fn at<'a>(layer: &'a Layer, path: &[&str]) -> (Option<&'a str>, String) {
        let value = layer.get(path).unwrap();
        (value.origin(), value.to_string())
    }

    #[test]
    fn values_of_a_file_know_their_line() {
        let text = "timeout = \"5s\"\n\n[hosts.\"node.1\"]\nuri = \"test:///default\"\ngroups = [\"a\"]\n";
        let layer = Layer::toml("/x/atp.toml", text).unwrap();
        assert_eq!(at(&layer, &["timeout"]), (Some("/x/atp.toml:1"), "5s".to_owned()));
        assert_eq!(at(&layer, &["hosts", "node.1"]).0, Some("/x/atp.toml:3"));
        let uri = at(&layer, &["hosts", "node.1", "uri"]);
        assert_eq!(uri, (Some("/x/atp.toml:4"), "test:///default".to_owned()));
        let groups = layer.get(&["hosts", "node.1", "groups"]).unwrap().clone();
        assert_eq!(groups.try_deserialize::<Vec<String>>().unwrap(), ["a"]);
    }

    #[test]
    fn a_syntax_error_has_its_line_and_not_the_line_s_text() {
        let text = "timeout = \"5s\"\nuri = qemu+ssh://me:secret@h/system\n";
        let problem = Layer::toml("/x/atp.toml", text).unwrap_err();
        assert!(problem.to_string().starts_with("/x/atp.toml:2: "), "{problem:?}");
        assert!(!format!("{problem:?}").contains("secret"), "{problem:?}");
    }

    #[test]
    fn variables_are_paths() {
        let variables = [
            ("ATP_TRANSPORT__POOL__IDLE_TIMEOUT".to_owned(), "9s".to_owned()),
            ("ATP_HOSTS__H1__URI".to_owned(), "test:///default".to_owned()),
            ("ATPX_Y".to_owned(), "1".to_owned()),
            ("HOME".to_owned(), "/root".to_owned()),
        ];
        let layer = Layer::environment("ATP", variables);
        assert_eq!(
            at(&layer, &["transport", "pool", "idle_timeout"]),
            (Some("ATP_TRANSPORT__POOL__IDLE_TIMEOUT"), "9s".to_owned())
        );
        assert_eq!(layer.values().len(), 2);
        assert_eq!(layer.form.key(&["hosts".into(), "h1".into(), "uri".into()]), "ATP_HOSTS__H1__URI");
    }

    #[test]
    fn a_section_takes_the_place_of_a_value() {
        let mut layer = Layer::default();
        layer.set(&["a"], "one", 1);
        layer.set(&["a", "b"], "two", 2);
        assert_eq!(at(&layer, &["a", "b"]), (Some("two"), "2".to_owned()));
    }
}
