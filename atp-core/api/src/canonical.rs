//! The one form of a JSON value among all that mean the same.

use std::fmt::Write as _;

use serde_json::Value;

/// The value as JSON with sorted keys and without whitespace, so that equal values have equal texts.
///
/// ```
/// use atp_api::canonical_json;
///
/// let value = serde_json::json!({"b": [1, {"d": null, "c": "x y"}], "a": true});
/// assert_eq!(canonical_json(&value), r#"{"a":true,"b":[1,{"c":"x y","d":null}]}"#);
/// ```
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Array(values) => {
            text.push('[');
            for (place, value) in values.iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                write(value, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            // A map of serde_json is in the order of insertion if any crate asks for that.
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (place, (key, value)) in fields.into_iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                write(&Value::String(key.clone()), text);
                text.push(':');
                write(value, text);
            }
            text.push('}');
        }
        // Writing to a string does not fail.
        scalar => write!(text, "{scalar}").unwrap_or_default(),
    }
}
