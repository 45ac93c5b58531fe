//! The description of the API is the one in the repository, and grows only in ways that clients stand.

use std::path::Path;

use serde_json::Value;

fn file() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json")
}

/// `ATP_UPDATE_OPENAPI=1` writes the file anew.
#[test]
fn the_file_is_what_the_service_says() {
    let mut text = serde_json::to_string_pretty(&atp_serve::openapi()).unwrap();
    text.push('\n');
    if std::env::var_os("ATP_UPDATE_OPENAPI").is_some() {
        std::fs::write(file(), &text).unwrap();
    }
    let known = std::fs::read_to_string(file()).unwrap_or_default();
    assert!(
        known == text,
        "the API has changed: if that is meant, raise API_VERSION in openapi.rs, and run this test with ATP_UPDATE_OPENAPI=1"
    );
}

#[test]
fn every_reference_leads_to_a_schema() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
                Value::String(text) if name == "$ref" => found.push(text.clone()),
                value => references(value, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let openapi = atp_serve::openapi();
    let mut found = Vec::new();
    references(&openapi, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        assert!(openapi.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}

#[test]
fn every_operation_has_a_name_of_its_own() {
    let openapi = atp_serve::openapi();
    let paths = openapi["paths"].as_object().unwrap();
    let operations = paths.values().flat_map(|path| path.as_object().unwrap().values());
    let mut ids: Vec<_> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all);
}
