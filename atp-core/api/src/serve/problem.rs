//! Errors of the HTTP API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hint::Hint;
use crate::kind::ErrorKind;

/// Why a request was not carried out: `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `urn:atp:problem:` and the kind.
    #[serde(rename = "type")]
    pub uri: String,
    /// The HTTP status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, in a sentence.
    pub detail: String,
    /// The kind, for programs to match on.
    pub kind: ErrorKind,
    /// What a person can try.
    pub hint: Option<Hint>,
    /// What is wrong with fields of the request, where that is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
}

/// What is wrong with a field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldProblem {
    /// The field: names with dots between them, or the name of a parameter.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}
