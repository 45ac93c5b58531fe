//! A program to run in the guest.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::Input;
use crate::encoding::TextEncoding;

/// A program to run in the guest.
///
/// [`Debug`](fmt::Debug) shows what it is about, and no value that may be secret.
///
/// ```
/// use atp_api::ExecSpec;
///
/// let spec: ExecSpec = serde_json::from_str(r#"{"program": "uname", "args": ["-r"], "env": {"LANG": "C"}}"#)?;
/// assert_eq!(spec, ExecSpec::new("uname").arg("-r").with_env("LANG", "C"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ExecSpec {
    /// The program: a path in the guest, or a name that is looked up in the agent's `PATH`.
    pub program: String,
    /// Its arguments, passed unchanged.
    pub args: Vec<String>,
    /// Its environment. If empty, it inherits the agent's. Otherwise it has only these variables, because the agent
    /// works this way; a `PATH` is added if there is none.
    #[serde(with = "super::pairs")]
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    pub env: Vec<(String, String)>,
    /// Its standard input. None means empty. It is sent inside the command as base64, a third longer: through libvirt
    /// about 95 KiB fit.
    #[serde(with = "super::input")]
    #[schemars(with = "Option<Input>")]
    pub stdin: Option<Vec<u8>>,
    /// Whether program and arguments are joined by spaces and given to `/bin/sh -c`.
    pub shell: bool,
    /// Its working directory, an absolute path. None means that of the agent. Needs a `/bin/sh` in the guest.
    pub cwd: Option<String>,
    /// A folder in the guest, such as `/tmp`, for files with its output, which may then have any size. The files are
    /// removed at the end. Needs a `/bin/sh` in the guest.
    pub spool: Option<String>,
    /// The encoding of its output, if it is text that is not UTF-8.
    pub encoding: Option<TextEncoding>,
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

    /// Sets the working directory; see [`cwd`](Self::cwd).
    pub fn in_directory(mut self, path: impl Into<String>) -> Self {
        self.cwd = Some(path.into());
        self
    }

    /// Writes the output to files in this folder; see [`spool`](Self::spool).
    pub fn spooled(mut self, folder: impl Into<String>) -> Self {
        self.spool = Some(folder.into());
        self
    }
}

impl fmt::Debug for ExecSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ExecSpec { program, args, env, stdin, shell, cwd, spool, encoding } = self;
        // A line for a shell may hold anything.
        f.debug_struct("ExecSpec")
            .field("program", &if *shell { "…" } else { program })
            .field("args", &args.len())
            .field("env", &env.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("stdin_bytes", &stdin.as_ref().map(Vec::len))
            .field("shell", shell)
            .field("cwd", cwd)
            .field("spool", spool)
            .field("encoding", encoding)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let spec = ExecSpec::new("login").arg("hunter2").with_env("TOKEN", "hunter2").with_stdin(*b"hunter2");
        let lines = [format!("{spec:?}"), format!("{:?}", ExecSpec::shell("echo hunter2"))];
        assert!(
            lines.iter().all(|line| !line.contains("hunter2") && !line.contains("104, 117")),
            "{lines:?}"
        );
        assert!(lines[0].contains("login") && lines[0].contains("TOKEN"), "{lines:?}");
    }
}
