//! The description of a program to run in the guest, and its conversion to a `guest-exec` command.

use atp_api::ExecSpec;
use qapi::qga::{GuestExecCaptureOutput, guest_exec};

use crate::error::{ProtocolError, Result};
use crate::windows;

/// The shell of [`ExecSpec::shell`], which also does the setup that the agent cannot do.
pub(crate) const SHELL: &str = "/bin/sh";

/// The `PATH` of a process whose environment has none: that of a login shell.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Replaces itself with a program in a working directory, with its output in files: `$1` is the folder for these files
/// and `$2` the directory; either may be empty. `$3` is the mark of this launch. Program and arguments follow. As positional
/// parameters they need no quoting, and no variable is set, so that the environment is the program's own.
const LAUNCHER: &str = r#"fail() { echo "atp: not started $1" >&2; exit 125; }
[ -z "$2" ] || cd "$2" || fail "$3"
command -v "$4" >/dev/null || { echo "$4: not found" >&2; fail "$3"; }
[ -z "$1" ] || { (umask 077; mkdir "$1") && exec >"$1/out" 2>"$1/err"; } || fail "$3"
shift 3
exec "$@""#;

/// The launcher's exit code if it did not start the program, and its message, which ends with the mark of the launch: the program
/// does not know that, and may exit with this code and print such words itself.
const NOT_STARTED: (i32, &str) = (125, "atp: not started ");

/// As [`LAUNCHER`], for Windows: the parameters are the program, its arguments as the rest of a command line, the directory,
/// the folder, the mark, and then the environment, `NAME=VALUE` each. A variable without which hardly any program of Windows runs is
/// kept. The program's output is copied as bytes, and its exit code passed on; a number above `0x7FFFFFFF` is negative here.
pub(super) const WINDOWS_LAUNCHER: &str = r#"$keep='SystemRoot','SystemDrive','windir','ComSpec','PATH','PATHEXT','TEMP','TMP'
try{
$i=New-Object Diagnostics.ProcessStartInfo
$i.FileName=$a[0];$i.Arguments=$a[1];$i.UseShellExecute=$false
$i.RedirectStandardOutput=$true;$i.RedirectStandardError=$true
if($a[2]){if(-not [IO.Directory]::Exists($a[2])){throw "no such directory: $($a[2])"};$i.WorkingDirectory=$a[2]}
if($a.Length -gt 5){
foreach($name in @($i.EnvironmentVariables.Keys)){if($keep -notcontains $name){$i.EnvironmentVariables.Remove($name)}}
foreach($pair in $a[5..($a.Length-1)]){$n=$pair.IndexOf('=');$i.EnvironmentVariables[$pair.Substring(0,$n)]=$pair.Substring($n+1)}
}
if($a[3]){
[void][IO.Directory]::CreateDirectory($a[3])
$out=[IO.File]::Create([IO.Path]::Combine($a[3],'out'));$err=[IO.File]::Create([IO.Path]::Combine($a[3],'err'))
}else{$out=[Console]::OpenStandardOutput();$err=[Console]::OpenStandardError()}
$c=[Diagnostics.Process]::Start($i)
}catch{complain "$($_.Exception.GetBaseException().Message)`natp: not started $($a[4])`n";exit 125}
$o=$c.StandardOutput.BaseStream.CopyToAsync($out);$e=$c.StandardError.BaseStream.CopyToAsync($err)
$c.WaitForExit();$o.Wait();$e.Wait();$out.Dispose();$err.Dispose()
exit $c.ExitCode"#;

/// The shell of [`ExecSpec::shell`] on Windows, and its options: the line is all that is between the outer quotes.
pub(super) const CMD: (&str, &str) = ("cmd.exe", "/d /s /c ");

/// Where output goes on Windows if the folder is the one of other systems, which it does not have.
const WINDOWS_SPOOL: &str = r"C:\Windows\Temp";

/// The folder for output that is the default everywhere.
const DEFAULT_SPOOL: &str = "/tmp";

/// Whether a program is for a Windows guest, as its paths say.
pub(super) fn is_for_windows(spec: &ExecSpec) -> bool {
    spec.cwd.iter().chain(&spec.spool).any(|path| windows::is_path(path))
}

/// The same program for a guest that turned out to be Windows: none if it names a path that Windows does not have.
pub(super) fn for_windows(spec: &ExecSpec) -> Option<ExecSpec> {
    let is_valid = |path: &Option<String>| path.as_deref().is_none_or(windows::is_path);
    let spool = spec
        .spool
        .clone()
        .map(|folder| if folder == DEFAULT_SPOOL { WINDOWS_SPOOL.to_owned() } else { folder });
    (is_valid(&spec.cwd) && is_valid(&spool)).then(|| ExecSpec { spool, ..spec.clone() })
}

/// What is wrong with it, before anything is sent.
fn check(spec: &ExecSpec) -> Result<()> {
    let words = || std::iter::once(&spec.program).chain(&spec.args);
    let invalid = |reason: &str| Err(ProtocolError::InvalidCommand { reason: reason.to_owned() });
    if spec.program.is_empty() {
        return invalid("there is no program to run");
    }
    // These become C strings in the guest, and would be truncated there without an error.
    let env_words = spec.env.iter().flat_map(|(name, value)| [name, value]);
    if words().chain(env_words).chain(&spec.cwd).chain(&spec.spool).any(|word| word.contains('\0')) {
        return invalid("an argument, the environment or a path has a NUL character");
    }
    if spec.env.iter().any(|(name, _)| name.is_empty() || name.contains('=')) {
        return invalid("an environment variable's name is empty or has a '='");
    }
    let paths = || spec.cwd.iter().chain(&spec.spool);
    if !(paths().all(|path| path.starts_with('/')) || paths().all(|path| windows::is_path(path))) {
        return invalid("the working directory, or the folder for output, is not an absolute path");
    }
    Ok(())
}

/// The command that starts it in a Windows guest by way of the launcher, with the mark of this launch.
pub(super) fn to_windows_command(spec: &ExecSpec, folder: Option<&str>, mark: &str) -> Result<guest_exec> {
    check(spec)?;
    let (program, arguments) = if spec.shell {
        let line = std::iter::once(&spec.program).chain(&spec.args).map(String::as_str);
        (CMD.0, format!("{}\"{}\"", CMD.1, line.collect::<Vec<_>>().join(" ")))
    } else {
        let words: Vec<_> = spec.args.iter().map(|word| windows::quoted(word)).collect();
        (spec.program.as_str(), words.join(" "))
    };
    let env: Vec<String> = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let cwd = spec.cwd.as_deref().unwrap_or_default();
    let mut words = vec![program, &arguments, cwd, folder.unwrap_or_default(), mark];
    words.extend(env.iter().map(String::as_str));
    windows::command(WINDOWS_LAUNCHER, &words, spec.stdin.clone())
}

/// The command that starts it, with its output in files in `folder` if given, and with the mark of this launch.
pub(super) fn to_command(spec: &ExecSpec, folder: Option<&str>, mark: &str) -> Result<guest_exec> {
    check(spec)?;
    let words = || std::iter::once(&spec.program).chain(&spec.args);
    let mut argv = if spec.shell {
        let line = words().map(String::as_str).collect::<Vec<_>>().join(" ");
        vec![SHELL.to_owned(), "-c".to_owned(), line]
    } else {
        words().cloned().collect()
    };
    if is_launched(spec) {
        let cwd = spec.cwd.clone().unwrap_or_default();
        let folder = folder.unwrap_or_default().to_owned();
        let launcher = [SHELL, "-c", LAUNCHER, "sh"].map(str::to_owned);
        argv.splice(0..0, launcher.into_iter().chain([folder, cwd, mark.to_owned()]));
    }
    let mut env: Vec<String> = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if !env.is_empty() && !spec.env.iter().any(|(name, _)| name.eq_ignore_ascii_case("PATH")) {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    Ok(guest_exec {
        path: argv.remove(0),
        arg: Some(argv),
        env: Some(env).filter(|env| !env.is_empty()),
        input_data: spec.stdin.clone(),
        capture_output: Some(GuestExecCaptureOutput::flag(true)),
    })
}

/// The name for users.
pub(super) fn name(spec: &ExecSpec) -> &str {
    if spec.shell { SHELL } else { &spec.program }
}

/// Whether it is started by the launcher.
pub(super) fn is_launched(spec: &ExecSpec) -> bool {
    spec.spool.is_some() || spec.cwd.is_some()
}

/// Why the launcher did not start the program, or none if it did. `mark` is that of the launch.
pub(super) fn launch_failure(exit_code: Option<i32>, stderr: &[u8], mark: &str) -> Option<String> {
    let ending = format!("{}{mark}\n", NOT_STARTED.1);
    let said = stderr.strip_suffix(ending.as_bytes()).filter(|_| exit_code == Some(NOT_STARTED.0))?;
    Some(String::from_utf8_lossy(said).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Command, Output, Stdio};

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const MARK: &str = "m";

    fn wire(spec: &ExecSpec) -> Value {
        serde_json::to_value(to_command(spec, None, MARK).unwrap()).unwrap()
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
            let error = to_command(&bad, None, MARK).unwrap_err();
            assert_eq!(
                (error.kind().as_str(), error.effect()),
                ("invalid-command", atp_transport::Effect::None)
            );
        }
    }

    /// Runs the agent's command on this machine.
    fn run_here(spec: &ExecSpec, folder: Option<&Path>) -> Output {
        let command = to_command(spec, folder.map(|path| path.to_str().unwrap()), MARK).unwrap();
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
        let reason = launch_failure(missing.status.code(), &missing.stderr, MARK).unwrap();
        assert!(reason.contains("/no/such"), "{reason}");
        let missing = run_here(&ExecSpec::new("no-such-program").in_directory("/"), None);
        let reason = launch_failure(missing.status.code(), &missing.stderr, MARK).unwrap();
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
        assert!(launch_failure(again.status.code(), &again.stderr, MARK).is_some());
    }

    #[test]
    fn only_the_launchers_message_means_that_nothing_was_started() {
        assert_eq!(launch_failure(Some(125), b"no\natp: not started m\n", MARK).as_deref(), Some("no"));
        assert_eq!(launch_failure(Some(124), b"no\natp: not started m\n", MARK), None);
        assert_eq!(launch_failure(Some(125), b"no\n", MARK), None);
        assert_eq!(launch_failure(None, b"atp: not started m\n", MARK), None);
        // A program that does the same by another launch of its own.
        let inner = run_here(&ExecSpec::new("pwd").in_directory("/no/such"), None);
        assert_eq!(launch_failure(inner.status.code(), &inner.stderr, "other"), None);
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
