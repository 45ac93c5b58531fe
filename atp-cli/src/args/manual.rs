//! `atp completions` and `atp man`: what belongs to the installation.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `atp completions …`
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// A shell that can ask for completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
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

/// `atp man …`
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder to write atp.1, atp-exec.1 and the others to; made if there is none. Without it, atp.1 is printed
    #[arg(value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
}

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
To have them in every shell, add the first line to ~/.bashrc.

Examples:
  atp completions bash
  atp completions zsh";

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  atp man | man -l -
  atp man ~/.local/share/man/man1";
