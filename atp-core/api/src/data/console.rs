//! What was captured of a serial console.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::operation::optional_lossy_path;

/// What was captured of a serial console.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConsoleReport {
    /// The file with all of it.
    #[serde(serialize_with = "optional_lossy_path")]
    #[schemars(with = "Option<String>")]
    pub file: Option<PathBuf>,
    /// How many bytes came.
    pub bytes: u64,
    /// How many lines these were.
    pub lines: u64,
    /// The number of gaps: times in which the console was not open, so that output was lost.
    pub gaps: u64,
    /// The first gaps, at most [`MOST_KEPT`](Self::MOST_KEPT).
    pub first_gaps: Vec<ConsoleGap>,
    /// The number of faults of the guest's kernel.
    pub faults: u64,
    /// The first of them, at most [`MOST_KEPT`](Self::MOST_KEPT).
    pub first_faults: Vec<KernelFinding>,
}

impl ConsoleReport {
    /// The most gaps and faults that are described; all are counted.
    pub const MOST_KEPT: usize = 50;
}

/// A time in which a console was not open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConsoleGap {
    /// Milliseconds from the start of the capture to the gap.
    pub at_ms: u64,
    /// How long it was, milliseconds; none if it lasted to the end.
    pub lasted_ms: Option<u64>,
    /// Why the console was closed.
    pub reason: String,
}

/// A line of a console in which the guest's kernel reports a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KernelFinding {
    /// What happened.
    pub fault: KernelFault,
    /// Milliseconds from the start of the capture to the line.
    pub at_ms: u64,
    /// The line, without control characters.
    pub line: String,
}

/// A fault that a Linux kernel reports on its console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KernelFault {
    /// The kernel stopped.
    Panic,
    /// The kernel did something that it must not, and ended the task that it did it for.
    Oops,
    /// A task has waited in the kernel for longer than `hung_task_timeout_secs`.
    HungTask,
    /// A processor has been busy in the kernel for longer than the watchdog allows.
    Lockup,
    /// A process was ended because there was no memory.
    OutOfMemory,
    /// A fault that this version does not know.
    #[serde(other)]
    Unknown,
}

impl KernelFault {
    /// The faults that can be named.
    pub const NAMES: &'static [&'static str] = &["panic", "oops", "hung-task", "lockup", "out-of-memory"];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            KernelFault::Panic => "panic",
            KernelFault::Oops => "oops",
            KernelFault::HungTask => "hung-task",
            KernelFault::Lockup => "lockup",
            KernelFault::OutOfMemory => "out-of-memory",
            KernelFault::Unknown => "unknown",
        }
    }

    /// The fault of that name.
    pub fn named(name: &str) -> Option<Self> {
        use KernelFault::{HungTask, Lockup, Oops, OutOfMemory, Panic};
        [Panic, Oops, HungTask, Lockup, OutOfMemory].into_iter().find(|fault| fault.as_str() == name)
    }
}

impl fmt::Display for KernelFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_the_names_that_json_has() {
        for name in KernelFault::NAMES {
            let fault = KernelFault::named(name).unwrap();
            assert_eq!(serde_json::to_value(fault).unwrap(), *name);
        }
        assert_eq!(KernelFault::named("unknown"), None);
    }
}
