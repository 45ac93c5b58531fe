//! Small scripts of ours, run by the guest's shell for what the agent has no command for.

use qapi::qga::{GuestExecCaptureOutput, guest_exec};
use tokio::time::Instant;

use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};
use crate::exec::{self, ExecOutput, Polling, SHELL};

/// Runs a script of POSIX `sh` with these positional parameters, which need no quoting, until `deadline` at the
/// latest.
pub(crate) async fn run(
    carrier: &impl Carrier,
    script: &str,
    parameters: &[&str],
    deadline: Instant,
) -> Result<ExecOutput> {
    if parameters.iter().any(|parameter| parameter.contains('\0')) {
        return Err(ProtocolError::InvalidCommand { reason: "a NUL character stands in a path".to_owned() });
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
