//! `atp exec`: a command in the guests.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use atp_executor::Operation;
use atp_protocol::{ExecSpec, TextEncoding};
use clap::Args;

use super::cp::has_drive;
use super::verb::Run;
use crate::args::{TargetArgs, pair};
use crate::batch::Batch;
use crate::context::Context;
use crate::problem::{Failure, Problem};
use crate::render::{Forms, groups};
use crate::shell;

/// The file name that means this process's standard input.
const STDIN: &str = "-";

const EXAMPLES: &str = "\
Examples:
  atp exec 'web-*' -- systemctl is-active nginx
  atp exec 'node7/' --shell -- 'df -h | tail -n +2'
  atp exec web-1 --spool=/var/tmp --cwd /var/log -- cat messages";

/// Run a command in the guests, through the guest agent
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    targets: TargetArgs,

    /// Pass this file to the command's standard input; - is atp's own standard input
    #[arg(long, value_name = "FILE")]
    stdin: Option<PathBuf>,

    /// Set an environment variable of the command; may be repeated. The command then has only these variables and a
    /// PATH
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair("expected KEY=VALUE, such as LANG=C"))]
    env: Vec<(String, String)>,

    /// Run the command through the guest's shell, its words joined by spaces
    #[arg(long)]
    shell: bool,

    /// Show the most common output in full, and only the differences of the others
    #[arg(long)]
    diff: bool,

    /// Run the command in this directory of the guest
    #[arg(long, value_name = "DIR", value_parser = parse_folder)]
    cwd: Option<String>,

    /// Pass the output through files in the guest, so that it can be of any size and uses no guest memory; the files
    /// are in DIR and are removed at the end [default of DIR: /tmp]
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "/tmp", value_parser = parse_folder)]
    spool: Option<String>,

    /// The encoding of the command's output, such as cp850, windows-1252 or utf-16; a byte order mark counts for more
    /// [default: utf-8]
    #[arg(long, value_name = "NAME")]
    encoding: Option<TextEncoding>,

    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

impl Run for ExecArgs {
    async fn batch(self, _: &Context) -> Result<Batch, Failure> {
        let stdin = self.stdin.as_deref().map(read_input).transpose()?;
        let mut words = self.command.into_iter();
        let program = words.next().unwrap_or_default();
        if program.is_empty() {
            let problem = Problem::new("there is no program to run: the first word after `--` is empty");
            return Err(problem
                .hint("do not quote a variable that may be empty in place of the program")
                .into());
        }
        let spec = ExecSpec {
            program,
            args: words.collect(),
            env: self.env,
            stdin,
            shell: self.shell,
            cwd: self.cwd,
            spool: self.spool,
            encoding: self.encoding,
        };
        Ok(Batch {
            selection: self.targets.selection(),
            operation: Operation::Exec(spec),
            dry_run: would_run,
            forms: Forms {
                columns: &["exit_code", "signal", "stdout", "stderr"],
                ..groups::forms(self.diff)
            },
        })
    }
}

fn read_input(path: &Path) -> Result<Vec<u8>, Problem> {
    let read = if path == Path::new(STDIN) {
        let mut input = Vec::new();
        std::io::stdin().lock().read_to_end(&mut input).map(|_| input)
    } else {
        std::fs::read(path)
    };
    read.map_err(|error| {
        Problem::new(format!("--stdin {}: cannot be read", path.display()))
            .because(&error)
            .hint("check the path and its permissions")
    })
}

fn parse_folder(text: &str) -> Result<String, String> {
    if text.starts_with('/') || has_drive(text) {
        Ok(text.to_owned())
    } else {
        Err("expected an absolute path in the guest, such as /var/tmp, or C:\\Temp on Windows".to_owned())
    }
}

/// The words as a shell reads them; with `--shell`, the line for the guest's shell.
fn would_run(operation: &Operation) -> Vec<String> {
    let Operation::Exec(spec) = operation else { return Vec::new() };
    let words = std::iter::once(&spec.program).chain(&spec.args).map(String::as_str);
    let line = if spec.shell { words.collect::<Vec<_>>().join(" ") } else { shell::joined(words) };
    vec![format!("exec would run: {line}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_shows_the_command_as_it_would_be_typed() {
        let spec = ExecSpec::new("sh").args(["-c", "echo it's", ""]);
        assert_eq!(would_run(&Operation::Exec(spec)), [r"exec would run: sh -c 'echo it'\''s' ''"]);
        assert_eq!(would_run(&Operation::Exec(ExecSpec::shell("a | b"))), ["exec would run: a | b"]);
    }
}
