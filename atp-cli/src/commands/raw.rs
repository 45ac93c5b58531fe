//! `atp qmp` and `atp qga`: one command to QEMU's monitor or to the guest agent.

use atp_executor::Operation;
use atp_protocol::{RawCommand, RawCommandError};

use crate::args::RawArgs;
use crate::batch;
use crate::commands::selection;
use crate::context::Context;
use crate::problem::{Failure, Problem};

pub(crate) async fn qmp(args: RawArgs, context: &Context) -> Result<u8, Failure> {
    let command = parse(&args.command, "qmp")?;
    batch::run(selection(args.targets), Operation::Qmp(command), context).await
}

pub(crate) async fn qga(args: RawArgs, context: &Context) -> Result<u8, Failure> {
    let command = parse(&args.command, "qga")?;
    batch::run(selection(args.targets), Operation::Qga(command), context).await
}

fn parse(words: &[String], command: &str) -> Result<RawCommand, Problem> {
    RawCommand::from_words(words).map_err(|error| {
        let hint = match &error {
            RawCommandError::Argument { word, .. } if word.starts_with("--") => {
                "what follows '--' is no option: put options before it".to_owned()
            }
            _ => format!("`atp {command} --help` shows how a command is written"),
        };
        Problem::new(error.to_string()).hint(hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_behind_the_dashes_is_told_where_it_belongs() {
        let said = |word: &str| format!("{:?}", parse(&["quit".into(), word.into()], "qmp").unwrap_err());
        assert!(said("--dry-run").contains("put options before it"), "{}", said("--dry-run"));
        assert!(said("x").contains("--help"), "{}", said("x"));
    }
}
