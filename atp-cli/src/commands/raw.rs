//! `atp qmp` and `atp qga`: one command to QEMU's monitor or to the guest agent.

use atp_executor::Operation;
use atp_protocol::RawCommand;

use crate::args::RawArgs;
use crate::commands::{Context, batch, selection};
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
        Problem::new(error.to_string()).hint(format!("`atp {command} --help` shows how a command is written"))
    })
}
