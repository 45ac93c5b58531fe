//! The format as a JSON Schema, for editors.

use serde_json::{Map, Value, json};

use super::fields::{Field, SCENARIO, Shape};
use super::step;

/// The JSON Schema of scenario files (draft 2020-12).
pub fn schema() -> Value {
    let mut schema = object(SCENARIO);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("A scenario of atp");
    schema["required"] = json!(["name", "targets", "steps"]);
    schema["$defs"] = json!({"step": step(), "scalar": scalar()});
    schema
}

fn step() -> Value {
    let mut step = object(&step::keys());
    let one_verb: Vec<_> = step::verb_names().iter().map(|verb| json!({"required": [verb]})).collect();
    step["oneOf"] = json!(one_verb);
    step
}

/// What is taken as it is written.
fn scalar() -> Value {
    json!({"type": ["string", "number", "boolean"]})
}

fn object(fields: &[Field]) -> Value {
    let property = |field: &Field| {
        let mut shape = shape(&field.shape);
        shape["description"] = json!(field.help);
        (field.name.to_owned(), shape)
    };
    let properties: Map<_, _> = fields.iter().map(property).collect();
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn shape(shape: &Shape) -> Value {
    let text = json!({"$ref": "#/$defs/scalar"});
    match shape {
        Shape::Text => text,
        Shape::Integer => json!({"type": "integer"}),
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Duration => {
            json!({"type": "string", "pattern": "^[0-9]+ ?(ms|s|m|h|min|sec)", "examples": ["30s", "2m"]})
        }
        Shape::Texts => json!({"anyOf": [text, {"type": "array", "items": text, "minItems": 1}]}),
        Shape::Named => json!({"type": "object", "additionalProperties": text}),
        Shape::Lists => {
            let values = json!({"type": "array", "items": text, "minItems": 1});
            json!({"type": "object", "additionalProperties": values, "minProperties": 1, "maxProperties": 1})
        }
        Shape::Choice(words) => json!({"enum": words}),
        Shape::Choices(words) => json!({"type": "array", "items": {"enum": words}, "minItems": 1}),
        Shape::Map(fields) => object(fields),
        Shape::Either(shapes) => json!({"anyOf": shapes.iter().map(self::shape).collect::<Vec<_>>()}),
        Shape::Steps => json!({"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 1}),
    }
}
