//! Bodies and parameters of requests, read with limits; and answers.

use std::collections::BTreeMap;

use atp_api::{ErrorKind, RequestError, read_request};
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::problem::Refusal;
use crate::state::Service;

/// The header by which a client names a request that it may send again.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The most characters of a client's key.
const MAX_KEY: usize = 256;

/// The most parameters of a request.
const MAX_PARAMETERS: usize = 64;

/// The body of a request as JSON. Fields that are not known are refused by name.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize + DeserializeOwned> FromRequest<Service> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, service: &Service) -> Result<Self, Refusal> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_json = kind.is_some_and(|kind| {
            kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
        });
        if !is_json {
            let refusal = Refusal::field("content-type", "expected application/json");
            return Err(refusal.with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let bytes = read(service, request.into_body()).await?;
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|error| Refusal::invalid(format!("the body is not JSON: {error}")))?;
        match read_request(&value) {
            Ok(read) => Ok(Json(read)),
            Err(RequestError::UnknownField { path }) => Err(Refusal::field(&path, "is not known")),
            Err(error) => Err(Refusal::invalid(error.to_string())),
        }
    }
}

/// Reads a whole body, within the limits of size and time.
async fn read(service: &Service, body: Body) -> Result<Bytes, Refusal> {
    let config = service.config();
    let read = tokio::time::timeout(config.request_timeout, to_bytes(body, config.max_body));
    match read.await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            let mut source = std::error::Error::source(&error);
            let mut is_length = false;
            while let Some(cause) = source {
                is_length |= cause.is::<http_body_util::LengthLimitError>();
                source = cause.source();
            }
            Err(match is_length {
                true => {
                    let problem = format!("the body has more than {} bytes", config.max_body);
                    Refusal::new(ErrorKind::RequestTooLarge, problem)
                }
                false => Refusal::invalid("the body cannot be read"),
            })
        }
        Err(_) => Err(Refusal::new(ErrorKind::RequestTimeout, "the body was not sent in time")),
    }
}

/// The parameters of a request. Each is taken by its name; what is left is refused by name.
#[derive(Debug)]
pub(crate) struct Query(BTreeMap<String, Vec<String>>);

impl Query {
    /// All values of a parameter.
    pub(crate) fn all(&mut self, name: &str) -> Vec<String> {
        self.0.remove(name).unwrap_or_default()
    }

    /// The value of a parameter that is there once at most.
    pub(crate) fn one(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        let mut values = self.all(name);
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(Refusal::field(name, "is there more than once")),
        }
    }

    /// The value of a parameter, parsed. `expected` says what it should be.
    pub(crate) fn parse<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        let wrong = || Refusal::field(name, format!("expected {expected}, not {text:?}"));
        parse(&text).map(Some).ok_or_else(wrong)
    }

    /// Refuses parameters that were not taken.
    pub(crate) fn end(self) -> Result<(), Refusal> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(Refusal::field(name, "is not known")),
        }
    }
}

impl FromRequestParts<Service> for Query {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Service) -> Result<Self, Refusal> {
        let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let text = parts.uri.query().unwrap_or_default();
        let pairs = form_urlencoded::parse(text.as_bytes());
        for (count, (name, value)) in pairs.enumerate() {
            if count >= MAX_PARAMETERS {
                return Err(Refusal::invalid(format!("more than {MAX_PARAMETERS} parameters")));
            }
            parameters.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        Ok(Query(parameters))
    }
}

/// The parts of a path that stand for something, such as an id. Those that are not UTF-8 are nothing that is there.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Service> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, Refusal> {
        match axum::extract::Path::<T>::from_request_parts(parts, service).await {
            Ok(axum::extract::Path(value)) => Ok(Path(value)),
            Err(_) => Err(Refusal::nothing("there is nothing at this path")),
        }
    }
}

/// The client's key for its request.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=MAX_KEY).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => {
            let problem = format!("expected 1 to {MAX_KEY} characters of ASCII");
            Err(Refusal::field(IDEMPOTENCY_KEY, problem))
        }
    }
}

/// An answer as JSON.
pub(crate) fn answer<T: Serialize>(value: &T) -> Response {
    answer_with(StatusCode::OK, value)
}

/// An answer as JSON, with a status.
pub(crate) fn answer_with<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => {
            Refusal::new(ErrorKind::Unknown, format!("the answer cannot be written: {error}")).into_response()
        }
    }
}
