//! Plain data as a table of settings.

use config::{Map, Value, ValueKind};
use serde::Serialize;
use serde_json::Value as Json;

/// Plain data, such as defaults, as a table. The `config` crate's own way puts all values together anew for each
/// one that is added, which every start of a program that reads settings would have to wait for.
///
/// # Errors
/// The data is no table: not a structure or a map with text as keys.
pub fn table_of(data: &impl Serialize) -> Result<Map<String, Value>, serde_json::Error> {
    let table: serde_json::Map<String, Json> = serde_json::from_value(serde_json::to_value(data)?)?;
    Ok(of_object(table))
}

fn of_object(object: serde_json::Map<String, Json>) -> Map<String, Value> {
    object.into_iter().map(|(key, value)| (key, Value::new(None, kind_of(value)))).collect()
}

fn kind_of(value: Json) -> ValueKind {
    match value {
        Json::Null => ValueKind::Nil,
        Json::Bool(value) => value.into(),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.as_f64().into(),
        },
        Json::String(text) => text.into(),
        Json::Array(items) => {
            items.into_iter().map(|item| Value::new(None, kind_of(item))).collect::<Vec<_>>().into()
        }
        Json::Object(object) => of_object(object).into(),
    }
}
