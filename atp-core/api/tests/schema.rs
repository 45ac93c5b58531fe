//! The JSON Schema that is checked in is that of the types.
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::path::Path;
use std::{env, fs};

use serde_json::Value;

#[test]
fn the_schema_in_the_repository_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.json");
    let schema = atp_api::json_schema();
    if env::var_os("ATP_UPDATE_SCHEMA").is_some() {
        fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&schema).unwrap())).unwrap();
    }
    let written: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert!(
        written == schema,
        "atp-core/api/schema.json differs from the types. If a reader of the version before cannot read the change, raise \
         atp_api::VERSION; then `ATP_UPDATE_SCHEMA=1 cargo test -p atp-api --test schema` writes the file anew"
    );
}

#[test]
fn the_schema_has_what_is_exchanged_and_every_reference_leads_to_a_definition() {
    let schema = atp_api::json_schema();
    let definitions = schema["$defs"].as_object().unwrap();
    for name in ["RunRequest", "PlanReport", "RunEvent", "Outcome", "OperationSpec", "ErrorKind"] {
        assert!(definitions.contains_key(name), "{name}");
    }
    check_references(&schema, &|name| definitions.contains_key(name));
}

fn check_references(value: &Value, is_defined: &impl Fn(&str) -> bool) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let name = reference.strip_prefix("#/$defs/").unwrap();
                assert!(is_defined(name), "{name} is not defined");
            }
            fields.values().for_each(|value| check_references(value, is_defined));
        }
        Value::Array(values) => values.iter().for_each(|value| check_references(value, is_defined)),
        _ => {}
    }
}
