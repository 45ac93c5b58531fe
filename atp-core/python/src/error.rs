//! Errors as Python's exceptions. Their classes are in the module `atp_libvirt._errors`.

use atp_api::{Effect, ErrorKind, Hint, OutcomeError};
use atp_client::ClientError;
use atp_executor::{PlanError, SelectorError};
use atp_settings::ConfigError;
use parking_lot::Mutex;
use pyo3::prelude::*;

/// Why a call has no result, and whether anything may have happened to a target.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) error: OutcomeError,
    pub(crate) effect: Effect,
    /// Whether the target failed, and not the request or the service.
    pub(crate) is_of_target: bool,
}

impl From<OutcomeError> for Failure {
    /// Of an error before anything was done, or of a look.
    fn from(error: OutcomeError) -> Self {
        Failure { error, effect: Effect::None, is_of_target: false }
    }
}

/// The exception for an error of which nothing was done.
pub(crate) fn exception(py: Python<'_>, error: &OutcomeError) -> PyErr {
    failed(py, &Failure::from(error.clone()))
}

/// The exception for a failure.
pub(crate) fn failed(py: Python<'_>, failure: &Failure) -> PyErr {
    let raise = || {
        let Failure { error, effect, is_of_target } = failure;
        let OutcomeError { kind, message, hint, retryable, libvirt, causes } = error;
        let kind: &'static str = kind.into();
        let hint = hint.as_ref().map(|hint| &**hint);
        let libvirt = libvirt.map(|libvirt| (libvirt.code, libvirt.domain));
        let arguments = (kind, message, effect.as_str(), *retryable, hint, causes, libvirt, *is_of_target);
        py.import("atp_libvirt._errors")?.call_method1("exception", arguments)
    };
    raise().map_or_else(|error| error, PyErr::from_value)
}

/// What came before an error, which is kept for the next reader; or the error, if nothing did.
///
/// # Errors
/// The error.
pub(crate) fn until_error<T, E>(received: Vec<Result<T, E>>, failed: &Mutex<Option<E>>) -> Result<Vec<T>, E> {
    let mut items = Vec::with_capacity(received.len());
    for item in received {
        match item {
            Ok(item) => items.push(item),
            Err(error) if items.is_empty() => return Err(error),
            // An error is the last item.
            Err(error) => *failed.lock() = Some(error),
        }
    }
    Ok(items)
}

/// The error of a call in a process that was forked.
pub(crate) fn forked(py: Python<'_>) -> PyErr {
    let raise = || py.import("atp_libvirt._errors")?.call_method0("forked");
    raise().map_or_else(|error| error, PyErr::from_value)
}

/// The error of work that a closed fleet leaves without an answer.
pub(crate) fn closed() -> OutcomeError {
    OutcomeError::new(ErrorKind::Aborted, "the fleet was closed")
        .with_hint("make another Fleet, or keep this one open while work runs")
}

/// The error of a request that cannot be understood.
pub(crate) fn invalid(reason: impl Into<String>) -> OutcomeError {
    OutcomeError::new(ErrorKind::InvalidRequest, reason)
}

pub(crate) fn of_selector(error: &SelectorError) -> OutcomeError {
    OutcomeError::of(error.kind(), error).with_hint(error.hint())
}

pub(crate) fn of_plan(error: &PlanError) -> OutcomeError {
    OutcomeError::of(error.kind(), error).with_hint(error.hint())
}

pub(crate) fn of_client(error: &ClientError) -> OutcomeError {
    let mut of = OutcomeError::of(error.kind(), error);
    if let ClientError::Refused(problem) = error {
        of.causes.extend(problem.errors.iter().map(|field| format!("{}: {}", field.field, field.message)));
    }
    OutcomeError { hint: error.hint(), retryable: error.is_temporary(), ..of }
}

/// Every problem of the settings, a line for each.
pub(crate) fn of_settings(error: &ConfigError) -> OutcomeError {
    let texts: Vec<_> = error.problems.iter().map(ToString::to_string).collect();
    let hint = error.problems.iter().find_map(|problem| problem.hint.clone()).map(Hint::from);
    OutcomeError { hint, ..OutcomeError::new(ErrorKind::InvalidConfig, texts.join("\n")) }
}
