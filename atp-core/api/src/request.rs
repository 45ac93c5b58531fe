//! What a client asks for.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

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

/// The most fields of a request that may be given at their defaults and are left out when it is written.
const MOST_LEFT_OUT: usize = 32;

/// Reads a part of a request, such as an operation by itself, and refuses fields that this version does not know.
///
/// # Errors
/// The value is not of that type, or has such a field.
pub fn read_request<T: Serialize + DeserializeOwned>(value: &Value) -> Result<T, RequestError> {
    let read = T::deserialize(value)?;
    // Everything that is known is written again, but for some fields at their defaults.
    let written = serde_json::to_value(&read)?;
    let Some(mut path) = missing(value, &written) else { return Ok(read) };
    let mut rest = value.clone();
    for _ in 0..MOST_LEFT_OUT {
        if !is_known::<T>(&mut rest, &path) {
            break;
        }
        match missing(&rest, &written) {
            Some(next) => path = next,
            None => return Ok(read),
        }
    }
    Err(RequestError::UnknownField { path: path.to_string() })
}

/// Takes a field out of a value that can be read as `T`. Returns whether `T` knows it: then it cannot be read with a list of lists in
/// its place, which no field has that may be left out.
fn is_known<T: DeserializeOwned>(value: &mut Value, path: &FieldPath) -> bool {
    let Some(field) = path.find(value) else { return false };
    *field = json!([[]]);
    let is_known = T::deserialize(&*value).is_err();
    path.remove(value);
    is_known
}

/// The first field of the one that the other lacks.
fn missing(given: &Value, written: &Value) -> Option<FieldPath> {
    match (given, written) {
        (Value::Object(given), Value::Object(written)) => given.iter().find_map(|(name, value)| {
            let path = match written.get(name) {
                Some(written) => missing(value, written)?,
                None => FieldPath(Vec::new()),
            };
            Some(path.below(Step::Field(name.clone())))
        }),
        (Value::Array(given), Value::Array(written)) => given
            .iter()
            .zip(written)
            .enumerate()
            .find_map(|(place, (given, written))| Some(missing(given, written)?.below(Step::Item(place)))),
        _ => None,
    }
}

/// The way to a field, the innermost step first.
struct FieldPath(Vec<Step>);

enum Step {
    Field(String),
    Item(usize),
}

impl Step {
    fn of<'a>(&self, value: &'a mut Value) -> Option<&'a mut Value> {
        match self {
            Step::Field(name) => value.get_mut(name),
            Step::Item(place) => value.get_mut(place),
        }
    }
}

impl FieldPath {
    fn below(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }

    fn find<'a>(&self, value: &'a mut Value) -> Option<&'a mut Value> {
        self.0.iter().rev().try_fold(value, |value, step| step.of(value))
    }

    fn remove(&self, value: &mut Value) {
        let Some((Step::Field(name), outer)) = self.0.split_first() else { return };
        if let Some(Value::Object(fields)) = outer.iter().rev().try_fold(value, |value, step| step.of(value))
        {
            fields.remove(name);
        }
    }
}

impl fmt::Display for FieldPath {
    /// The names, with dots between them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().rev().filter_map(|step| match step {
            Step::Field(name) => Some(name),
            Step::Item(_) => None,
        });
        for (place, name) in names.enumerate() {
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
    fn fields_that_are_left_out_at_their_defaults_may_be_given() {
        for operation in [
            r#"{"op": "snapshot-create", "name": "a", "description": null, "quiesce": false}"#,
            r#"{"op": "snapshot-revert", "name": "a", "then": "as-then"}"#,
            r#"{"op": "push", "source": "a", "destination": "/a", "recursive": false}"#,
        ] {
            let request = format!(r#"{{"targets": {{}}, "operation": {operation}}}"#);
            let read = serde_json::from_str::<RunRequest>(&request);
            read.unwrap_or_else(|error| panic!("{operation}: {error}"));
        }
        let error = refused(
            r#"{"op": "push", "source": "a", "destination": "/a", "deep": null, "recursive": false}"#,
        );
        assert!(error.contains("operation.deep"), "{error}");
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
