//! Runs small scripts in the guest's shell, for work that the agent has no command for.

use qapi::qga::{GuestExecCaptureOutput, guest_exec};
use tokio::time::Instant;

use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};
use crate::exec::{self, ExecOutput, Polling, SHELL};
use crate::windows::{self, POWERSHELL};

/// Runs a script of POSIX `sh` until `deadline` at the latest. Its positional parameters need no quoting.
pub(crate) async fn run(
    carrier: &impl Carrier,
    script: &str,
    parameters: &[&str],
    deadline: Instant,
) -> Result<ExecOutput> {
    if parameters.iter().any(|parameter| parameter.contains('\0')) {
        return Err(ProtocolError::InvalidCommand { reason: "a path has a NUL character".to_owned() });
    }
    let arg = ["-c", script, "sh"].iter().chain(parameters).map(|&word| word.to_owned()).collect();
    let command = guest_exec {
        path: SHELL.to_owned(),
        arg: Some(arg),
        env: None,
        input_data: None,
        capture_output: Some(GuestExecCaptureOutput::flag(true)),
    };
    let pid = exec::started(carrier, &command, SHELL, deadline).await?;
    exec::ended(carrier, pid, SHELL, &Polling::default(), deadline).await
}

/// Runs a script of PowerShell in a Windows guest until `deadline` at the latest.
pub(crate) async fn run_on_windows(
    carrier: &impl Carrier,
    script: &str,
    parameters: &[&str],
    deadline: Instant,
) -> Result<ExecOutput> {
    let command = windows::command(script, parameters, None)?;
    let pid = exec::started(carrier, &command, POWERSHELL, deadline).await?;
    exec::ended(carrier, pid, POWERSHELL, &Polling::default(), deadline).await
}
