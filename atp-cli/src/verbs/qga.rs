//! `atp qga`: one command to the guest agent.

use atp_executor::Operation;
use clap::Args;

use super::raw::RawArgs;
use super::verb::Run;
use crate::batch::Batch;
use crate::context::Context;
use crate::problem::Failure;

const EXAMPLES: &str = "\
Examples:
  atp qga 'web-*' -- guest-get-osinfo
  atp qga web-1 -- guest-file-open path=/etc/hostname mode=r";

/// Send a command to the guest agents
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct QgaArgs {
    #[command(flatten)]
    raw: RawArgs,
}

impl Run for QgaArgs {
    async fn batch(self, _: &Context) -> Result<Batch, Failure> {
        Ok(self.raw.batch("qga", Operation::Qga)?)
    }
}
