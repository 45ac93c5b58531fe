//! Whether the service lives, whether it is ready, and its metrics.

use atp_api::ErrorKind;
use atp_telemetry::OPENMETRICS;
use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use crate::auth::Access;
use crate::body::{answer, answer_with};
use crate::metrics::ServiceMetrics;
use crate::problem::Refusal;
use crate::router::{Content, Route};
use crate::state::Service;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/healthz", Access::Open, alive)
            .about("Answers 200 as long as the service lives.")
            .answers::<serde_json::Value>(200),
        Route::new(Method::GET, "/readyz", Access::Open, ready)
            .about("Answers 200 when the service takes work, and 503 when it ends.")
            .answers::<serde_json::Value>(200),
        Route::new(Method::GET, "/metrics", Access::Metrics, metrics)
            .about("Metrics of the hosts and of the service, for Prometheus.")
            .answers_with(200, Some(Content::of("application/openmetrics-text"))),
    ]
}

async fn alive() -> Response {
    answer(&json!({"status": "ok"}))
}

async fn ready(State(service): State<Service>) -> Response {
    if service.stopping().is_cancelled() {
        return Refusal::new(ErrorKind::ServiceStopping, "the service ends").into_response();
    }
    answer_with(StatusCode::OK, &json!({"status": "ok"}))
}

async fn metrics(State(service): State<Service>) -> Response {
    // For a thousand hosts this computes for some milliseconds.
    let text =
        tokio::task::spawn_blocking(move || service.exporter().render_with(ServiceMetrics(service.clone())))
            .await;
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => Refusal::new(ErrorKind::Panicked, "the metrics cannot be written").into_response(),
    }
}
