//! The description of a program to run in the guest, and its conversion to a `guest-exec` command.

use atp_api::TextEncoding;
use qapi::qga::{GuestExecCaptureOutput, guest_exec};

use crate::error::{ProtocolError, Result};

/// The shell of [`ExecSpec::shell`], which also does the setup that the agent cannot do.
pub(crate) const SHELL: &str = "/bin/sh";

/// The `PATH` of a process whose environment has none: that of a login shell.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Replaces itself with a program in a working directory, with its output in files: `$1` is the folder for these files
/// and `$2` the directory; either may be empty. Program and arguments follow. As positional parameters they need no
/// quoting, and no variable is set, so that the environment is the program's own.
const LAUNCHER: &str = r#"fail() { echo 'atp: not started' >&2; exit 125; }
[ -z "$2" ] || cd "$2" || fail
command -v "$3" >/dev/null || { echo "$3: not found" >&2; fail; }
[ -z "$1" ] || { (umask 077; mkdir "$1") && exec >"$1/out" 2>"$1/err"; } || fail
shift 2
exec "$@""#;

/// The launcher's exit code and message if it did not start the program.
const NOT_STARTED: (i32, &[u8]) = (125, b"atp: not started\n");

/// A program to run in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecSpec {
    /// The program: a path in the guest, or a name that is looked up in the agent's `PATH`.
    pub program: String,
    /// Its arguments, passed unchanged.
    pub args: Vec<String>,
    /// Its environment. If empty, it inherits the agent's. Otherwise it has only these variables, because the agent
    /// works this way; a `PATH` is added if there is none.
    pub env: Vec<(String, String)>,
    /// Its standard input. None means empty. It is sent inside the command as base64, a third longer: through libvirt
    /// about 95 KiB fit.
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

    /// The command that starts it, with its output in files in `folder` if given.
    pub(super) fn to_command(&self, folder: Option<&str>) -> Result<guest_exec> {
        let words = || std::iter::once(&self.program).chain(&self.args);
        let invalid = |reason: &str| Err(ProtocolError::InvalidCommand { reason: reason.to_owned() });
        if self.program.is_empty() {
            return invalid("there is no program to run");
        }
        // These become C strings in the guest, and would be truncated there without an error.
        let env_words = self.env.iter().flat_map(|(name, value)| [name, value]);
        if words().chain(env_words).chain(&self.cwd).chain(&self.spool).any(|word| word.contains('\0')) {
            return invalid("an argument, the environment or a path has a NUL character");
        }
        if self.env.iter().any(|(name, _)| name.is_empty() || name.contains('=')) {
            return invalid("an environment variable's name is empty or has a '='");
        }
        if self.cwd.iter().chain(&self.spool).any(|path| !path.starts_with('/')) {
            return invalid("the working directory, or the folder for output, is not an absolute path");
        }

        let mut argv = if self.shell {
            let line = words().map(String::as_str).collect::<Vec<_>>().join(" ");
            vec![SHELL.to_owned(), "-c".to_owned(), line]
        } else {
            words().cloned().collect()
        };
        if self.is_launched() {
            let cwd = self.cwd.clone().unwrap_or_default();
            let folder = folder.unwrap_or_default().to_owned();
            let launcher = [SHELL, "-c", LAUNCHER, "sh"].map(str::to_owned);
            argv.splice(0..0, launcher.into_iter().chain([folder, cwd]));
        }
        let mut env: Vec<String> = self.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !env.is_empty() && !self.env.iter().any(|(name, _)| name.eq_ignore_ascii_case("PATH")) {
            env.push(format!("PATH={DEFAULT_PATH}"));
        }
        Ok(guest_exec {
            path: argv.remove(0),
            arg: Some(argv),
            env: Some(env).filter(|env| !env.is_empty()),
            input_data: self.stdin.clone(),
            capture_output: Some(GuestExecCaptureOutput::flag(true)),
        })
    }

    /// The name for users.
    pub(super) fn name(&self) -> &str {
        if self.shell { SHELL } else { &self.program }
    }

    /// Whether it is started by the launcher.
    pub(super) fn is_launched(&self) -> bool {
        self.spool.is_some() || self.cwd.is_some()
    }
}

/// Why the launcher did not start the program, or none if it did.
pub(super) fn launch_failure(exit_code: Option<i32>, stderr: &[u8]) -> Option<String> {
    let said = stderr.strip_suffix(NOT_STARTED.1).filter(|_| exit_code == Some(NOT_STARTED.0))?;
    Some(String::from_utf8_lossy(said).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Command, Output, Stdio};

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn wire(spec: &ExecSpec) -> Value {
        serde_json::to_value(spec.to_command(None).unwrap()).unwrap()
    }

    #[test]
    fn the_command_has_what_the_spec_says() {
        let shell = ExecSpec::shell("cat >/tmp/x;").arg("exit").arg("3");
        assert_eq!(
            wire(&shell.with_stdin(*b"\0\xff").with_env("A", "b=c")),
            json!({
                "path": "/bin/sh",
                "arg": ["-c", "cat >/tmp/x; exit 3"],
                "input-data": "AP8=",
                "env": ["A=b=c", format!("PATH={DEFAULT_PATH}")],
                "capture-output": true,
            })
        );
        let own_path = wire(&ExecSpec::new("ls").args(["-l"]).with_env("PATH", "/opt"));
        assert_eq!(own_path["env"], json!(["PATH=/opt"]));
    }

    #[test]
    fn words_that_a_guest_would_truncate_or_misread_are_not_sent() {
        for bad in [
            ExecSpec::new(""),
            ExecSpec::new("a\0b"),
            ExecSpec::new("a").arg("\0"),
            ExecSpec::new("a").with_env("", "v"),
            ExecSpec::new("a").with_env("A=B", "v"),
            ExecSpec::new("a").with_env("A", "\0"),
            ExecSpec::new("a").in_directory("tmp"),
            ExecSpec::new("a").in_directory("/t\0"),
            ExecSpec::new("a").in_directory(""),
            ExecSpec::new("a").spooled("tmp"),
        ] {
            let error = bad.to_command(None).unwrap_err();
            assert_eq!(
                (error.kind().as_str(), error.effect()),
                ("invalid-command", atp_transport::Effect::None)
            );
        }
    }

    /// Runs the agent's command on this machine.
    fn run_here(spec: &ExecSpec, folder: Option<&Path>) -> Output {
        let command = spec.to_command(folder.map(|path| path.to_str().unwrap())).unwrap();
        let mut child = Command::new(command.path);
        child.args(command.arg.unwrap_or_default()).stdin(Stdio::null());
        if let Some(env) = command.env {
            child.env_clear().envs(env.iter().map(|pair| pair.split_once('=').unwrap()));
        }
        child.output().unwrap()
    }

    #[test]
    fn a_program_starts_in_its_directory_and_in_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("it's \"$HOME\" `x`; \n#");
        std::fs::create_dir(&odd).unwrap();
        let pwd = ExecSpec::new("pwd").in_directory(odd.to_str().unwrap());
        assert_eq!(run_here(&pwd, None).stdout, format!("{}\n", odd.display()).into_bytes());
        let shell = ExecSpec::shell("pwd;").arg("exit 3").in_directory("/");
        let output = run_here(&shell, None);
        assert_eq!((output.stdout.as_slice(), output.status.code()), (&b"/\n"[..], Some(3)));

        let missing = run_here(&ExecSpec::new("pwd").in_directory("/no/such"), None);
        let reason = launch_failure(missing.status.code(), &missing.stderr).unwrap();
        assert!(reason.contains("/no/such"), "{reason}");
        let missing = run_here(&ExecSpec::new("no-such-program").in_directory("/"), None);
        let reason = launch_failure(missing.status.code(), &missing.stderr).unwrap();
        assert!(reason.contains("no-such-program"), "{reason}");
    }

    #[test]
    fn output_goes_to_files_that_no_other_user_can_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("spool");
        let spec =
            ExecSpec::new("sh").args(["-c", "echo out; echo err >&2; umask; kill -9 $$"]).spooled("/tmp");
        let output = run_here(&spec, Some(&folder));
        assert_eq!((output.status.code(), output.stdout.len(), output.stderr.len()), (None, 0, 0));
        assert!(std::fs::read(folder.join("out")).unwrap().starts_with(b"out\n0"));
        assert_eq!(std::fs::read(folder.join("err")).unwrap(), b"err\n");
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);

        // An existing folder may belong to any user.
        let again = run_here(&spec, Some(&folder));
        assert!(launch_failure(again.status.code(), &again.stderr).is_some());
    }

    #[test]
    fn only_the_launchers_message_means_that_nothing_was_started() {
        assert_eq!(launch_failure(Some(125), b"no\natp: not started\n").as_deref(), Some("no"));
        assert_eq!(launch_failure(Some(124), b"no\natp: not started\n"), None);
        assert_eq!(launch_failure(Some(125), b"no\n"), None);
        assert_eq!(launch_failure(None, b"atp: not started\n"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_word_arrives_as_it_is_given(
            words in prop::collection::vec(r#"[^\x00]{0,12}|[ '"$`\\;&|<>*?\[\]#~!\n\t-]{0,12}"#, 0..5),
            value in r#"[^\x00]{0,12}"#,
        ) {
            let script = r#"printf '%s\0' "$VALUE" "$@""#;
            let spec = ExecSpec::new("/bin/sh").args(["-c", script, "sh"]).args(words.clone());
            let spec = spec.with_env("VALUE", value.clone()).in_directory("/");
            let output = run_here(&spec, None);
            let expected: Vec<u8> =
                std::iter::once(&value).chain(&words).flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
            prop_assert_eq!(output.stdout, expected);
        }
    }
}
