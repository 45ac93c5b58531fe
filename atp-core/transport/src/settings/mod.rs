//! Settings from several sources: files, the environment, maps. The `config` crate lays them over
//! each other and reads them as types. Here is what it lacks: each value remembers its line or variable, and
//! everything that is wrong is reported at once, with its key, its origin and the nearest known key.
//!
//! [`TransportConfig::builder`](crate::TransportConfig::builder) is made of this. A program with settings of its
//! own reads them together with the transport's in the same way: it puts both into one [`Schema`], checks each
//! [`Layer`] against it, merges them, and gives the transport's part to
//! [`TransportConfigBuilder::settings`](crate::TransportConfigBuilder::settings).
//!
//! ```
//! use atp_transport::TransportConfig;
//! use atp_transport::settings::{Kind, Layer, Schema};
//! use config::Config;
//!
//! let schema = Schema::section([
//!     ("suite", Schema::Value(Kind::Text)),
//!     ("transport", TransportConfig::schema()),
//! ]);
//! let file = Layer::toml("tests.toml", "suite = 'smoke'\n[transport]\ncall_timeout = '5s'")?;
//! let variables = [("TESTS_TRANSPORT__CALL_TIMEOUT".to_owned(), "9s".to_owned())];
//!
//! let (mut merged, mut problems) = (Config::builder(), Vec::new());
//! for layer in [file, Layer::environment("TESTS", variables)] {
//!     merged = merged.add_source(schema.check(layer, &mut problems));
//! }
//! assert_eq!(problems, []);
//! let transport = merged.build()?.get_table("transport")?;
//! let config = TransportConfig::builder().settings("transport", &transport).build()?;
//! assert_eq!(config.call_timeout.as_secs(), 9);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod duration;
mod hosts;
mod kind;
mod layer;
mod plain;
mod schema;

use config::{Map, Value, ValueKind};

pub(crate) use duration::LONGEST;
pub use duration::{DurationError, parse_duration, parse_positive_duration};
pub use hosts::{host_schema, read_hosts};
pub use kind::Kind;
pub use layer::Layer;
pub use plain::table_of;
pub(crate) use schema::CORRECT_IT;
pub use schema::Schema;

/// Every value in a table and the tables in it, with its path, by key.
pub fn values(table: &Map<String, Value>) -> Vec<(Vec<&str>, &Value)> {
    let mut values = Vec::new();
    for (key, value) in sorted(table) {
        match &value.kind {
            ValueKind::Table(inner) => values.extend(
                self::values(inner).into_iter().map(|(path, value)| ([&[key], &path[..]].concat(), value)),
            ),
            _ => values.push((vec![key], value)),
        }
    }
    values
}

fn sorted(table: &Map<String, Value>) -> Vec<(&str, &Value)> {
    let mut entries: Vec<_> = table.iter().map(|(key, value)| (key.as_str(), value)).collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
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
    fn keys_are_quoted_where_they_must_be() {
        assert_eq!(key_text(&["hosts", "node.1", "uri"]), "hosts.\"node.1\".uri");
    }
}
