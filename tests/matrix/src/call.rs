//! Calls of `atp` on one host, with one engine.

use std::ffi::OsStr;
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
        self.call(arguments)?.outcomes()
    }

    /// Runs it and returns the kind of the error that its only outcome must have: that of a user who may not do something.
    pub(crate) fn refused(&self, arguments: &[&str]) -> Result<String> {
        self.call(arguments)?.refused_as(&REFUSALS)
    }

    /// Starts it, with its stdin and stdout in pipes. To be ended by [`end`].
    pub(crate) fn start(&self, arguments: &[&str]) -> Result<Child> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().context("cannot run atp")
    }

    /// Starts it on a terminal that it has for itself, whose keys are its stdin here and whose screen is its stdout. To be
    /// ended by [`end`].
    pub(crate) fn start_on_terminal(&self, arguments: &[&str]) -> Result<Child> {
        let inner = self.command(arguments);
        // In the foreground: a program of another group may not read from the terminal.
        let words = ["timeout", "--foreground"].map(OsStr::new).into_iter().chain(inner.get_args());
        let words: Option<Vec<&str>> = words.map(OsStr::to_str).collect();
        let line: Vec<String> = words.context("a path that is not UTF-8")?.into_iter().map(quoted).collect();
        // A terminal without a window has no size.
        let line = format!("stty rows 40 cols 120; exec {}", line.join(" "));
        let mut command = Command::new("script");
        command.args(["--quiet", "--flush", "--return", "--command", &line, "/dev/null"]);
        command.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("TERM", "xterm").env("SHELL", "/bin/sh").current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().context("cannot run script")
    }

    /// Runs it.
    pub(crate) fn call(&self, arguments: &[&str]) -> Result<Called> {
        let output = self.command(&[&["--output", "json"], arguments].concat()).output();
        let output = output.context("cannot run atp")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() != Some(124), "`atp {}` hangs: {stderr}", arguments.join(" "));
        let stderr = stderr.into_owned();
        Ok(Called { words: arguments.join(" "), output, stderr })
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

/// A call that has ended.
pub(crate) struct Called {
    words: String,
    output: Output,
    stderr: String,
}

impl Called {
    /// Whether it succeeded.
    pub(crate) fn is_ok(&self) -> bool {
        self.output.status.success()
    }

    /// Its outcomes. Fails if one is not ok.
    pub(crate) fn outcomes(&self) -> Result<Vec<Value>> {
        let outcomes = self.read();
        let errors = outcomes.iter().flatten().filter_map(error_of).collect::<Vec<_>>().join("; ");
        ensure!(
            self.is_ok(),
            "`atp {}`: {}",
            self.words,
            if errors.is_empty() { &self.stderr } else { &errors }
        );
        outcomes
    }

    /// The kind of the error that its only outcome must have, which has to be one of these.
    pub(crate) fn refused_as(&self, kinds: &[&str]) -> Result<String> {
        match &self.read()?[..] {
            [outcome] => {
                let kind = outcome["error"]["kind"].as_str();
                let kind = kind.with_context(|| format!("`atp {}` was not refused", self.words))?;
                let told = error_of(outcome).unwrap_or_default();
                ensure!(kinds.contains(&kind), "`atp {}`: {told}", self.words);
                Ok(kind.to_owned())
            }
            outcomes => bail!("`atp {}` has {} outcomes, not one", self.words, outcomes.len()),
        }
    }

    fn read(&self) -> Result<Vec<Value>> {
        let outcomes = serde_json::from_slice(&self.output.stdout);
        outcomes.with_context(|| format!("`atp {}`: {}", self.words, self.stderr))
    }
}

/// Ends a program that was started, and those that it has started: `timeout` and `script` pass the signal on.
pub(crate) fn end(mut child: Child) -> Result<()> {
    if child.try_wait()?.is_none() {
        // It may end in between.
        let _ended = Command::new("kill").arg(child.id().to_string()).stderr(Stdio::null()).status()?;
    }
    drop(child.stdin.take());
    child.wait()?;
    Ok(())
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
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
