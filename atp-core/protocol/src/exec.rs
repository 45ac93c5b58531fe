//! Running a program in the guest (`guest-exec`, `guest-exec-status`).
//!
//! The agent starts the program and answers with its process id; how it ended, and what it printed, has to be
//! asked for. The first question follows after a few milliseconds, so that a short command costs two round
//! trips, and the pauses grow from there.

use std::time::Duration;

use qapi::qga::{GuestExecCaptureOutput, GuestExecStatus, guest_exec, guest_exec_status};
use tokio::time::{self, Instant};

use crate::agent;
use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};
use crate::refusal::{Refusal, RefusalKind};

/// The shell of [`ExecSpec::shell`].
const SHELL: &str = "/bin/sh";

/// The `PATH` of a process that is given an environment without one: what a login shell starts with.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program to run in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecSpec {
    /// The program: a path in the guest, or a name that is looked up in the agent's `PATH`.
    pub program: String,
    /// Its arguments, each passed as it is.
    pub args: Vec<String>,
    /// Its environment. When empty it inherits the agent's. Otherwise it has these variables only, for so the
    /// agent does it; a `PATH` is added where none is among them.
    pub env: Vec<(String, String)>,
    /// What it reads as standard input; without it, nothing. It travels inside the command, a third longer:
    /// through libvirt about 95 KiB fit.
    pub stdin: Option<Vec<u8>>,
    /// Whether program and arguments are joined by spaces and given to `/bin/sh -c`.
    pub shell: bool,
}

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

impl ExecSpec {
    /// A program without arguments.
    pub fn new(program: impl Into<String>) -> Self {
        ExecSpec { program: program.into(), ..ExecSpec::default() }
    }

    /// A line for the guest's shell.
    pub fn shell(line: impl Into<String>) -> Self {
        ExecSpec { shell: true, ..ExecSpec::new(line) }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds an environment variable; see [`env`](Self::env).
    pub fn with_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets standard input.
    pub fn with_stdin(mut self, stdin: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(stdin.into());
        self
    }

    fn to_command(&self) -> Result<guest_exec> {
        let words = || std::iter::once(&self.program).chain(&self.args);
        let invalid = |reason: &str| Err(ProtocolError::InvalidCommand { reason: reason.to_owned() });
        if self.program.is_empty() {
            return invalid("there is no program to run");
        }
        // These end up as C strings, and would be cut there without a word.
        if words().chain(self.env.iter().flat_map(|(name, value)| [name, value])).any(|s| s.contains('\0')) {
            return invalid("a NUL character stands in an argument or in the environment");
        }
        if self.env.iter().any(|(name, _)| name.is_empty() || name.contains('=')) {
            return invalid("an environment variable's name is empty or has a '=' in it");
        }

        let (path, arg) = if self.shell {
            let line = words().map(String::as_str).collect::<Vec<_>>().join(" ");
            (SHELL.to_owned(), vec!["-c".to_owned(), line])
        } else {
            (self.program.clone(), self.args.clone())
        };
        let mut env: Vec<String> = self.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !env.is_empty() && !self.env.iter().any(|(name, _)| name.eq_ignore_ascii_case("PATH")) {
            env.push(format!("PATH={DEFAULT_PATH}"));
        }
        Ok(guest_exec {
            path,
            arg: Some(arg),
            env: Some(env).filter(|env| !env.is_empty()),
            input_data: self.stdin.clone(),
            capture_output: Some(GuestExecCaptureOutput::flag(true)),
        })
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

/// Runs a program in the guest and waits for its end, until `deadline` at the latest.
///
/// A program that ends with another code than 0, or by a signal, is an `Ok` here.
///
/// # Errors
/// [`ExecFailed`](ProtocolError::ExecFailed) if it could not be started;
/// [`StillRunning`](ProtocolError::StillRunning) if it had not ended in time, and then it runs on;
/// [`ResultLost`](ProtocolError::ResultLost) or [`ProcessLost`](ProtocolError::ProcessLost) if it was started
/// and its end cannot be told. [`effect`](ProtocolError::effect) says for each whether it may have run.
///
/// Dropping the future ends the asking and leaves the program running.
pub async fn run(carrier: &impl Carrier, spec: &ExecSpec, deadline: Instant) -> Result<ExecOutput> {
    run_with(carrier, spec, Polling::default(), deadline).await
}

/// [`run`], with another pace of asking.
pub async fn run_with(
    carrier: &impl Carrier,
    spec: &ExecSpec,
    polling: Polling,
    deadline: Instant,
) -> Result<ExecOutput> {
    let command = spec.to_command()?;
    let program = || command.path.clone();
    let mut asked = Instant::now();
    let pid = match agent::execute(carrier, &command, deadline).await {
        Ok(started) => started.pid,
        Err(ProtocolError::Refused(refusal)) if refusal.kind == RefusalKind::Guest => {
            return Err(not_started(program(), *refusal));
        }
        Err(error) => return Err(error),
    };

    let mut pause = polling.first;
    let mut failed = None;
    loop {
        // A question is only asked if there is time for its answer, going by the last one: the answer to one
        // that is cut off may be the one with the result. Before that, the pauses halve what is left, so that
        // an end shortly before the deadline is still seen.
        let margin = polling.first.max(asked.elapsed() * 2);
        let left = deadline.saturating_duration_since(Instant::now());
        let next = pause.min(left / 2).max(polling.first);
        if next + margin > left {
            // Not at the deadline itself, when whoever set it may cut in first.
            time::sleep(left.saturating_sub(polling.first)).await;
            return Err(ProtocolError::StillRunning { program: program(), pid, source: failed });
        }
        time::sleep(next).await;
        pause = polling.after(pause);

        asked = Instant::now();
        match agent::execute(carrier, &guest_exec_status { pid }, deadline).await {
            Ok(status) if status.exited => return Ok(status.into()),
            Ok(_) => failed = None,
            Err(error) if may_pass(&error) => failed = Some(Box::new(error)),
            Err(ProtocolError::Refused(refusal)) if forgotten(&refusal) => {
                return Err(ProtocolError::ProcessLost { program: program(), pid });
            }
            Err(error) => {
                return Err(ProtocolError::ResultLost { program: program(), pid, source: Box::new(error) });
            }
        }
    }
}

/// Whether the next question may be answered though this one was not. Asking again is safe: at worst an
/// answer that was lost on its way has made the agent forget the process, and it says so.
fn may_pass(error: &ProtocolError) -> bool {
    matches!(
        error.kind(),
        "agent-unresponsive" | "agent-gone" | "agent-busy" | "monitor-busy" | "guest-frozen"
    )
}

/// The agent's answer to a process id that is not, or no longer, in its list.
fn forgotten(refusal: &Refusal) -> bool {
    refusal.kind == RefusalKind::Guest && refusal.desc.contains("'pid'")
}

/// The agent wraps the reason: `Guest agent command failed, error was 'REASON'`.
fn not_started(program: String, refusal: Refusal) -> ProtocolError {
    let inner = refusal.desc.split_once("error was '").and_then(|(_, rest)| rest.strip_suffix('\''));
    let reason = inner.unwrap_or(&refusal.desc).to_owned();
    ProtocolError::ExecFailed { program, reason, libvirt: refusal.libvirt }
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
