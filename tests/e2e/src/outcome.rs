//! Outcomes as a script reads them: from JSON, independent of the code that wrote it.

use serde::Deserialize;
use serde_json::Value;

/// One outcome, as the command line documents it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the contract of the command line says what the fields mean")]
pub struct Outcome {
    pub host: Option<String>,
    pub vm: Option<String>,
    pub uuid: Option<String>,
    pub found_on: Option<String>,
    pub op: String,
    pub status: String,
    pub effect: String,
    pub attempts: u32,
    pub duration_ms: u64,
    pub data: Value,
    pub error: Option<Failure>,
}

/// The error of an outcome.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the contract of the command line says what the fields mean")]
pub struct Failure {
    pub kind: String,
    pub message: String,
    pub hint: Option<String>,
    pub retryable: bool,
    pub libvirt: Option<LibvirtCode>,
    pub causes: Vec<String>,
}

/// An error of libvirt with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the contract of the command line says what the fields mean")]
pub struct LibvirtCode {
    pub code: u32,
    pub domain: u32,
}

impl Outcome {
    /// `HOST/VM`, or the one of them that is set.
    pub fn name(&self) -> String {
        [&self.host, &self.vm].into_iter().flatten().cloned().collect::<Vec<_>>().join("/")
    }

    /// `NAME STATUS EFFECT`, and the kind of the error if there is one.
    pub fn brief(&self) -> String {
        let words = [self.name(), self.status.clone(), self.effect.clone()];
        let kind = self.error.iter().map(|error| error.kind.clone());
        words.into_iter().chain(kind).collect::<Vec<_>>().join(" ")
    }

    /// The error. Fails the test if there is none.
    #[track_caller]
    pub fn failure(&self) -> &Failure {
        match &self.error {
            Some(error) => error,
            None => panic!("{} has no error: {self:?}", self.name()),
        }
    }

    /// The text that a process wrote to `stdout` or `stderr`. Fails the test if it is not UTF-8 or not complete.
    #[track_caller]
    pub fn stream(&self, name: &str) -> &str {
        let stream = &self.data[name];
        assert_eq!(
            (&stream["encoding"], &stream["truncated"]),
            (&Value::from("utf-8"), &Value::from(false)),
            "{self:?}"
        );
        stream["text"].as_str().unwrap_or_default()
    }
}
