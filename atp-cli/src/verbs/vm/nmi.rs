//! `atp vm nmi`.

use atp_executor::Operation;
use clap::Args;

use crate::args::TargetArgs;
use crate::batch::Batch;
use crate::context::Context;
use crate::dry_run;
use crate::problem::Failure;
use crate::render::{Forms, table};
use crate::verbs::verb::Run;

const EXAMPLES: &str = "\
Examples:
  atp vm nmi web-1
  atp vm nmi 'node7/' --state running --yes";

/// Send VMs a non-maskable interrupt, on which many guests write a crash dump and restart
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct NmiArgs {
    #[command(flatten)]
    targets: TargetArgs,
}

impl Run for NmiArgs {
    async fn batch(self, _: &Context) -> Result<Batch, Failure> {
        Ok(Batch {
            selection: self.targets.selection(),
            operation: Operation::VmNmi,
            dry_run: dry_run::name_only,
            forms: Forms::new(table::results, &[]),
        })
    }
}
