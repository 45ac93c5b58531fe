//! One source of settings: a file, the environment, the flags or the defaults. Each of its values remembers
//! where it stands.

use std::path::Path;

use config::{ConfigError, Map, Source, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::Problem;

/// The origin of values nobody set.
pub(crate) const DEFAULT: &str = "default";

/// What the names of environment variables start with.
pub(crate) const ENV_PREFIX: &str = "ATP_";

/// What stands between the parts of a key in the name of an environment variable.
const ENV_SEPARATOR: &str = "__";

/// One source of settings, as a table.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// Whether values are text to be read as what is wanted, as those of the environment are.
    pub(crate) is_text: bool,
    /// The values, each with its origin.
    pub(crate) table: Map<String, Value>,
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
    /// A layer without values.
    pub(crate) fn empty() -> Self {
        Layer { is_text: false, table: Map::new() }
    }

    /// The defaults.
    pub(crate) fn defaults(values: &serde_json::Value) -> Self {
        match from_json(values).kind {
            ValueKind::Table(table) => Layer { is_text: false, table },
            _ => Layer::empty(),
        }
    }

    /// A file's text. The origin of each value is `FILE:LINE`.
    ///
    /// # Errors
    /// The text is not TOML.
    pub(crate) fn file(path: &Path, text: &str) -> Result<Self, Problem> {
        let origin = |at: usize| format!("{}:{}", path.display(), line_of(text, at));
        match DeTable::parse(text) {
            Ok(table) => Ok(Layer { is_text: false, table: from_toml(table.get_ref(), &origin) }),
            Err(error) => {
                // The message without the excerpt: the line could hold a password.
                let at = error.span().map_or(0, |span| span.start);
                Err(Problem::new(format!("{}: {}", origin(at), error.message())).hint(
                    "the file is TOML; values that are text, durations and URIs among them, stand in quotes",
                ))
            }
        }
    }

    /// The variables of the environment whose names start with `ATP_`; the origin of each is its name.
    pub(crate) fn environment(vars: &[(String, String)]) -> Self {
        let mut layer = Layer { is_text: true, table: Map::new() };
        for (name, value) in vars {
            if let Some(key) = name.strip_prefix(ENV_PREFIX) {
                let key = key.to_lowercase();
                let path: Vec<_> = key.split(ENV_SEPARATOR).collect();
                layer.set(&path, name, value.as_str());
            }
        }
        layer
    }

    /// Sets one value.
    pub(crate) fn set(&mut self, path: &[&str], origin: &str, value: impl Into<ValueKind>) {
        let Some((last, sections)) = path.split_last() else { return };
        let mut table = &mut self.table;
        for section in sections {
            let entry = table.entry((*section).to_owned()).or_insert_with(|| table_value(origin));
            if !matches!(entry.kind, ValueKind::Table(_)) {
                *entry = table_value(origin);
            }
            let ValueKind::Table(inner) = &mut entry.kind else { return };
            table = inner;
        }
        table.insert((*last).to_owned(), Value::new(Some(&origin.to_owned()), value));
    }
}

/// The name of the environment variable that sets a key.
pub(crate) fn variable(path: &[String]) -> String {
    format!("{ENV_PREFIX}{}", path.join(ENV_SEPARATOR).to_uppercase())
}

fn table_value(origin: &str) -> Value {
    Value::new(Some(&origin.to_owned()), Map::<String, Value>::new())
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1
}

fn from_toml(table: &DeTable<'_>, origin: &impl Fn(usize) -> String) -> Map<String, Value> {
    let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let key: &std::borrow::Cow<'_, str> = key.get_ref();
        (key.to_string(), from_toml_value(value, origin))
    };
    table.iter().map(entry).collect()
}

fn from_toml_value(value: &Spanned<DeValue<'_>>, origin: &impl Fn(usize) -> String) -> Value {
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
        DeValue::Table(table) => from_toml(table, origin).into(),
        DeValue::Array(items) => {
            items.iter().map(|item| from_toml_value(item, origin)).collect::<Vec<_>>().into()
        }
    };
    Value::new(Some(&origin(value.span().start)), kind)
}

fn from_json(value: &serde_json::Value) -> Value {
    let kind: ValueKind = match value {
        serde_json::Value::Null => ValueKind::Nil,
        serde_json::Value::Bool(value) => (*value).into(),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => number.into(),
            None => number.as_f64().unwrap_or_default().into(),
        },
        serde_json::Value::String(text) => text.as_str().into(),
        serde_json::Value::Array(items) => items.iter().map(from_json).collect::<Vec<_>>().into(),
        serde_json::Value::Object(fields) => {
            fields.iter().map(|(key, value)| (key.clone(), from_json(value))).collect::<Map<_, _>>().into()
        }
    };
    Value::new(Some(&DEFAULT.to_owned()), kind)
}

/// A value of a layer as JSON, without its origins.
pub(crate) fn to_json(value: &Value) -> serde_json::Value {
    match &value.kind {
        ValueKind::Nil => serde_json::Value::Null,
        ValueKind::Boolean(value) => (*value).into(),
        ValueKind::I64(number) => (*number).into(),
        ValueKind::U64(number) => (*number).into(),
        ValueKind::Float(number) => (*number).into(),
        ValueKind::String(text) => text.as_str().into(),
        ValueKind::I128(_) | ValueKind::U128(_) => value.to_string().into(),
        ValueKind::Array(items) => items.iter().map(to_json).collect(),
        ValueKind::Table(table) => table.iter().map(|(key, value)| (key.clone(), to_json(value))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'a>(layer: &'a Layer, path: &[&str]) -> &'a Value {
        let (last, sections) = path.split_last().unwrap();
        let mut table = &layer.table;
        for section in sections {
            let ValueKind::Table(inner) = &table[*section].kind else { panic!("{section} is no table") };
            table = inner;
        }
        &table[*last]
    }

    #[test]
    fn values_of_a_file_know_their_line() {
        let text = "timeout = \"5s\"\n\n[hosts.\"node.1\"]\nuri = \"test:///default\"\ngroups = [\"a\"]\n";
        let layer = Layer::file(Path::new("/x/atp.toml"), text).unwrap();
        assert_eq!(at(&layer, &["timeout"]).origin(), Some("/x/atp.toml:1"));
        let uri = at(&layer, &["hosts", "node.1", "uri"]);
        assert_eq!((uri.origin(), uri.to_string().as_str()), (Some("/x/atp.toml:4"), "test:///default"));
        assert_eq!(to_json(at(&layer, &["hosts", "node.1", "groups"])), serde_json::json!(["a"]));
    }

    #[test]
    fn a_syntax_error_has_its_line_and_not_the_line_s_text() {
        let text = "timeout = \"5s\"\nuri = qemu+ssh://me:secret@h/system\n";
        let problem = Layer::file(Path::new("/x/atp.toml"), text).unwrap_err();
        assert!(problem.message.starts_with("/x/atp.toml:2: "), "{problem:?}");
        assert!(!format!("{problem:?}").contains("secret"), "{problem:?}");
    }

    #[test]
    fn variables_are_paths() {
        let vars = [
            ("ATP_TRANSPORT__POOL__IDLE_TIMEOUT".to_owned(), "9s".to_owned()),
            ("ATP_HOSTS__H1__URI".to_owned(), "test:///default".to_owned()),
            ("HOME".to_owned(), "/root".to_owned()),
        ];
        let layer = Layer::environment(&vars);
        let idle = at(&layer, &["transport", "pool", "idle_timeout"]);
        assert_eq!(
            (idle.origin(), idle.to_string().as_str()),
            (Some("ATP_TRANSPORT__POOL__IDLE_TIMEOUT"), "9s")
        );
        assert_eq!(layer.table.len(), 2);
        assert_eq!(variable(&["hosts".into(), "h1".into(), "uri".into()]), "ATP_HOSTS__H1__URI");
    }
}
