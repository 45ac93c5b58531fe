//! `atp vm …`

use atp_executor::Selector;
use clap::{Args, Subcommand};

use crate::completer;

use super::targets::{NarrowArgs, TargetArgs};

/// `atp vm …`
#[derive(Debug, Subcommand)]
pub(crate) enum VmCommand {
    /// List VMs, active or not, with state, vCPUs and memory
    #[command(after_help = LIST)]
    List {
        /// VMs to list, as [HOST/]VM; all VMs of all hosts if none is given
        #[arg(value_name = "SEL", add = completer::selectors())]
        selectors: Vec<Selector>,
        #[command(flatten)]
        narrow: NarrowArgs,
    },

    /// Show all that is known of VMs, the guest agent's channel included
    #[command(after_help = INFO)]
    Info(TargetArgs),

    /// Boot VMs that are shut off
    #[command(after_help = START)]
    Start(LifecycleArgs),

    /// Ask guests to power off
    #[command(after_help = SHUTDOWN)]
    Shutdown(LifecycleArgs),

    /// Ask guests to restart
    #[command(after_help = REBOOT)]
    Reboot(LifecycleArgs),

    /// Press the reset button: restart without asking the guest
    #[command(after_help = RESET)]
    Reset(LifecycleArgs),

    /// Pull the plug: power off without asking the guest
    #[command(after_help = DESTROY)]
    Destroy(LifecycleArgs),

    /// Stop the vCPUs and keep the memory
    #[command(after_help = SUSPEND)]
    Suspend(LifecycleArgs),

    /// Let suspended VMs run on
    #[command(after_help = RESUME)]
    Resume(LifecycleArgs),
}

/// `atp vm start …` and its like.
#[derive(Debug, Args)]
pub(crate) struct LifecycleArgs {
    #[command(flatten)]
    pub(crate) targets: TargetArgs,

    /// Wait until the state is reached, or the timeout has passed; with reboot and reset, until the guest has
    /// restarted and its agent answers
    #[arg(long)]
    pub(crate) wait: bool,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  atp vm list
  atp vm shutdown 'node7/' --exclude 'db-*' --wait";

const LIST: &str = "\
Examples:
  atp vm list
  atp vm list '@rack-2/web-*' --state running -o json";

const INFO: &str = "\
Examples:
  atp vm info web-1
  atp vm info 'node7/*' -o jsonl";

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
