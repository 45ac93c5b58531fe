//! A route of the API: its path, who may use it, its handler, and what its description says.

use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::json;

use crate::auth::Access;
use crate::state::Service;

/// A route of the API.
pub(crate) struct Route {
    pub(crate) method: Method,
    /// The path, with the names of its variable parts in braces.
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    /// What it does, in a sentence.
    pub(crate) about: &'static str,
    pub(crate) parameters: Vec<Parameter>,
    /// The type of its body.
    pub(crate) body: Option<Content>,
    pub(crate) body_is_optional: bool,
    /// The answers beside errors.
    pub(crate) answers: Vec<(u16, Option<Content>)>,
    pub(crate) handler: MethodRouter<Service>,
}

/// A parameter of a route.
#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) place: Place,
    pub(crate) about: &'static str,
    /// The JSON Schema of its value.
    pub(crate) schema: serde_json::Value,
    pub(crate) required: bool,
}

/// Where a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Path,
    Query,
    Header,
}

/// What a body is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content {
    pub(crate) media_type: &'static str,
    /// Its schema, where it is JSON.
    pub(crate) schema: Option<fn(&mut SchemaGenerator) -> Schema>,
}

impl Content {
    pub(crate) fn json<T: JsonSchema>() -> Self {
        let schema: fn(&mut SchemaGenerator) -> Schema = |generator| generator.subschema_for::<T>();
        Content { media_type: "application/json", schema: Some(schema) }
    }

    pub(crate) fn of(media_type: &'static str) -> Self {
        Content { media_type, schema: None }
    }
}

impl Route {
    pub(crate) fn new<H, T>(method: Method, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<T, Service>,
        T: 'static,
    {
        let filter = match method {
            Method::POST => MethodFilter::POST,
            Method::DELETE => MethodFilter::DELETE,
            Method::PUT => MethodFilter::PUT,
            _ => MethodFilter::GET,
        };
        let handler = on(filter, handler);
        Route {
            method,
            path,
            access,
            about: "",
            parameters: Vec::new(),
            body: None,
            body_is_optional: false,
            answers: Vec::new(),
            handler,
        }
    }

    /// A read.
    pub(crate) fn get<H: Handler<T, Service>, T: 'static>(path: &'static str, handler: H) -> Self {
        Route::new(Method::GET, path, Access::Look, handler)
    }

    pub(crate) fn about(self, about: &'static str) -> Self {
        Route { about, ..self }
    }

    fn parameter(
        mut self,
        place: Place,
        name: &'static str,
        about: &'static str,
        schema: serde_json::Value,
    ) -> Self {
        let required = place == Place::Path;
        self.parameters.push(Parameter { name, place, about, schema, required });
        self
    }

    /// A variable part of the path.
    pub(crate) fn part(self, name: &'static str, about: &'static str) -> Self {
        self.parameter(Place::Path, name, about, serde_json::json!({"type": "string"}))
    }

    /// A parameter of the query.
    pub(crate) fn query(self, name: &'static str, about: &'static str, schema: serde_json::Value) -> Self {
        self.parameter(Place::Query, name, about, schema)
    }

    /// A header.
    pub(crate) fn header(self, name: &'static str, about: &'static str) -> Self {
        self.parameter(Place::Header, name, about, serde_json::json!({"type": "string"}))
    }

    /// A body of JSON.
    pub(crate) fn takes<T: JsonSchema>(self) -> Self {
        Route { body: Some(Content::json::<T>()), ..self }
    }

    /// A body of another kind.
    pub(crate) fn takes_with(self, content: Content) -> Self {
        Route { body: Some(content), ..self }
    }

    /// A body of JSON, which may be left out.
    pub(crate) fn may_take<T: JsonSchema>(self) -> Self {
        Route { body_is_optional: true, ..self.takes::<T>() }
    }

    /// An answer of JSON.
    pub(crate) fn answers<T: JsonSchema>(self, status: u16) -> Self {
        self.answers_with(status, Some(Content::json::<T>()))
    }

    /// An answer.
    pub(crate) fn answers_with(mut self, status: u16, content: Option<Content>) -> Self {
        self.answers.push((status, content));
        self
    }
}

/// The schema of a parameter that may be repeated.
pub(crate) fn texts() -> serde_json::Value {
    json!({"type": "array", "items": {"type": "string"}})
}
