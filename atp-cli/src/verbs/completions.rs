//! `atp completions`: the script that makes a shell ask `atp` for completions.

use std::io;

use clap::{Args, ValueEnum};
use clap_complete::env::Shells;

use super::verb::Verb;
use crate::args::GlobalArgs;
use crate::completer;
use crate::console::Console;
use crate::context::Context;
use crate::exit::BUG;
use crate::output::Output;
use crate::problem::{Failure, Problem};

const EXAMPLES: &str = "\
To have them in every shell, add the first line to ~/.bashrc.

Examples:
  atp completions bash
  atp completions zsh";

/// Print the shell script that completes commands, options, hosts, groups and VMs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// A shell that can ask for completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    /// source <(atp completions bash)
    Bash,
    /// eval (atp completions elvish | slurp)
    Elvish,
    /// atp completions fish | source
    Fish,
    /// atp completions powershell | Out-String | Invoke-Expression
    Powershell,
    /// source <(atp completions zsh)
    Zsh,
}

impl Verb for CompletionsArgs {
    fn check(&self, _: &GlobalArgs) -> Result<(), Problem> {
        Ok(())
    }

    /// Wrong settings must not keep a shell from starting.
    fn run_without_settings(&self, _: &GlobalArgs, console: &Console) -> Option<u8> {
        Some(print_script(self.shell, console))
    }

    async fn run(self, context: &Context) -> Result<u8, Failure> {
        Ok(print_script(self.shell, &context.console))
    }
}

fn print_script(shell: Shell, console: &Console) -> u8 {
    let name = format!("{shell:?}").to_lowercase();
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let written = match shells.completer(&name) {
        Some(shell) => completer::write_registration(shell, &mut script),
        None => Err(io::Error::other(format!("no completions are known for {name}"))),
    };
    match written {
        Ok(()) => {
            let mut output = Output::stdout();
            output.write(&String::from_utf8_lossy(&script));
            output.end(console)
        }
        Err(error) => {
            console
                .problem(&Problem::new(format!("the script for {name} cannot be generated")).because(&error));
            BUG
        }
    }
}
