//! Calls of `atp` on one host, with one engine.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// After this many seconds a call hangs and is ended: far more than the time limits that are passed to `atp`.
const HANGS: &str = "150";

/// The time limit of each operation, on a busy machine.
const TIMEOUT: &str = "90s";

/// How `atp` is called: on a host named `h` with a guest `vm1`.
#[derive(Debug, Clone)]
pub(crate) struct Atp {
    /// The binary.
    pub(crate) program: PathBuf,
    /// The settings file with the host.
    pub(crate) config: PathBuf,
    /// The engine's word.
    pub(crate) engine: &'static str,
    /// Whether it is run as an ordinary user, `nobody`.
    pub(crate) as_nobody: bool,
}

impl Atp {
    /// Runs it and returns the outcomes. Fails if one is not ok.
    pub(crate) fn ok(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let (output, outcomes) = self.outcomes(arguments)?;
        let errors: Vec<String> = outcomes.iter().filter_map(error_of).collect();
        ensure!(output.status.success(), "`atp {}`: {}", arguments.join(" "), errors.join("; "));
        Ok(outcomes)
    }

    /// Runs it and returns the kind of the error that its only outcome must have.
    pub(crate) fn refused(&self, arguments: &[&str]) -> Result<String> {
        let (_, outcomes) = self.outcomes(arguments)?;
        match &outcomes[..] {
            [outcome] => {
                let kind = outcome["error"]["kind"].as_str();
                let kind = kind.with_context(|| format!("`atp {}` was not refused", arguments.join(" ")))?;
                let told = error_of(outcome).unwrap_or_default();
                ensure!(REFUSALS.contains(&kind), "`atp {}`: {told}", arguments.join(" "));
                Ok(kind.to_owned())
            }
            _ => bail!("`atp {}` has {} outcomes, not one", arguments.join(" "), outcomes.len()),
        }
    }

    /// Starts it, with its stdout in a pipe.
    pub(crate) fn start(&self, arguments: &[&str]) -> Result<Child> {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().context("cannot run atp")
    }

    fn outcomes(&self, arguments: &[&str]) -> Result<(Output, Vec<Value>)> {
        let output = self.command(&[&["--output", "json"], arguments].concat()).output();
        let output = output.context("cannot run atp")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() != Some(124), "`atp {}` hangs: {stderr}", arguments.join(" "));
        let outcomes = serde_json::from_slice(&output.stdout);
        let outcomes = outcomes.with_context(|| format!("`atp {}`: {stderr}", arguments.join(" ")))?;
        Ok((output, outcomes))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(if self.as_nobody { "setpriv" } else { "timeout" });
        if self.as_nobody {
            command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "timeout"]);
        }
        command.arg(HANGS).arg(&self.program).arg("--config").arg(&self.config);
        command.args(["--timeout", TIMEOUT]).args(arguments).current_dir("/");
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env("HOME", "/nonexistent").stdin(Stdio::null());
        command.env("ATP_TRANSPORT__ENGINE", self.engine).env("MATRIX_PASSWORD", PASSWORD);
        command
    }

    /// The settings file of the same call, with another host.
    pub(crate) fn with_config(&self, config: &Path) -> Self {
        Self { config: config.to_owned(), ..self.clone() }
    }
}

/// The kinds of error of a user who may not do something, or may not even connect.
const REFUSALS: [&str; 2] = ["access-denied", "auth-failed"];

/// The password of the user `matrix` of daemons that ask for one. They are reached from this machine only.
pub(crate) const PASSWORD: &str = "matrix-password";

/// The kind, message and causes of an outcome's error.
fn error_of(outcome: &Value) -> Option<String> {
    let error = outcome.get("error").filter(|error| !error.is_null())?;
    let causes = error["causes"].as_array().into_iter().flatten();
    let words = [&error["kind"], &error["message"]].into_iter().chain(causes).filter_map(Value::as_str);
    Some(words.collect::<Vec<_>>().join(": "))
}
