//! `atp qmp`: one command to QEMU's monitor.

use atp_executor::Operation;
use clap::Args;

use super::raw::RawArgs;
use super::verb::Run;
use crate::batch::Batch;
use crate::context::Context;
use crate::problem::Failure;

const EXAMPLES: &str = "\
Examples:
  atp qmp web-1 -- query-status
  atp qmp 'web-*' -- human-monitor-command command-line='info block'";

/// Send a command to the QEMU monitors
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct QmpArgs {
    #[command(flatten)]
    raw: RawArgs,
}

impl Run for QmpArgs {
    async fn batch(self, _: &Context) -> Result<Batch, Failure> {
        Ok(self.raw.batch("qmp", Operation::Qmp)?)
    }
}
