//! `atp vm start`, `atp vm shutdown` and the other verbs that change a VM's state.

use atp_executor::{Await, Data, LifecycleSpec, Operation, Outcome, StartCheck};
use atp_transport::domain::Lifecycle;
use clap::{Args, Subcommand, ValueEnum};

use crate::args::TargetArgs;
use crate::batch::Batch;
use crate::context::Context;
use crate::dry_run;
use crate::problem::{Failure, Problem};
use crate::render::Forms;
use crate::render::table::{NOTHING, Rows, status, time, vm};
use crate::verbs::verb::Run;

/// A change of state.
#[derive(Debug, Subcommand)]
pub(crate) enum LifecycleCommand {
    /// Start VMs that are shut off
    #[command(after_help = START)]
    Start(StartArgs),

    /// Ask guests to power off
    #[command(after_help = SHUTDOWN)]
    Shutdown(LifecycleArgs),

    /// Ask guests to restart
    #[command(after_help = REBOOT)]
    Reboot(LifecycleArgs),

    /// Restart VMs without asking the guest, as a reset button does
    #[command(after_help = RESET)]
    Reset(LifecycleArgs),

    /// Power off VMs without asking the guest, as pulling the plug does
    #[command(after_help = DESTROY)]
    Destroy(LifecycleArgs),

    /// Pause VMs: stop the vCPUs and keep the memory
    #[command(after_help = SUSPEND)]
    Suspend(LifecycleArgs),

    /// Resume suspended VMs
    #[command(after_help = RESUME)]
    Resume(LifecycleArgs),

    /// Write the memory of VMs to a file of their host, and power them off
    #[command(after_help = SAVE)]
    Save(LifecycleArgs),

    /// Let saved VMs go on from their memory
    #[command(after_help = RESTORE)]
    Restore(LifecycleArgs),
}

/// The arguments of all of them.
#[derive(Debug, Args)]
pub(crate) struct LifecycleArgs {
    #[command(flatten)]
    targets: TargetArgs,

    /// Wait until the state is reached and, if the VM is to run and has an agent, its agent answers; or only for the
    /// state, or always for the agent
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true)]
    wait: Option<Option<Awaited>>,
}

/// What `--wait` can name.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Awaited {
    State,
    Agent,
}

impl LifecycleArgs {
    fn awaited(&self) -> Await {
        match self.wait {
            None => Await::Nothing,
            Some(None) => Await::Completion,
            Some(Some(Awaited::State)) => Await::State,
            Some(Some(Awaited::Agent)) => Await::Agent,
        }
    }
}

/// The arguments of a start.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    common: LifecycleArgs,

    /// Start a VM that was migrated away or runs on another listed host, too: nothing is checked. A VM that runs on two
    /// hosts destroys its disks
    #[arg(long)]
    force: bool,

    /// Ask all hosts of the inventory whether the VM runs there, and not only the hosts that are listed for this command;
    /// a host that does not answer is a reason not to start it
    #[arg(long, conflicts_with = "force")]
    ask_all_hosts: bool,
}

impl Run for LifecycleCommand {
    async fn batch(self, _: &Context) -> Result<Batch, Failure> {
        let mut start_check = StartCheck::default();
        let (action, args) = match self {
            LifecycleCommand::Start(StartArgs { common, force, ask_all_hosts }) => {
                start_check = match (force, ask_all_hosts) {
                    (true, _) => StartCheck::Nothing,
                    (false, true) => StartCheck::AllHosts,
                    (false, false) => StartCheck::Listed,
                };
                (Lifecycle::Start, common)
            }
            LifecycleCommand::Shutdown(args) => (Lifecycle::Shutdown, args),
            LifecycleCommand::Reboot(args) => (Lifecycle::Reboot, args),
            LifecycleCommand::Reset(args) => (Lifecycle::Reset, args),
            LifecycleCommand::Destroy(args) => (Lifecycle::Destroy, args),
            LifecycleCommand::Suspend(args) => (Lifecycle::Suspend, args),
            LifecycleCommand::Resume(args) => (Lifecycle::Resume, args),
            LifecycleCommand::Save(args) => (Lifecycle::Save, args),
            LifecycleCommand::Restore(args) => (Lifecycle::Restore, args),
        };
        let spec = LifecycleSpec { action, wait: args.awaited(), start_check };
        spec.check().map_err(Problem::new)?;
        Ok(Batch {
            selection: args.targets.selection(),
            operation: Operation::Lifecycle(spec),
            dry_run: dry_run::name_only,
            forms: Forms::new(changes, &["state"]),
        })
    }
}

/// A row for each VM with the result.
fn changes(outcomes: &[Outcome]) -> String {
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

const START: &str = "\
Examples:
  atp vm start web-1
  atp vm start 'node7/*' --state shut-off --wait";

const SHUTDOWN: &str = "\
Examples:
  atp vm shutdown web-1 --wait --timeout 2m
  atp vm shutdown 'node7/' --exclude 'db-*' --yes";

const REBOOT: &str = "\
Examples:
  atp vm reboot web-1
  atp vm reboot '/^web-[0-9]+$/' --yes";

const RESET: &str = "\
Examples:
  atp vm reset node7/web-1
  atp vm reset 'web-*' --dry-run";

const DESTROY: &str = "\
Examples:
  atp vm destroy node7/web-1
  atp vm destroy 'test-*' --state running --dry-run";

const SUSPEND: &str = "\
Examples:
  atp vm suspend web-1
  atp vm suspend '@rack-2/' --yes";

const RESUME: &str = "\
Examples:
  atp vm resume web-1
  atp vm resume '*' --state paused --wait";

const SAVE: &str = "\
Examples:
  atp vm save web-1 --timeout 5m
  atp vm save 'node7/' --state running --yes";

const RESTORE: &str = "\
Examples:
  atp vm restore web-1
  atp vm restore 'node7/' --state saved --wait";
