//! What went wrong with a target, as data: a stable kind, a message, a hint, and the causes underneath.

use std::error::Error;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hint::Hint;
use crate::kind::ErrorKind;

/// The error of an [`Outcome`](crate::Outcome).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutcomeError {
    /// A stable kebab-case word, for programs to match on.
    pub kind: ErrorKind,
    /// What went wrong, in one sentence without its causes.
    pub message: String,
    /// What a person can try.
    pub hint: Option<Hint>,
    /// Whether the same work may succeed later. Whether repeating it is safe is another question: see the outcome's effect.
    pub retryable: bool,
    /// libvirt's error numbers, where libvirt raised the error.
    pub libvirt: Option<LibvirtCode>,
    /// The causes, nearest first. None repeats the message before it.
    pub causes: Vec<String>,
}

/// An error of libvirt by its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LibvirtCode {
    /// `virErrorNumber`.
    pub code: u32,
    /// `virErrorDomain`.
    pub domain: u32,
}

impl OutcomeError {
    /// An error that a retry does not help against.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        OutcomeError {
            kind,
            message: message.into(),
            hint: None,
            retryable: false,
            libvirt: None,
            causes: Vec::new(),
        }
    }

    /// The message and the causes of an error that a retry does not help against.
    pub fn of(kind: ErrorKind, error: &dyn Error) -> Self {
        OutcomeError { causes: OutcomeError::causes_of(error), ..OutcomeError::new(kind, error.to_string()) }
    }

    /// Adds what a person can try.
    pub fn with_hint(mut self, hint: impl Into<Hint>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says that a retry may help.
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// An error with its causes in one line: a message that only names a libvirt function does not say why.
    pub fn in_full(error: &dyn Error) -> String {
        [vec![error.to_string()], OutcomeError::causes_of(error)].concat().join(": ")
    }

    /// The messages of an error's sources, without those that only repeat the message before.
    pub fn causes_of(error: &dyn Error) -> Vec<String> {
        let mut said = error.to_string();
        let mut causes = Vec::new();
        let mut next = error.source();
        while let Some(cause) = next {
            let message = cause.to_string();
            if !message.is_empty() && !said.contains(&message) {
                said.clone_from(&message);
                causes.push(message);
            }
            next = cause.source();
        }
        causes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        #[source]
        source: Option<Box<Layer>>,
    }

    fn causes(texts: &[&'static str]) -> Vec<String> {
        let chain = texts.iter().rfold(None, |source, text| Some(Box::new(Layer { text, source })));
        OutcomeError::causes_of(&*chain.unwrap())
    }

    #[test]
    fn causes_are_nearest_first() {
        assert_eq!(causes(&["top", "middle", "bottom"]), ["middle", "bottom"]);
        assert!(causes(&["alone"]).is_empty());
    }

    #[test]
    fn a_line_says_why() {
        let source = Some(Box::new(Layer { text: "not connected", source: None }));
        let call = Layer { text: "host h1: virDomainGetInfo", source };
        assert_eq!(OutcomeError::in_full(&call), "host h1: virDomainGetInfo: not connected");
    }

    #[test]
    fn causes_do_not_repeat() {
        assert_eq!(causes(&["cannot connect: refused", "refused", "errno 111", "errno 111"]), ["errno 111"]);
    }
}
