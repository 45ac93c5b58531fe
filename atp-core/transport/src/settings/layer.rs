//! One source of settings: a file, the environment, a map.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::ConfigProblem;
use crate::settings::{Setting, Settings, Value};

/// What stands between the parts of a key in the name of an environment variable.
const SEPARATOR: &str = "__";

/// The settings of one source, before they are [checked](crate::settings::Schema::check).
#[derive(Debug, Clone)]
pub struct Layer {
    pub(super) form: Form,
    pub(super) settings: Settings,
}

/// How a source writes keys and values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// Values have types.
    Typed,
    /// Values may be text, to be read as what is wanted.
    Text,
    /// As [`Form::Text`], and keys are names of variables that start with this.
    Variables(String),
}

impl Layer {
    /// Settings put together by a program.
    pub fn new(settings: Settings) -> Self {
        Layer { form: Form::Typed, settings }
    }

    /// What the source says.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The text of a TOML file. The origin of each value is `NAME:LINE`.
    ///
    /// # Errors
    /// The text is not TOML. The error does not quote it: the line could hold a password.
    pub fn toml(name: &str, text: &str) -> Result<Self, ConfigProblem> {
        let origin = |at: usize| format!("{name}:{}", line_of(text, at));
        match DeTable::parse(text) {
            Ok(table) => Ok(Layer::new(of_toml(table.get_ref(), &origin))),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                Err(ConfigProblem::new("", Some(origin(at)), error.message()).hint(
                    "the file is TOML; values that are text, durations and URIs among them, stand in quotes",
                ))
            }
        }
    }

    /// The environment variables whose names start with `prefix` and an underscore:
    /// `PREFIX_POOL__IDLE_TIMEOUT` is `pool.idle_timeout`. The origin of each value is the variable's name.
    pub fn environment(prefix: &str, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let prefix = format!("{prefix}_");
        let mut settings = Settings::default();
        for (name, value) in variables {
            if let Some(key) = name.strip_prefix(&prefix) {
                let key = key.to_lowercase();
                settings.set(&key.split(SEPARATOR).collect::<Vec<_>>(), &name, value);
            }
        }
        Layer { form: Form::Variables(prefix), settings }
    }

    /// Keys with dots, and their values: `("pool.idle_timeout", "5m")`. Values may be text, as in variables.
    /// `origin` is what the source is called in messages.
    pub fn map<K, V>(origin: &str, entries: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: AsRef<str>,
        V: Into<toml::Value>,
    {
        let mut settings = Settings::default();
        for (key, value) in entries {
            settings.set(&key.as_ref().split('.').collect::<Vec<_>>(), origin, value);
        }
        Layer { form: Form::Text, settings }
    }
}

impl Form {
    /// Whether values are text, to be read as what is wanted.
    pub(super) fn is_text(&self) -> bool {
        *self != Form::Typed
    }

    /// A key as this source writes it.
    pub(super) fn key(&self, path: &[String]) -> String {
        match self {
            Form::Variables(prefix) => format!("{prefix}{}", path.join(SEPARATOR).to_uppercase()),
            Form::Typed | Form::Text => super::key_text(path),
        }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1
}

fn of_toml(table: &DeTable<'_>, origin: &impl Fn(usize) -> String) -> Settings {
    let entry = |(key, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
        let origin_here = origin(value.span().start);
        let value = match value.get_ref() {
            DeValue::Table(table) => Value::Section(of_toml(table, origin)),
            plain => Value::Plain(plain_value(plain)),
        };
        (key.get_ref().to_string(), Setting { origin: origin_here, value })
    };
    Settings { entries: table.iter().map(entry).collect() }
}

fn plain_value(value: &DeValue<'_>) -> toml::Value {
    match value {
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
        DeValue::Datetime(time) => (*time).into(),
        DeValue::Array(items) => {
            items.iter().map(|item| plain_value(item.get_ref())).collect::<Vec<_>>().into()
        }
        DeValue::Table(table) => {
            let entry = |(key, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                (key.get_ref().to_string(), plain_value(value.get_ref()))
            };
            table.iter().map(entry).collect::<toml::Table>().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'a>(layer: &'a Layer, path: &[&str]) -> (&'a str, &'a Value) {
        let setting = layer.settings.get(path).unwrap();
        (&setting.origin, &setting.value)
    }

    fn plain(value: impl Into<toml::Value>) -> Value {
        Value::Plain(value.into())
    }

    #[test]
    fn values_of_a_file_know_their_line() {
        let text = "timeout = \"5s\"\n\n[hosts.\"node.1\"]\nuri = \"test:///default\"\ngroups = [\"a\"]\n";
        let layer = Layer::toml("/x/atp.toml", text).unwrap();
        assert_eq!(at(&layer, &["timeout"]), ("/x/atp.toml:1", &plain("5s")));
        assert_eq!(at(&layer, &["hosts", "node.1"]).0, "/x/atp.toml:3");
        assert_eq!(at(&layer, &["hosts", "node.1", "uri"]), ("/x/atp.toml:4", &plain("test:///default")));
        assert_eq!(at(&layer, &["hosts", "node.1", "groups"]).1, &plain(vec!["a"]));
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
            ("ATP_TRANSPORT__POOL__IDLE_TIMEOUT", &plain("9s"))
        );
        assert_eq!(layer.settings.values().len(), 2);
        assert_eq!(layer.form.key(&["hosts".into(), "h1".into(), "uri".into()]), "ATP_HOSTS__H1__URI");
    }
}
