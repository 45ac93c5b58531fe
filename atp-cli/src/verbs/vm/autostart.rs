//! `atp vm autostart`.

use atp_executor::{AutostartSpec, Operation};
use clap::{Args, ValueEnum};

use crate::args::TargetArgs;
use crate::batch::Batch;
use crate::context::Context;
use crate::problem::Failure;
use crate::render::{Forms, table};
use crate::verbs::verb::Run;

const EXAMPLES: &str = "\
Examples:
  atp vm autostart on 'web-*'
  atp vm autostart off node7/web-1";

/// Set whether VMs are started with their host
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AutostartArgs {
    /// Whether they are
    #[arg(value_name = "on|off", value_enum)]
    switch: Switch,

    #[command(flatten)]
    targets: TargetArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl Run for AutostartArgs {
    async fn batch(self, _: &Context) -> Result<Batch, Failure> {
        Ok(Batch {
            selection: self.targets.selection(),
            operation: Operation::VmAutostart(AutostartSpec { on: self.switch == Switch::On }),
            dry_run: would_set,
            forms: Forms::new(table::results, &[]),
        })
    }
}

fn would_set(operation: &Operation) -> Vec<String> {
    let Operation::VmAutostart(spec) = operation else { return Vec::new() };
    vec![format!("vm autostart would set: {}", if spec.on { "on" } else { "off" })]
}
