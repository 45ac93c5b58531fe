//! Runs the real `atp` binary, which is built once.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use crate::run::{Run, Running};

/// A time limit far beyond those that tests pass to `atp`: a process that runs longer hangs.
const DEADLINE: Duration = Duration::from_secs(300);

/// A call of `atp` under construction.
///
/// It gets only `PATH` from the caller's environment, and no configuration of a user.
#[derive(Debug)]
pub struct Atp {
    args: Vec<String>,
    env: Vec<(String, String)>,
    output: Option<&'static str>,
    stdin: Option<Vec<u8>>,
}

impl Atp {
    /// A call with these arguments and without hosts.
    pub fn new(args: &[&str]) -> Self {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        Atp { args, env: Vec::new(), output: None, stdin: None }
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the output format on stdout. The default is that of `atp`.
    pub fn output(mut self, form: &'static str) -> Self {
        self.output = Some(form);
        self
    }

    /// Sets the text on stdin. The default is empty.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Runs it and waits for its end.
    #[track_caller]
    pub fn run(self) -> Run {
        self.start().finish()
    }

    /// Starts it.
    #[track_caller]
    pub fn start(mut self) -> Running {
        let stdin = self.stdin.take();
        Running::start(self.command(), stdin, DEADLINE)
    }

    /// Reads so many lines of its stdout, closes the reading end, and waits for its end.
    #[track_caller]
    pub fn run_read_for(self, lines: usize) -> Run {
        Running::start_unread(self.command(), DEADLINE, lines).finish()
    }

    /// Runs it with a stdout whose reading end is closed before it starts, and waits for its end.
    #[track_caller]
    pub fn run_unread(self) -> Run {
        let (reader, writer) = match std::io::pipe() {
            Ok(pipe) => pipe,
            Err(error) => panic!("no pipe: {error}"),
        };
        drop(reader);
        let mut command = self.command();
        command.stdout(writer);
        Running::start_unread(command, DEADLINE, usize::MAX).finish()
    }

    /// The command, for a test that starts it on a terminal.
    pub fn into_command(self) -> Command {
        self.command()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.args(self.output.iter().flat_map(|form| ["--output", form])).args(&self.args);
        command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).env("HOME", "/nonexistent");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// The binary: the one that `ATP_BINARY` names, else built from the current sources.
fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| env::var_os("ATP_BINARY").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--package", "atp-cli", "--message-format", "json-render-diagnostics"]);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).stderr(Stdio::inherit());
    let built = match command.output() {
        Ok(built) => built,
        Err(error) => panic!("cannot run cargo: {error}"),
    };
    assert!(built.status.success(), "atp does not build");
    let messages = String::from_utf8_lossy(&built.stdout);
    let executable = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_atp = message["reason"] == "compiler-artifact" && message["target"]["name"] == "atp";
        message["executable"].as_str().filter(|_| is_atp).map(PathBuf::from)
    });
    match executable {
        Some(path) => path,
        None => panic!("cargo does not say where the binary is:\n{messages}"),
    }
}
