//! `atp snapshot create`.

use atp_executor::{Operation, SnapshotSpec};
use clap::Args;

use crate::args::TargetArgs;
use crate::batch::Batch;
use crate::context::Context;
use crate::problem::{Failure, Problem};
use crate::render::{Forms, table};
use crate::verbs::verb::Run;

const EXAMPLES: &str = "\
Examples:
  atp snapshot create 'web-*' clean
  atp snapshot create web-1 before-upgrade --description 'kernel 6.1' --timeout 5m
  atp snapshot create db-1 nightly --disk-only --quiesce";

/// Make a snapshot of each VM: of its disks, and of its memory if it runs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    targets: TargetArgs,

    /// The name of the snapshot
    #[arg(value_name = "NAME")]
    name: String,

    /// A text that is kept with it
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,

    /// Without the memory of VMs that run: what they write from then on goes to new files. Only on hosts whose daemon can
    /// go back to such snapshots
    #[arg(long)]
    disk_only: bool,

    /// Have the guests' agents freeze their file systems meanwhile
    #[arg(long, requires = "disk_only")]
    quiesce: bool,
}

impl Run for CreateArgs {
    async fn batch(self, _: &Context) -> Result<Batch, Failure> {
        let CreateArgs { targets, name, description, disk_only, quiesce } = self;
        let spec = SnapshotSpec { name, description, disk_only, quiesce };
        spec.check().map_err(Problem::new)?;
        Ok(Batch {
            selection: targets.selection(),
            operation: Operation::SnapshotCreate(spec),
            dry_run: would_make,
            forms: Forms::new(table::results, &["name", "parent", "created", "state", "memory", "external"]),
        })
    }
}

fn would_make(operation: &Operation) -> Vec<String> {
    let Operation::SnapshotCreate(spec) = operation else { return Vec::new() };
    let what = if spec.disk_only { ", without memory" } else { "" };
    vec![format!("snapshot create would make: {:?}{what}", spec.name)]
}
