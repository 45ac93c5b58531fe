//! What a process in a guest yields.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::stream::Stream;

/// A process that ended in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecReport {
    /// The exit code; none if the process died of a signal.
    pub exit_code: Option<i32>,
    /// The signal it died of.
    pub signal: Option<i32>,
    /// Its standard output.
    pub stdout: Stream,
    /// Its standard error.
    pub stderr: Stream,
}

impl ExecReport {
    /// Whether the process exited with code 0.
    pub fn is_success(&self) -> bool {
        self.exit_code == Some(0) && self.signal.is_none()
    }
}
