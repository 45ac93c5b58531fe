//! `atp snapshot revert`.

use atp_executor::{Data, Operation, Outcome, RevertSpec, check_snapshot_name};
use atp_transport::domain::AfterRevert;
use clap::Args;

use crate::args::TargetArgs;
use crate::batch::Batch;
use crate::context::Context;
use crate::problem::{Failure, Problem};
use crate::render::Forms;
use crate::render::table::{NOTHING, Rows, status, time, vm};
use crate::verbs::verb::Run;

const EXAMPLES: &str = "\
Examples:
  atp snapshot revert web-1 clean
  atp snapshot revert 'web-*' clean --start --yes";

/// Take each VM back to a snapshot: what was written since then is lost
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RevertArgs {
    #[command(flatten)]
    targets: TargetArgs,

    /// The name of the snapshot
    #[arg(value_name = "NAME")]
    name: String,

    /// Let the VMs run afterwards; by default they do what they did when the snapshot was made
    #[arg(long, conflicts_with = "paused")]
    start: bool,

    /// Leave the VMs paused afterwards
    #[arg(long)]
    paused: bool,
}

impl Run for RevertArgs {
    async fn batch(self, _: &Context) -> Result<Batch, Failure> {
        check_snapshot_name(&self.name).map_err(Problem::new)?;
        let then = match (self.start, self.paused) {
            (true, _) => AfterRevert::Start,
            (_, true) => AfterRevert::Pause,
            _ => AfterRevert::AsThen,
        };
        Ok(Batch {
            selection: self.targets.selection(),
            operation: Operation::SnapshotRevert(RevertSpec { name: self.name, then }),
            dry_run: would_revert,
            forms: Forms::new(reverted, &["state"]),
        })
    }
}

fn would_revert(operation: &Operation) -> Vec<String> {
    let Operation::SnapshotRevert(spec) = operation else { return Vec::new() };
    let then = match spec.then {
        AfterRevert::AsThen => "",
        AfterRevert::Start => ", and the VM would run",
        AfterRevert::Pause => ", and the VM would be paused",
    };
    vec![format!("snapshot revert would go back to: {:?}{then}", spec.name)]
}

/// A row for each VM with the result.
fn reverted(outcomes: &[Outcome]) -> String {
    let mut rows = Rows::new(&["HOST", "VM", "RESULT", "STATE", "TIME"]);
    for outcome in outcomes {
        let state = match &outcome.data {
            Some(Data::Lifecycle { state }) => state.as_str(),
            _ => NOTHING,
        };
        rows.add_outcome(outcome, &[vm(outcome), &status(outcome), state, &time(outcome)]);
    }
    rows.finish()
}
