//! `docs/configuration.md` agrees with the configuration types.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use atp_transport::settings::{Kind, Schema};
use atp_transport::{SelectionStrategy, TransportConfig, TransportConfigBuilder};

/// A key's row: type, default and meaning, as on the page.
type Rows = BTreeMap<String, (String, String, String)>;

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md")).unwrap()
}

/// The rows of all tables, by key.
fn rows(page: &str) -> Rows {
    let mut rows = Rows::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [key, kind, default, meaning] = cells[..] else { panic!("not four cells: {line}") };
        let row = (kind.to_owned(), default.trim_matches('`').to_owned(), meaning.to_owned());
        assert_eq!(rows.insert(key.trim_matches('`').to_owned(), row), None, "{key} is on the page twice");
    }
    rows
}

/// The type and default of every key.
fn keys() -> BTreeMap<String, (String, String)> {
    fn collect(
        schema: &Schema,
        value: &toml::Value,
        key: String,
        keys: &mut BTreeMap<String, (String, String)>,
    ) {
        let kind = match schema {
            Schema::Section(sections) => {
                let present = sections.iter().filter(|(_, schema)| !matches!(schema, Schema::Renamed(_)));
                for (name, schema) in present {
                    let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    collect(schema, &value[name], key, keys);
                }
                return;
            }
            Schema::Value(Kind::Bool) => "true or false",
            Schema::Value(Kind::Count) => "whole number",
            Schema::Value(Kind::Number) => "number",
            Schema::Value(Kind::Duration) => "duration",
            Schema::Value(Kind::Choice(_)) => "word",
            other => panic!("{key} takes {other:?}: the page has no name for it"),
        };
        let default = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        keys.insert(key, (kind.to_owned(), default));
    }
    let defaults = toml::Value::try_from(TransportConfig::default()).unwrap();
    let mut keys = BTreeMap::new();
    collect(&TransportConfig::schema(), &defaults, String::new(), &mut keys);
    keys
}

#[test]
fn the_page_has_every_key_with_its_type_and_default_and_no_other() {
    let rows = rows(&page());
    let shown: BTreeMap<_, _> =
        rows.iter().map(|(key, (kind, default, _))| (key.clone(), (kind.clone(), default.clone()))).collect();
    let keys = keys();
    let missing: Vec<_> = keys.keys().filter(|key| !shown.contains_key(*key)).collect();
    assert!(missing.is_empty(), "not on the page: {missing:?}");
    let unknown: Vec<_> = shown.keys().filter(|key| !keys.contains_key(*key)).collect();
    assert!(unknown.is_empty(), "on the page, but no key: {unknown:?}");
    assert_eq!(shown, keys, "type or default differs: the page on the left");
}

#[test]
fn every_key_has_a_meaning_and_every_strategy_is_named() {
    let rows = rows(&page());
    for (key, (_, _, meaning)) in &rows {
        assert!(meaning.len() > 20 && meaning.ends_with('.'), "{key}: {meaning:?}");
    }
    for &strategy in SelectionStrategy::ALL {
        assert!(
            rows["pool.selection_strategy"].2.contains(&format!("`{strategy}`")),
            "{strategy} is not named"
        );
    }
}

#[test]
fn keys_that_cannot_differ_between_hosts_are_named() {
    fn names(schema: &Schema, prefix: &str) -> Vec<String> {
        let Schema::Section(keys) = schema else { return vec![prefix.trim_matches('.').to_owned()] };
        keys.iter().flat_map(|(key, schema)| names(schema, &format!("{prefix}.{key}"))).collect()
    }
    let page = page();
    let (_, after) = page.split_once("apply to all hosts together and cannot differ").unwrap();
    let paragraph = after.split("\n\n").next().unwrap();
    let named: Vec<_> = paragraph.split('`').skip(1).step_by(2).collect();
    let all = names(&TransportConfig::schema(), "");
    let of_hosts = names(&TransportConfig::host_schema(), "");
    let shared: Vec<_> = all.iter().filter(|key| !of_hosts.contains(key)).collect();
    assert_eq!(named, shared);
}

#[test]
fn the_examples_are_valid() {
    let page = page();
    let examples: Vec<_> =
        page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 2);
    let read = |builder: TransportConfigBuilder, text: &str| builder.toml(text).build().unwrap();
    read(TransportConfig::builder(), examples[0]);

    let whole: toml::Table = examples[1].parse().unwrap();
    let text = |section: &toml::Value| toml::to_string(section).unwrap();
    let common = read(TransportConfig::builder(), &text(&whole["transport"]));
    let own = read(common.to_builder(), &text(&whole["hosts"]["edge-7"]["transport"]));
    common.validate_for_host(&own).unwrap();
}
