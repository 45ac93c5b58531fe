//! Shell scripts about files in the guest, for work that the agent has no commands for.

use tokio::time::Instant;

use crate::carrier::Carrier;
use crate::error::FileError;
use crate::error::{ProtocolError, Result};
use crate::exec::ExecOutput;
use crate::{shell, windows};

/// The beginning of every script here: numbers and messages in one language.
pub(super) const HEAD: &str = "export LC_ALL=C\n";

/// Waits for the process `$tar`, whose exit code is then in `code`. It is ended after as many seconds as the parameter says, or when
/// the folder `$own` is not there any more; and the folder is removed when that time has passed once more. So a copy whose client
/// went away leaves nothing running and no archive, and another copy ends it by removing the folder. This goes on beside the script
/// and without its output, for whose end the agent waits.
macro_rules! watch_tar {
    ($seconds:literal) => {
        concat!(
            "seconds=",
            $seconds,
            r#"
while_there() { left=$seconds; while [ "$left" -gt 0 ] && [ -d "$own" ]; do sleep 1; left=$((left - 1)); done; }
{ while_there; kill "$tar"; } >/dev/null 2>&1 </dev/null & watch=$!
wait "$tar"
code=$?
kill "$watch" 2>/dev/null
{ while_there; rm -rf "$own"; } >/dev/null 2>&1 </dev/null &
"#
        )
    };
}
pub(super) use watch_tar;

/// What the scripts about folders have in common on Windows: where `tar.exe` is, and functions. A reparse point is a link, the
/// place of another volume, or a file that is stored elsewhere; `drop` removes it and does not go into it. `take_away` removes what
/// an earlier copy has left, whole or not at all: a folder below which something is open cannot be renamed.
macro_rules! folders_of_windows {
    () => {
        r"$tar=[IO.Path]::Combine([Environment]::SystemDirectory,'tar.exe')
function is_there($p){[IO.File]::Exists($p) -or [IO.Directory]::Exists($p)}
function is_link($p){(is_there $p) -and (([int][IO.File]::GetAttributes($p) -band 0x400) -ne 0)}
function drop($p){
if(-not (is_link $p)){
foreach($i in (New-Object IO.DirectoryInfo $p).GetFileSystemInfos()){
$x=[int]$i.Attributes
if(($x -band 0x400) -eq 0){$i.Attributes='Normal'}
if(($x -band 0x410) -eq 0x10){drop $i.FullName}else{$i.Delete()}
}
}
[IO.Directory]::Delete($p)
}
function tidy($p){try{drop $p}catch{}}
function take_away($p){
$away=$p+'.old'
try{[IO.Directory]::Move($p,$away)}catch{return}
tidy $away
}
"
    };
}
pub(super) use folders_of_windows;

/// Runs `$tar` with the words `$words` in the folder `$place`. It is ended after `$seconds`, or when the folder `$own` is not there
/// any more. `$why` says then why it failed, if it did, and `$ended` whether it was ended. Its input is empty, and what it
/// prints is read, so that it neither waits nor keeps the output open for whose end the agent waits.
macro_rules! run_tar_on_windows {
    () => {
        r"$i=New-Object Diagnostics.ProcessStartInfo
$i.FileName=$tar;$i.Arguments=$words;$i.WorkingDirectory=$place
$i.UseShellExecute=$false;$i.CreateNoWindow=$true
$i.RedirectStandardInput=$true;$i.RedirectStandardOutput=$true;$i.RedirectStandardError=$true
$c=[Diagnostics.Process]::Start($i)
$c.StandardInput.Close()
$o=$c.StandardOutput.ReadToEndAsync();$e=$c.StandardError.ReadToEndAsync()
$left=[int]$seconds;$ended=$false;$why=''
while(-not $c.WaitForExit(1000)){
$left=$left-1
if(($left -le 0) -or (-not [IO.Directory]::Exists($own))){
$ended=$true
try{$c.Kill()}catch{}
$c.WaitForExit()
}
}
if($ended){$why='tar was ended before it had done all'}
elseif($c.ExitCode -ne 0){$why='tar exited with '+$c.ExitCode+': '+$e.Result.Trim().Split([char]10)[0].Trim()}
"
    };
}
pub(super) use run_tar_on_windows;

/// The number of seconds to a time that a script is told, and a little more: it is the client that ends the work.
pub(super) fn seconds_to(deadline: Instant) -> String {
    let left = deadline.saturating_duration_since(Instant::now());
    (left.as_secs() + 2).to_string()
}

/// A script for each kind of system, which do the same: the path that is the first parameter says which of them is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Script {
    /// For `/bin/sh`.
    pub(super) posix: &'static str,
    /// For PowerShell.
    pub(super) windows: &'static str,
}

/// Runs a script about the file that is its first parameter, and returns its output if it succeeded. `action` is its
/// name in errors.
pub(super) async fn run(
    carrier: &impl Carrier,
    script: Script,
    parameters: &[&str],
    action: &'static str,
    deadline: Instant,
) -> Result<Vec<u8>> {
    let output = output(carrier, script, parameters, deadline).await?;
    checked(output, action, parameters.first().copied().unwrap_or_default())
}

/// Runs a script about the file that is its first parameter.
pub(super) async fn output(
    carrier: &impl Carrier,
    script: Script,
    parameters: &[&str],
    deadline: Instant,
) -> Result<ExecOutput> {
    let path = parameters.first().copied().unwrap_or_default();
    if path.starts_with('/') {
        shell::run(carrier, &format!("{HEAD}{}", script.posix), parameters, deadline).await
    } else if !windows::is_path(path) {
        let reason = format!("the path {path:?} in the guest is not an absolute one");
        Err(ProtocolError::InvalidCommand { reason })
    } else {
        shell::run_on_windows(carrier, script.windows, parameters, deadline).await
    }
}

/// Returns a script's output if it succeeded, otherwise the error of its exit code: 3, 4, 5, 6 and 11 mean the same in all
/// scripts.
pub(super) fn checked(output: ExecOutput, action: &'static str, path: &str) -> Result<Vec<u8>> {
    let path = path.to_owned();
    let error = match output.exit_code {
        Some(0) => return Ok(output.stdout),
        Some(3) => FileError::NotFound { path },
        Some(4) => FileError::IsDirectory { path },
        Some(5) => FileError::NotDirectory { path },
        Some(6) => FileError::NotRegular { path },
        Some(11) => FileError::NoTar,
        _ => FileError::Guest { action, path, reason: reason(&output) },
    };
    Err(error.into())
}

/// Why a script failed: the last line of its standard error, or how its shell ended.
pub(super) fn reason(output: &ExecOutput) -> String {
    let printed = String::from_utf8_lossy(&output.stderr);
    match (printed.trim().lines().last(), output.exit_code) {
        (Some(line), _) => line.to_owned(),
        (None, Some(code)) => format!("its shell exited with code {code}"),
        (None, None) => "its shell was killed".to_owned(),
    }
}
