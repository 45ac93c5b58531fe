//! The routes, one table: the router is made from it, and the description of the API.

use axum::Router;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use tokio::time::Instant;

use crate::auth::{Access, guard};
use crate::problem::Refusal;
use crate::state::Service;
use crate::{events, files, hosts, observe, openapi, page, plans, runs, screenshots, session, verbs, vms};

/// What a page of the service may load and do: what the service itself serves, and nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

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
    handler: MethodRouter<Service>,
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

/// All routes.
pub(crate) fn routes() -> Vec<Route> {
    [
        page::routes(),
        observe::routes(),
        session::routes(),
        verbs::routes(),
        hosts::routes(),
        vms::routes(),
        screenshots::routes(),
        plans::routes(),
        files::routes(),
        runs::routes(),
        events::routes(),
        openapi::routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The router of the service.
pub(crate) fn router(service: &Service) -> Router {
    let mut router = Router::new();
    for Route { path, access, handler, .. } in routes() {
        let guarded = handler.layer(from_fn_with_state((service.clone(), access), guard));
        let guarded = guarded.layer(from_fn_with_state((service.clone(), path), measure));
        router = router.route(path, guarded);
    }
    router
        .fallback(nothing)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn(secure))
        .with_state(service.clone())
}

async fn nothing() -> Refusal {
    Refusal::nothing("there is nothing at this path")
}

async fn not_allowed() -> Refusal {
    let refusal = Refusal::invalid("the path does not take this method");
    refusal.with_status(axum::http::StatusCode::METHOD_NOT_ALLOWED)
}

/// Counts a request, with how long it took until its answer began.
async fn measure(
    State((service, path)): State<(Service, &'static str)>,
    request: Request,
    next: Next,
) -> Response {
    let (method, began) = (word(request.method()), Instant::now());
    let response = next.run(request).await;
    service.metrics().answered(path, method, response.status().as_u16(), began.elapsed());
    response
}

/// The word of a method: of those of routes only, as clients may send any.
fn word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// Adds the headers that tell a browser what it may not do with an answer.
async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    // What is said about VMs stays in no cache.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
