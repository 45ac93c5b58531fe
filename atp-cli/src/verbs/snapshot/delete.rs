//! `atp snapshot delete`.

use atp_executor::{Operation, SnapshotDeleteSpec, check_snapshot_name};
use clap::Args;

use crate::args::TargetArgs;
use crate::batch::Batch;
use crate::context::Context;
use crate::problem::{Failure, Problem};
use crate::render::{Forms, table};
use crate::verbs::verb::Run;

const EXAMPLES: &str = "\
Examples:
  atp snapshot delete web-1 before-upgrade
  atp snapshot delete 'web-*' clean --children --yes";

/// Remove a snapshot of each VM, which stays as it is
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    targets: TargetArgs,

    /// The name of the snapshot
    #[arg(value_name = "NAME")]
    name: String,

    /// Also remove the snapshots that were made from it. Without this they stay
    #[arg(long)]
    children: bool,
}

impl Run for DeleteArgs {
    async fn batch(self, _: &Context) -> Result<Batch, Failure> {
        check_snapshot_name(&self.name).map_err(Problem::new)?;
        let spec = SnapshotDeleteSpec { name: self.name, children: self.children };
        Ok(Batch {
            selection: self.targets.selection(),
            operation: Operation::SnapshotDelete(spec),
            dry_run: would_remove,
            forms: Forms::new(table::results, &[]),
        })
    }
}

fn would_remove(operation: &Operation) -> Vec<String> {
    let Operation::SnapshotDelete(spec) = operation else { return Vec::new() };
    let children = if spec.children { ", and what was made from it" } else { "" };
    vec![format!("snapshot delete would remove: {:?}{children}", spec.name)]
}
