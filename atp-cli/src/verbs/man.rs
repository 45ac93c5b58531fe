//! `atp man`: the manual pages.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _};

use super::verb::Verb;
use crate::args::GlobalArgs;
use crate::cli::Cli;
use crate::console::Console;
use crate::context::Context;
use crate::exit::{BUG, SUCCESS, USAGE};
use crate::output::Output;
use crate::problem::{Failure, Problem};

const EXAMPLES: &str = "\
Examples:
  atp man | man -l -
  atp man ~/.local/share/man/man1";

/// Print the manual page, or write the pages of all commands to a folder
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ManArgs {
    /// The folder for atp.1, atp-exec.1 and the others; created if it does not exist. Without it, atp.1 is printed
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl Verb for ManArgs {
    fn check(&self, _: &GlobalArgs) -> Result<(), Problem> {
        Ok(())
    }

    fn run_without_settings(&self, options: &GlobalArgs, console: &Console) -> Option<u8> {
        Some(pages(self, options.dry_run, console))
    }

    async fn run(self, context: &Context) -> Result<u8, Failure> {
        Ok(pages(&self, context.dry_run, &context.console))
    }
}

/// Prints or writes manual pages. Returns the exit code.
fn pages(args: &ManArgs, dry_run: bool, console: &Console) -> u8 {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let command = with_usage(command);
    let Some(folder) = &args.folder else {
        let mut page = Vec::new();
        return match clap_mangen::Man::new(command).render(&mut page) {
            Ok(()) => {
                let mut output = Output::stdout();
                output.write(&String::from_utf8_lossy(&page));
                output.end(console)
            }
            Err(error) => {
                console.problem(&Problem::new("the manual page cannot be generated").because(&error));
                BUG
            }
        };
    };
    if dry_run {
        console.note(&format!("the manual pages of all commands would be written to {}", folder.display()));
        return SUCCESS;
    }
    match write_pages(command, folder) {
        Ok(()) => SUCCESS,
        Err(error) => {
            let problem =
                Problem::new(format!("{}: the manual pages could not be written", folder.display()));
            console.problem(&problem.because(&error).hint("check the folder and its permissions"));
            USAGE
        }
    }
}

/// Has the synopsis of a page and of those of its subcommands be the line of the help: the page's own names every option, without its
/// value, and no `--` before a command.
fn with_usage(mut command: clap::Command) -> clap::Command {
    let usage = command.render_usage().to_string();
    let usage = usage.strip_prefix("Usage:").unwrap_or(&usage).trim().to_owned();
    command.override_usage(usage).mut_subcommands(with_usage)
}

fn write_pages(command: clap::Command, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)
}
