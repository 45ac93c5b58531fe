//! What is wrong with a scenario, and where.

use std::fmt;

use atp_api::OutcomeError;
use atp_transport::{ErrorKind, Hint};

/// A place in a file, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Why a text is not a valid scenario.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{message}", .file.as_ref().map(|file| format!("{file}, ")).unwrap_or_default(), .place.map(|place| format!("{place}: ")).unwrap_or_default())]
pub struct ScenarioError {
    /// The included file that it is in, by its path from the scenario's folder; none for the scenario's own file.
    pub file: Option<String>,
    /// Where it is in the file; none if it came from elsewhere, such as a variable that was set.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What a person can try.
    pub hint: Option<String>,
}

impl ScenarioError {
    pub(in crate::verbs) fn at(place: Place, message: impl Into<String>) -> Self {
        ScenarioError { file: None, place: Some(place), message: message.into(), hint: None }
    }

    pub(in crate::verbs) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<ScenarioError> for OutcomeError {
    fn from(error: ScenarioError) -> Self {
        let outcome = OutcomeError::of(ErrorKind::InvalidCommand, &error);
        OutcomeError { hint: error.hint.map(Hint::from), ..outcome }
    }
}

/// The hint for an unknown name: the nearest known one, or all.
pub(in crate::verbs) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.into_iter().collect();
    let close = known.iter().map(|known| (strsim::jaro_winkler(name, known), known));
    match close.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((likeness, nearest)) if likeness > 0.75 => format!("did you mean {nearest:?}?"),
        Some(_) => format!("known here: {}", known.join(", ")),
        None => "nothing is allowed here".to_owned(),
    }
}
