//! What a client asks for.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::VERSION;
use crate::operation::OperationSpec;
use crate::policy::Policy;
use crate::targets::Targets;

/// One operation over targets, as a client asks for it.
///
/// A field or a word that this version does not know is an error that names it: a request that is half understood would do
/// something else than was asked for.
///
/// ```
/// use atp_api::RunRequest;
///
/// let request = r#"{"targets": {"selectors": ["web-*"]}, "operation": {"op": "vm-info"}, "policy": {"parallel": 8}}"#;
/// assert_eq!(serde_json::from_str::<RunRequest>(request)?.policy.parallel, 8);
/// let error = serde_json::from_str::<RunRequest>(&request.replace("parallel", "paralel")).unwrap_err();
/// assert!(error.to_string().contains("policy.paralel"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RunRequest {
    /// The version of these types that the request is written in; see [`VERSION`].
    #[schemars(default = "version")]
    pub version: u32,
    /// Which VMs or hosts.
    pub targets: Targets,
    /// What is done to each.
    pub operation: OperationSpec,
    /// The limits, deadlines and retries.
    #[schemars(default)]
    pub policy: Policy,
}

impl RunRequest {
    /// A request in this version.
    pub fn new(targets: Targets, operation: OperationSpec, policy: Policy) -> Self {
        RunRequest { version: VERSION, targets, operation, policy }
    }
}

impl<'de> Deserialize<'de> for RunRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Serialize, Deserialize)]
        struct Fields {
            #[serde(default = "version")]
            version: u32,
            targets: Targets,
            operation: OperationSpec,
            #[serde(default)]
            policy: Policy,
        }
        let value = Value::deserialize(deserializer)?;
        let asked = value.get("version").and_then(Value::as_u64).unwrap_or(u64::from(VERSION));
        if asked != u64::from(VERSION) {
            return Err(D::Error::custom(format!("version {asked} of requests, where {VERSION} is known")));
        }
        let Fields { version, targets, operation, policy } =
            read_request(&value).map_err(D::Error::custom)?;
        Ok(RunRequest { version, targets, operation, policy })
    }
}

fn version() -> u32 {
    VERSION
}

/// Why a request cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It is not of its type.
    #[error("{0}")]
    Invalid(#[from] serde_json::Error),
    /// It has a field that this version does not know.
    #[error("the field {path} is not known")]
    UnknownField {
        /// The names on the way to the field, with dots between them.
        path: String,
    },
}

/// Reads a part of a request, such as an operation by itself, and refuses fields that this version does not know.
///
/// # Errors
/// The value is not of that type, or has such a field.
pub fn read_request<T: Serialize + DeserializeOwned>(value: &Value) -> Result<T, RequestError> {
    let read = T::deserialize(value)?;
    // Everything that is known is written again: these types leave no field out.
    match unknown(value, &serde_json::to_value(&read)?) {
        Some(path) => Err(RequestError::UnknownField { path: path.to_string() }),
        None => Ok(read),
    }
}

/// The first field of the one that the other lacks.
fn unknown<'a>(given: &'a Value, known: &Value) -> Option<FieldPath<'a>> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given.iter().find_map(|(name, value)| {
            let mut path = match known.get(name) {
                Some(known) => unknown(value, known)?,
                None => FieldPath(Vec::new()),
            };
            path.0.push(name);
            Some(path)
        }),
        (Value::Array(given), Value::Array(known)) => {
            given.iter().zip(known).find_map(|(given, known)| unknown(given, known))
        }
        _ => None,
    }
}

/// Names of fields, the innermost first.
struct FieldPath<'a>(Vec<&'a str>);

impl fmt::Display for FieldPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, name) in self.0.iter().rev().enumerate() {
            let dot = if place > 0 { "." } else { "" };
            write!(f, "{dot}{name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(operation: &str) -> String {
        let request = format!(r#"{{"targets": {{"selectors": ["a"]}}, "operation": {operation}}}"#);
        serde_json::from_str::<RunRequest>(&request).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_known_is_named() {
        assert!(refused(r#"{"op": "exec", "program": "a", "tty": true}"#).contains("operation.tty"));
        assert!(refused(r#"{"op": "vm-info", "deep": true}"#).contains("operation.deep"));
        assert!(refused(r#"{"op": "of-later"}"#).contains("of-later"));
        let error = refused(r#"{"op": "screenshot", "folder": "x", "limits": {"max_pixels": 1}}"#);
        assert!(error.contains("operation.limits.max_pixels"), "{error}");
        let error = refused(r#"{"op": "wait", "until": "state", "state": "running", "for": 1}"#);
        assert!(error.contains("operation.for"), "{error}");
        let error = serde_json::from_str::<RunRequest>(
            r#"{"version": 2, "targets": {}, "operation": {"op": "vm-list"}}"#,
        );
        assert!(error.unwrap_err().to_string().contains("version 2"));
    }

    #[test]
    fn names_and_arguments_of_the_caller_are_no_fields() {
        let request = r#"{"targets": {"labels": {"any": "x"}},
            "operation": {"op": "qmp", "command": "c", "arguments": {"deep": {"any": [1, {"thing": 2}]}}}}"#;
        serde_json::from_str::<RunRequest>(request).unwrap();
        let request = r#"{"targets": {}, "operation": {"op": "exec", "program": "a", "env": {"ANY": ""},
            "stdin": {"base64": "aGk="}}}"#;
        let request = serde_json::from_str::<RunRequest>(request).unwrap();
        let OperationSpec::Exec(spec) = request.operation else { panic!("{request:?}") };
        assert_eq!(spec.stdin.as_deref(), Some(&b"hi"[..]));
    }
}
