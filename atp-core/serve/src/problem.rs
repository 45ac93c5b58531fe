//! Errors of the API: `application/problem+json`, with ATP's kinds and hints.

use std::time::Duration;

use atp_api::serve::{FieldProblem, Problem};
use atp_api::{ErrorKind, Hint, OutcomeError};
use atp_executor::{PlanError, SelectorError};
use atp_transport::TransportError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// The type of the body of every error.
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// Why a request is not carried out.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    status: StatusCode,
    kind: ErrorKind,
    detail: String,
    hint: Option<Hint>,
    errors: Vec<FieldProblem>,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal with the status and the hint of its kind.
    pub(crate) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Refusal {
            status: status_of(kind),
            kind,
            detail: detail.into(),
            hint: Some(kind.hint()),
            errors: Vec::new(),
            retry_after: None,
        }
    }

    /// The request is not a valid one.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Refusal::new(ErrorKind::InvalidRequest, detail)
    }

    /// A field or parameter of the request is not a valid one.
    pub(crate) fn field(field: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let error = FieldProblem { field: field.to_owned(), message: message.clone() };
        Refusal { errors: vec![error], ..Refusal::invalid(format!("{field}: {message}")) }
    }

    /// There is nothing at the path.
    pub(crate) fn nothing(detail: impl Into<String>) -> Self {
        Refusal { hint: None, ..Refusal::new(ErrorKind::NothingThere, detail) }
    }

    /// More than a limit allows. The client may try again after this time.
    pub(crate) fn too_many(detail: impl Into<String>, retry_after: Duration) -> Self {
        Refusal { retry_after: Some(retry_after), ..Refusal::new(ErrorKind::RateLimited, detail) }
    }

    /// Replaces the hint.
    pub(crate) fn with_hint(self, hint: impl Into<Hint>) -> Self {
        Refusal { hint: Some(hint.into()), ..self }
    }

    /// Replaces the status.
    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Refusal { status, ..self }
    }

    /// The kind.
    pub(crate) fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The body.
    fn problem(&self) -> Problem {
        Problem {
            uri: format!("urn:atp:problem:{}", self.kind),
            title: self.status.canonical_reason().unwrap_or("error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            kind: self.kind,
            hint: self.hint.clone(),
            errors: self.errors.clone(),
        }
    }
}

/// The HTTP status of a kind.
fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotAuthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnly => StatusCode::FORBIDDEN,
        ErrorKind::NothingThere
        | ErrorKind::UnknownHost
        | ErrorKind::UnknownGroup
        | ErrorKind::VmNotFound
        | ErrorKind::SnapshotNotFound => StatusCode::NOT_FOUND,
        ErrorKind::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        ErrorKind::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::Conflict
        | ErrorKind::VmNotRunning
        | ErrorKind::VmMoved
        | ErrorKind::OperationInvalid
        | ErrorKind::NoScreen
        | ErrorKind::SnapshotExists
        | ErrorKind::SnapshotImpossible
        | ErrorKind::NoHosts => StatusCode::CONFLICT,
        ErrorKind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::ServiceStopping | ErrorKind::StorageFailed => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::InvalidRequest
        | ErrorKind::InvalidSelector
        | ErrorKind::InvalidCommand
        | ErrorKind::InvalidHostId
        | ErrorKind::StepUnfit => StatusCode::BAD_REQUEST,
        ErrorKind::NotSupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::CallTimeout | ErrorKind::DeadlinePassed => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Panicked | ErrorKind::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        // All others are about a host or a VM that the service asked.
        _ => StatusCode::BAD_GATEWAY,
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.problem()).unwrap_or_default();
        let mut response = (self.status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response();
        if let Some(after) = self.retry_after {
            let seconds = after.as_millis().div_ceil(1000).max(1);
            if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

impl From<OutcomeError> for Refusal {
    fn from(error: OutcomeError) -> Self {
        let detail = [vec![error.message], error.causes].concat().join(": ");
        Refusal { hint: error.hint, ..Refusal::new(error.kind, detail) }
    }
}

impl From<TransportError> for Refusal {
    fn from(error: TransportError) -> Self {
        Refusal::from(OutcomeError::from(&error))
    }
}

impl From<PlanError> for Refusal {
    fn from(error: PlanError) -> Self {
        if let PlanError::NoPause { field } = error {
            return Refusal::field(&format!("policy.{field}"), "leaves no pause between two looks at a VM");
        }
        Refusal::new(error.kind(), error.to_string()).with_hint(error.hint())
    }
}

impl From<SelectorError> for Refusal {
    fn from(error: SelectorError) -> Self {
        let problem = FieldProblem { field: "selector".to_owned(), message: error.to_string() };
        Refusal {
            errors: vec![problem],
            ..Refusal::new(error.kind(), error.to_string()).with_hint(error.hint())
        }
    }
}
