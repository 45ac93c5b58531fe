//! Common parts of `atp qmp` and `atp qga`: one command in the form of QEMU and its guest agent.

use atp_executor::Operation;
use atp_protocol::{RawCommand, RawCommandError};
use clap::Args;

use crate::args::TargetArgs;
use crate::batch::Batch;
use crate::problem::Problem;
use crate::render::groups;

#[derive(Debug, Args)]
pub(crate) struct RawArgs {
    #[command(flatten)]
    targets: TargetArgs,

    /// Show the most common answer in full, and only the differences of the others
    #[arg(long)]
    diff: bool,

    /// COMMAND [KEY=VALUE… | JSON], after --; a value is JSON if it parses as JSON, else a string
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl RawArgs {
    /// The batch of the verb of this name.
    pub(super) fn batch(self, verb: &str, operation: fn(RawCommand) -> Operation) -> Result<Batch, Problem> {
        let command = parse(&self.command, verb)?;
        Ok(Batch {
            selection: self.targets.selection(),
            operation: operation(command),
            dry_run: would_send,
            forms: groups::forms(self.diff),
        })
    }
}

fn parse(words: &[String], command: &str) -> Result<RawCommand, Problem> {
    RawCommand::from_words(words).map_err(|error| {
        let hint = match &error {
            RawCommandError::Argument { word, .. } if word.starts_with("--") => {
                "words after '--' are not options: put options before it".to_owned()
            }
            _ => format!("`atp {command} --help` shows how to write a command"),
        };
        Problem::new(error.to_string()).hint(hint)
    })
}

fn would_send(operation: &Operation) -> Vec<String> {
    match operation {
        Operation::Qmp(command) | Operation::Qga(command) => {
            vec![format!("{operation} would send: {}", command.to_json())]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_after_the_dashes_gets_a_hint() {
        let message = |word: &str| format!("{:?}", parse(&["quit".into(), word.into()], "qmp").unwrap_err());
        assert!(message("--dry-run").contains("put options before it"), "{}", message("--dry-run"));
        assert!(message("x").contains("--help"), "{}", message("x"));
    }
}
