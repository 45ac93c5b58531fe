//! What a process in a guest yields.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::stream::Stream;

/// A process that ended in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecReport {
    /// The exit code; none if the process died of a signal. One of Windows above `0x7FFFFFFF` is negative here.
    pub exit_code: Option<i32>,
    /// The signal it died of; of Windows, the code of the exception, which is negative here.
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

    /// How it ended, if the guest reports it: `exit code 3`, `signal 9`, and of Windows, whose large numbers are written in
    /// hexadecimal digits, `exit code 0x80070005` and `exception 0xC0000005 (access violation)`.
    pub fn ending(&self) -> Option<String> {
        Some(match (self.exit_code, self.signal) {
            (_, Some(code)) if code < 0 => {
                format!("exception 0x{code:08X}{}", exception(code.cast_unsigned()))
            }
            (_, Some(signal)) => format!("signal {signal}"),
            (Some(code), None) if code < 0 => format!("exit code 0x{code:08X}"),
            (Some(code), None) => format!("exit code {code}"),
            (None, None) => return None,
        })
    }
}

/// What the exceptions mean that end most programs of Windows.
fn exception(code: u32) -> &'static str {
    match code {
        0xC000_0005 => " (access violation)",
        0xC000_0017 => " (no memory)",
        0xC000_001D => " (illegal instruction)",
        0xC000_0094 => " (division by zero)",
        0xC000_00FD => " (stack overflow)",
        0xC000_0135 => " (a DLL is missing)",
        0xC000_0139 => " (a DLL lacks a function)",
        0xC000_013A => " (ended by Ctrl-C)",
        0xC000_0142 => " (a DLL could not start)",
        0xC000_0374 => " (heap corruption)",
        0xC000_0409 => " (it ended itself at once)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_windows_are_written_as_they_are_known_there() {
        for (exit_code, signal, words) in [
            (Some(3), None, "exit code 3"),
            (None, Some(9), "signal 9"),
            (Some(0x8007_0005_u32.cast_signed()), None, "exit code 0x80070005"),
            (None, Some(0xC000_0005_u32.cast_signed()), "exception 0xC0000005 (access violation)"),
            (None, Some(-1), "exception 0xFFFFFFFF"),
        ] {
            let report =
                ExecReport { exit_code, signal, stdout: Stream::default(), stderr: Stream::default() };
            assert_eq!(report.ending().as_deref(), Some(words));
        }
    }
}
