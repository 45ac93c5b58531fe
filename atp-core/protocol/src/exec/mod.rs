//! Running a program in the guest (`guest-exec`, `guest-exec-status`).
//!
//! The agent starts the program and answers with its process id; how it ended, and what it printed, has to be
//! asked for. The first question follows after a few milliseconds, so that a short command costs two round
//! trips, and the pauses grow from there.
//!
//! [`run`] does all of it over one carrier. Where the way to the VM may break meanwhile, [`start`] gives a
//! [`Process`], which can be waited for over one carrier after the other.

mod poll;
mod process;
mod spec;
mod spool;

use std::time::Duration;

use qapi::qga::GuestExecStatus;
use tokio::time::Instant;

pub(crate) use poll::{ended, started};
pub use process::Process;
pub use spec::ExecSpec;
pub(crate) use spec::SHELL;
pub use spool::SpoolPolicy;

use crate::carrier::Carrier;
use crate::error::Result;

/// What became of a program run in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecOutput {
    /// The exit code, if it ended by itself. A Windows status above `i32::MAX` (`0xC0000005`) is its negative.
    pub exit_code: Option<i32>,
    /// The signal that ended it (on Windows, the exception code), if one did.
    pub signal: Option<i32>,
    /// What it wrote to standard output: bytes, in whatever encoding the guest uses.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// Whether standard output is cut off (the agent keeps 16 MiB).
    pub stdout_truncated: bool,
    /// Whether standard error is cut off.
    pub stderr_truncated: bool,
}

/// How often the agent is asked whether a process has ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Polling {
    /// The pause before the first question.
    pub first: Duration,
    /// By how much each pause is longer than the one before; a result is late by at most this share.
    pub factor: f64,
    /// The longest pause.
    pub longest: Duration,
}

impl Default for Polling {
    fn default() -> Self {
        Polling { first: Duration::from_millis(3), factor: 1.5, longest: Duration::from_millis(250) }
    }
}

impl Polling {
    fn after(&self, pause: Duration) -> Duration {
        let longer = Duration::try_from_secs_f64(pause.as_secs_f64() * self.factor);
        longer.unwrap_or(self.longest).min(self.longest)
    }
}

impl ExecOutput {
    /// Whether the program ended by itself, with exit code 0.
    pub fn success(&self) -> bool {
        self.exit_code == Some(0) && self.signal.is_none()
    }
}

impl From<GuestExecStatus> for ExecOutput {
    fn from(status: GuestExecStatus) -> Self {
        // The system's own numbers have 32 bits; where the agent took them for unsigned, this undoes it.
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

/// How a program's end is waited for and its output brought back.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ExecPolicy {
    /// How often the agent is asked whether it has ended.
    pub polling: Polling,
    /// How output that went through files is fetched.
    pub spool: SpoolPolicy,
}

/// Runs a program in the guest and waits for its end, until `deadline` at the latest.
///
/// A program that ends with another code than 0, or by a signal, is an `Ok` here.
///
/// # Errors
/// [`ExecFailed`](crate::ProtocolError::ExecFailed) if it could not be started;
/// [`StillRunning`](crate::ProtocolError::StillRunning) if it had not ended in time, and then it runs on;
/// [`ResultLost`](crate::ProtocolError::ResultLost) or [`ProcessLost`](crate::ProtocolError::ProcessLost) if it was
/// started and its end cannot be told; [`OutputLost`](crate::ProtocolError::OutputLost) if it ended and its files
/// could not be fetched. [`effect`](crate::ProtocolError::effect) says for each whether it may have run.
///
/// Dropping the future ends the asking and leaves the program running, and files of its output where they are.
pub async fn run(carrier: &impl Carrier, spec: &ExecSpec, deadline: Instant) -> Result<ExecOutput> {
    run_with(carrier, spec, &ExecPolicy::default(), deadline).await
}

/// [`run`], in another way of waiting.
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
/// [`ExecFailed`](crate::ProtocolError::ExecFailed) if the agent could not; else whatever the way there says, and
/// then the effect tells whether it may have been started.
///
/// Dropping the future may leave the program running.
pub async fn start(carrier: &impl Carrier, spec: &ExecSpec, deadline: Instant) -> Result<Process> {
    Process::start(carrier, spec, deadline).await
}

#[cfg(test)]
mod tests;
