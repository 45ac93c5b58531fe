//! `atp completions` and `atp man`. They read no settings: what is wrong there must not keep a shell from starting.

use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::env::Shells;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::completer;
use crate::console::Console;
use crate::exit::{BUG, SUCCESS, TARGETS_FAILED, USAGE};
use crate::output::Output;
use crate::problem::Problem;

/// Prints the script that makes a shell ask `atp` for completions. Returns the exit code.
pub(crate) fn completions(args: &CompletionsArgs, console: &Console) -> u8 {
    let name = format!("{:?}", args.shell).to_lowercase();
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let written = match shells.completer(&name) {
        Some(shell) => completer::write_registration(shell, &mut script),
        None => Err(io::Error::other(format!("no completions are known for {name}"))),
    };
    match written {
        Ok(()) => print(&script, console),
        Err(error) => {
            console.problem(&Problem::new(format!("the script for {name} cannot be made")).because(&error));
            BUG
        }
    }
}

/// Prints or writes manual pages. Returns the exit code.
pub(crate) fn man(args: &ManArgs, dry_run: bool, console: &Console) -> u8 {
    let command = Cli::command().disable_help_subcommand(true);
    let Some(folder) = &args.folder else {
        let mut page = Vec::new();
        return match clap_mangen::Man::new(command).render(&mut page) {
            Ok(()) => print(&page, console),
            Err(error) => {
                console.problem(&Problem::new("the manual page cannot be made").because(&error));
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

fn write_pages(command: clap::Command, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)
}

fn print(text: &[u8], console: &Console) -> u8 {
    let mut output = Output::stdout();
    output.write(&String::from_utf8_lossy(text));
    match output.finish() {
        Ok(()) => SUCCESS,
        Err(error) => {
            console.problem(&Problem::new("it could not be written to stdout").because(&error));
            TARGETS_FAILED
        }
    }
}
