//! The description of the API, made from the table of routes and the types of `atp-api`.
//!
//! It is in the repository as `openapi.json`. A test compares the two, and asks for another [`API_VERSION`] when what there
//! was before has changed.

use std::collections::BTreeMap;

use atp_api::serve::Problem;
use axum::http::Method;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::auth::Access;
use crate::body::answer;
use crate::problem;
use crate::route::{Content, Parameter, Place, Route};

/// The version of the API. Its first number is that of the paths, and grows when clients of the version before would fail;
/// the second grows with what is added.
pub const API_VERSION: &str = "1.8";

/// The route at which clients fetch the description.
pub(crate) fn route(description: fn() -> Value) -> Route {
    let show = move || async move { answer(&description()) };
    Route::new(Method::GET, "/api/v1/openapi.json", Access::Open, show)
        .about("This description (OpenAPI 3.1).")
        .answers::<Value>(200)
}

/// The description of an API of these routes.
pub(crate) fn describe(routes: &[Route]) -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let mut content = |content: &Content| {
        let mut of_type = Map::new();
        if let Some(schema) = content.schema {
            of_type.insert("schema".to_owned(), schema(&mut generator).to_value());
        }
        json!({ content.media_type: of_type })
    };
    let problem = content(&Content { media_type: problem::CONTENT_TYPE, ..Content::json::<Problem>() });
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for route in routes {
        let mut answers = Map::new();
        for (status, body) in &route.answers {
            let mut described = json!({"description": "The answer."});
            if let (Some(body), Some(described)) = (body, described.as_object_mut()) {
                described.insert("content".to_owned(), content(body));
            }
            answers.insert(status.to_string(), described);
        }
        answers.insert("default".to_owned(), json!({"description": "Why not.", "content": problem}));
        let mut operation = json!({"summary": route.about, "operationId": id(route), "responses": answers});
        if let Some(operation) = operation.as_object_mut() {
            if !route.parameters.is_empty() {
                operation.insert("parameters".to_owned(), parameters(route));
            }
            if let Some(body) = &route.body {
                let mut described = json!({"required": true, "content": content(body)});
                if body.schema.is_none() || route.body_is_optional {
                    described["required"] = json!(false);
                }
                operation.insert("requestBody".to_owned(), described);
            }
            if route.access == Access::Open {
                operation.insert("security".to_owned(), json!([]));
            }
        }
        paths
            .entry(route.path.replace("{*", "{"))
            .or_default()
            .insert(route.method.as_str().to_ascii_lowercase(), operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ATP",
            "version": API_VERSION,
            "description": "One operation over many virtual machines, as a service.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "security": [{"token": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "atp_session"},
            },
        },
    })
}

/// A name for clients that are generated: the method, and the words of the path.
fn id(route: &Route) -> String {
    let path = route.path.trim_start_matches("/api/v1");
    let words = path.split(['/', '.', '*', '{', '}']).filter(|word| !word.is_empty());
    let words: Vec<_> = words.collect();
    let words = if words.is_empty() { "page".to_owned() } else { words.join("_") };
    format!("{}_{words}", route.method.as_str().to_ascii_lowercase())
}

fn parameters(route: &Route) -> Value {
    let parameter = |parameter: &Parameter| {
        let place = match parameter.place {
            Place::Path => "path",
            Place::Query => "query",
            Place::Header => "header",
        };
        json!({
            "name": parameter.name,
            "in": place,
            "description": parameter.about,
            "required": parameter.required,
            "schema": parameter.schema,
        })
    };
    route.parameters.iter().map(parameter).collect()
}
