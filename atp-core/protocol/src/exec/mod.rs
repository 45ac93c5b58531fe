//! Runs a program in the guest (`guest-exec`, `guest-exec-status`).
//!
//! The agent starts the program and answers with its process id. Its result and output have to be queried. The first
//! query follows at once, so that a short command costs two round trips and no pause, and the pauses grow from there.
//!
//! [`run`] does all of it over one carrier. If the connection to the VM may break in between, [`start`] returns a
//! [`Process`], which can be awaited over one carrier after another.

mod poll;
mod process;
mod spec;
mod spool;

use std::time::Duration;

use qapi::qga::GuestExecStatus;
use tokio::time::Instant;

pub use atp_api::ExecSpec;
pub(crate) use poll::{ended, started};
pub use process::Process;
pub(crate) use spec::SHELL;
pub use spool::SpoolPolicy;

use crate::carrier::Carrier;
use crate::error::Result;

/// The result of a program that ran in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecOutput {
    /// The exit code, if it exited. A Windows status above `i32::MAX` (`0xC0000005`) is negative here.
    pub exit_code: Option<i32>,
    /// The signal that ended it (on Windows, the exception code), if there was one.
    pub signal: Option<i32>,
    /// Its standard output, as bytes in the guest's encoding.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// Whether standard output is truncated (the agent keeps 16 MiB).
    pub stdout_truncated: bool,
    /// Whether standard error is truncated.
    pub stderr_truncated: bool,
}

/// How often the agent is asked whether a process has ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Polling {
    /// The pause before the first query.
    pub first: Duration,
    /// The pause after it.
    pub second: Duration,
    /// The factor from there to each further pause.
    pub factor: f64,
    /// The longest pause.
    pub longest: Duration,
}

impl Default for Polling {
    fn default() -> Self {
        // A program that runs on is asked as often as with a first query after 3 ms and the factor 1.5, and once more.
        let (second, longest) = (Duration::from_millis(3), Duration::from_millis(250));
        Polling { first: Duration::ZERO, second, factor: 1.6, longest }
    }
}

impl Polling {
    fn after(&self, pause: Duration) -> Duration {
        let longer = Duration::try_from_secs_f64(pause.as_secs_f64() * self.factor);
        longer.unwrap_or(self.longest).min(self.longest)
    }
}

impl ExecOutput {
    /// Whether the program exited with exit code 0.
    pub fn success(&self) -> bool {
        self.exit_code == Some(0) && self.signal.is_none()
    }
}

impl From<GuestExecStatus> for ExecOutput {
    fn from(status: GuestExecStatus) -> Self {
        // The system's numbers have 32 bits. This undoes the agent's conversion to unsigned numbers.
        let bits = |number: i64| number as i32;
        ExecOutput {
            exit_code: status.exitcode.map(bits),
            signal: status.signal.map(bits),
            stdout: status.out_data.unwrap_or_default(),
            stderr: status.err_data.unwrap_or_default(),
            stdout_truncated: status.out_truncated.unwrap_or(false),
            stderr_truncated: status.err_truncated.unwrap_or(false),
        }
    }
}

/// How to wait for the end of a program and fetch its output.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ExecPolicy {
    /// How often the agent is asked whether the program has ended.
    pub polling: Polling,
    /// How output that went through files is fetched.
    pub spool: SpoolPolicy,
}

/// Runs a program in the guest and waits for its end, until `deadline` at the latest.
///
/// A program that ends with a non-zero exit code, or by a signal, is `Ok`.
///
/// # Errors
/// [`ExecFailed`](crate::ProtocolError::ExecFailed) if it could not be started;
/// [`StillRunning`](crate::ProtocolError::StillRunning) if it had not ended in time, and continues to run;
/// [`ResultLost`](crate::ProtocolError::ResultLost) or [`ProcessLost`](crate::ProtocolError::ProcessLost) if it was
/// started and its result is not known; [`OutputLost`](crate::ProtocolError::OutputLost) if it ended and its files
/// could not be fetched. [`effect`](crate::ProtocolError::effect) says for each whether it may have run.
///
/// Dropping the future ends the queries. The program continues to run, and the files of its output stay.
pub async fn run(carrier: &impl Carrier, spec: &ExecSpec, deadline: Instant) -> Result<ExecOutput> {
    run_with(carrier, spec, &ExecPolicy::default(), deadline).await
}

/// [`run`] with another policy.
pub async fn run_with(
    carrier: &impl Carrier,
    spec: &ExecSpec,
    policy: &ExecPolicy,
    deadline: Instant,
) -> Result<ExecOutput> {
    let mut process = start(carrier, spec, deadline).await?;
    let result = process.wait(carrier, policy, deadline).await;
    if result.is_err() {
        process.discard(carrier, policy, deadline).await;
    }
    result
}

/// Starts a program in the guest.
///
/// # Errors
/// [`ExecFailed`](crate::ProtocolError::ExecFailed) if the agent could not start it, otherwise the carrier's error,
/// whose effect says whether the program may have been started.
///
/// Dropping the future may leave the program running.
pub async fn start(carrier: &impl Carrier, spec: &ExecSpec, deadline: Instant) -> Result<Process> {
    Process::start(carrier, spec, deadline).await
}

/// The scripts for Windows by what they do, for the guest that plays one in tests.
#[cfg(test)]
pub(crate) const WINDOWS_SCRIPTS: [(&str, &str); 2] =
    [("launch", spec::WINDOWS_LAUNCHER), ("remove folder", spool::WINDOWS_REMOVE)];

#[cfg(test)]
mod tests;
