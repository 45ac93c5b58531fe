//! Settings in layers: files, the environment, maps. The `config` crate merges them and converts them to types. This crate
//! adds two things: each value has an origin (its line or variable), and all problems are reported at once, each with its
//! key, its origin and the nearest known key.
//!
//! Every program of ATP reads its settings with [`load`]: from [`Sources`], by a [`Schema`]. A library that reads a part of
//! them has the schema of that part and loads the same sources. The program adds its own keys, so that neither reports the
//! other's keys as unknown.
//!
//! ```
//! use atp_settings::{Kind, Layer, Schema, Sources, load};
//!
//! let schema = Schema::section([("suite", Schema::Value(Kind::Text)), ("timeout", Schema::Value(Kind::Timeout))]);
//! let sources = Sources::default()
//!     .with_defaults(Layer::map("default", [("suite", "all"), ("timeout", "1m")]))
//!     .with_toml("tests.toml", "timeout = '5s'\nsiute = 'smoke'")
//!     .with_environment("TESTS", [("TESTS_TIMEOUT".to_owned(), "9s".to_owned())]);
//!
//! let mut problems = Vec::new();
//! let loaded = load(&sources, &schema, &mut problems);
//! assert_eq!(loaded.merged.get_string("timeout")?, "9s");
//! assert_eq!(loaded.origin(&["timeout"]), Some("TESTS_TIMEOUT"));
//! assert_eq!(problems[0].to_string(), "tests.toml:2: unknown key `siute`");
//! assert_eq!(problems[0].hint.as_deref(), Some("did you mean `suite`?"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Glossary
//!
//! - **Source**: a file, the environment, a map, the flags.
//! - **Layer**: the values of one source. A later layer replaces an earlier one, value by value.
//! - **Origin**: where a value was set: `FILE:LINE`, the name of a variable, or the name given to a map.
//! - **Key**: the path to a value, written with dots: `pool.idle_timeout`. A **section** is a table of further keys.
//! - **Schema**: the known keys and the kind of each value.
//! - **Kind**: what a value may be: a duration, a count, one of some words.
//! - **Foreign key**: a key of another program that reads the same file. It is ignored.
//! - **Former name**: an old name of a key. It is still read.
//! - **Problem**: a value or a source that cannot be used, with its key, its origin and what the user can try.

mod duration;
mod kind;
mod layer;
mod load;
mod plain;
mod problem;
mod schema;
mod secret;

use config::{Map, Value, ValueKind};

pub use duration::{DurationError, LONGEST, parse_duration, parse_positive_duration};
pub use kind::Kind;
pub use layer::Layer;
pub use load::{Loaded, Sources, load};
pub use plain::table_of;
pub use problem::{ConfigError, ConfigProblem};
pub use schema::{CORRECT_IT, Schema};
pub use secret::mask_uri;

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
