//! The table of all routes: the router is made from it, and the description of the API.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use serde_json::Value;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::auth::guard;
use crate::openapi::{self};
use crate::problem::Refusal;
use crate::route::Route;
use crate::state::Service;
use crate::{
    attach, events, files, hosts, observe, page, plans, reservations, runs, screenshots, session, usage,
    verbs, vms,
};

/// What a page of the service may load and do: what the service itself serves, and nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// All routes.
pub(crate) fn routes() -> Vec<Route> {
    [
        page::routes(),
        observe::routes(),
        session::routes(),
        verbs::routes(),
        hosts::routes(),
        vms::routes(),
        reservations::routes(),
        usage::routes(),
        screenshots::routes(),
        attach::routes(),
        plans::routes(),
        files::routes(),
        runs::routes(),
        events::routes(),
        vec![openapi::route(openapi)],
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The description of the API.
pub fn openapi() -> Value {
    openapi::describe(&routes())
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
    let refusal = Refusal::nothing("there is nothing at this path");
    refusal.with_hint(
        "check the address of the service: it is SCHEME://HOST:PORT, and paths are those of its API",
    )
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
    let span = tracing::debug_span!("request", method, route = path, status = tracing::field::Empty);
    let response = next.run(request).instrument(span.clone()).await;
    span.record("status", response.status().as_u16());
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
