//! Settings from several sources: files, the environment, maps. Each value remembers where it was set, and
//! everything that is wrong with them is reported at once, with its key, its origin and the nearest known key.
//!
//! [`TransportConfig::builder`](crate::TransportConfig::builder) is made of this. A program with settings of its
//! own reads them together with the transport's in the same way: it puts both into one [`Schema`], checks each
//! [`Layer`] against it, lays the later over the earlier, and gives the transport's part to
//! [`TransportConfigBuilder::settings`](crate::TransportConfigBuilder::settings).
//!
//! ```
//! use atp_transport::TransportConfig;
//! use atp_transport::settings::{Kind, Layer, Schema, Settings};
//!
//! let schema = Schema::section([
//!     ("suite", Schema::Value(Kind::Text)),
//!     ("transport", TransportConfig::schema()),
//! ]);
//! let file = Layer::toml("tests.toml", "suite = 'smoke'\n[transport]\ncall_timeout = '5s'")?;
//! let variables = [("TESTS_TRANSPORT__CALL_TIMEOUT".to_owned(), "9s".to_owned())];
//!
//! let (mut settings, mut problems) = (Settings::default(), Vec::new());
//! for layer in [file, Layer::environment("TESTS", variables)] {
//!     settings.overlay(schema.check(layer, &mut problems));
//! }
//! assert_eq!(problems, []);
//! let transport = settings.section(&["transport"]).cloned().unwrap_or_default();
//! let config = TransportConfig::builder().settings("transport", &transport).build()?;
//! assert_eq!(config.call_timeout.as_secs(), 9);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod kind;
mod layer;
mod schema;

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use kind::Kind;
pub use layer::Layer;
pub(crate) use schema::CORRECT_IT;
pub use schema::Schema;

/// A section of settings: values and further sections, by key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    entries: BTreeMap<String, Setting>,
}

/// A value, or a section, and where it was set.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Where it was set: `FILE:LINE`, the name of a variable, or what the source calls itself.
    pub origin: String,
    /// What it was set to.
    pub value: Value,
}

/// What a key stands for.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A value.
    Plain(toml::Value),
    /// Further keys.
    Section(Settings),
}

impl Settings {
    /// What a struct of settings holds, all with one origin: the defaults, say.
    ///
    /// # Errors
    /// TOML has no such value, or it is no struct.
    pub fn of<T: Serialize>(origin: &str, settings: &T) -> Result<Self, toml::ser::Error> {
        Ok(Settings::of_table(toml::Table::try_from(settings)?, origin))
    }

    /// The entries, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.entries.iter().map(|(key, setting)| (key.as_str(), setting))
    }

    /// What stands at a path.
    pub fn get(&self, path: &[&str]) -> Option<&Setting> {
        let (last, sections) = path.split_last()?;
        let section = sections.iter().try_fold(self, |section, key| section.inner(key))?;
        section.entries.get(*last)
    }

    /// The section at a path; the whole for an empty one.
    pub fn section(&self, path: &[&str]) -> Option<&Settings> {
        path.iter().try_fold(self, |section, key| section.inner(key))
    }

    fn inner(&self, key: &str) -> Option<&Settings> {
        match &self.entries.get(key)?.value {
            Value::Section(section) => Some(section),
            Value::Plain(_) => None,
        }
    }

    /// Sets one value; the sections above it are made as needed. An empty path is no place and sets nothing.
    pub fn set(&mut self, path: &[&str], origin: &str, value: impl Into<toml::Value>) {
        let Some((last, sections)) = path.split_last() else { return };
        let mut section = self;
        for key in sections {
            let empty = || Setting { origin: origin.to_owned(), value: Value::Section(Settings::default()) };
            let entry = section.entries.entry((*key).to_owned()).or_insert_with(empty);
            if matches!(entry.value, Value::Plain(_)) {
                *entry = empty();
            }
            let Value::Section(inner) = &mut entry.value else { return };
            section = inner;
        }
        let setting = Setting { origin: origin.to_owned(), value: Value::Plain(value.into()) };
        section.entries.insert((*last).to_owned(), setting);
    }

    /// Lays other settings over these: where both have a value, theirs counts.
    pub fn overlay(&mut self, over: Settings) {
        for (key, theirs) in over.entries {
            match (self.entries.get_mut(&key), theirs) {
                (
                    Some(Setting { origin, value: Value::Section(ours) }),
                    Setting { origin: their_origin, value: Value::Section(theirs) },
                ) => {
                    *origin = their_origin;
                    ours.overlay(theirs);
                }
                (_, theirs) => {
                    self.entries.insert(key, theirs);
                }
            }
        }
    }

    /// Every value below, with its path and origin, by key.
    pub fn values(&self) -> Vec<(Vec<&str>, &str, &toml::Value)> {
        let mut values = Vec::new();
        for (key, setting) in self.iter() {
            match &setting.value {
                Value::Plain(value) => values.push((vec![key], setting.origin.as_str(), value)),
                Value::Section(section) => {
                    values.extend(section.values().into_iter().map(|(mut path, origin, value)| {
                        path.insert(0, key);
                        (path, origin, value)
                    }));
                }
            }
        }
        values
    }

    /// Reads them as a type; what the type does not know is passed over.
    ///
    /// # Errors
    /// A value does not fit the type, or one it needs is not set.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, toml::de::Error> {
        self.to_toml().try_into()
    }

    fn to_toml(&self) -> toml::Table {
        let plain = |setting: &Setting| match &setting.value {
            Value::Plain(value) => value.clone(),
            Value::Section(section) => section.to_toml().into(),
        };
        self.entries.iter().map(|(key, setting)| (key.clone(), plain(setting))).collect()
    }

    fn of_table(table: toml::Table, origin: &str) -> Self {
        let setting = |value| Setting {
            origin: origin.to_owned(),
            value: match value {
                toml::Value::Table(table) => Value::Section(Settings::of_table(table, origin)),
                value => Value::Plain(value),
            },
        };
        Settings { entries: table.into_iter().map(|(key, value)| (key, setting(value))).collect() }
    }
}

/// A path as it is written in a file: parts that are not bare keys stand in quotes.
pub fn key_text<S: AsRef<str>>(path: &[S]) -> String {
    let is_bare = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-*".contains(&b))
    };
    let text = |part: &S| match part.as_ref() {
        part if is_bare(part) => part.to_owned(),
        part => format!("{part:?}"),
    };
    path.iter().map(text).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_value_counts_and_brings_its_origin() {
        let mut settings = Settings::default();
        settings.set(&["a", "x"], "one", 1);
        settings.set(&["a", "y"], "one", 1);
        let mut over = Settings::default();
        over.set(&["a", "y"], "two", 2);
        over.set(&["b"], "two", true);
        settings.overlay(over);
        let values: Vec<_> = settings
            .values()
            .into_iter()
            .map(|(path, origin, value)| (key_text(&path), origin, value))
            .collect();
        assert_eq!(
            values,
            [
                ("a.x".to_owned(), "one", &1.into()),
                ("a.y".to_owned(), "two", &2.into()),
                ("b".to_owned(), "two", &true.into()),
            ]
        );
        assert_eq!(settings.get(&["a"]).unwrap().origin, "two");
        assert_eq!(settings.section(&["a", "x"]), None);
    }

    #[test]
    fn a_section_takes_the_place_of_a_value() {
        let mut settings = Settings::default();
        settings.set(&["a"], "one", 1);
        settings.set(&["a", "b"], "two", 2);
        assert_eq!(settings.read::<toml::Table>().unwrap().to_string(), "[a]\nb = 2\n");
    }

    #[test]
    fn keys_are_quoted_where_they_must_be() {
        assert_eq!(key_text(&["hosts", "node.1", "uri"]), "hosts.\"node.1\".uri");
    }
}
