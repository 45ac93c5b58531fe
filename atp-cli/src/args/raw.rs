//! `atp qmp` and `atp qga`: commands as QEMU and its guest agent take them.

use clap::Args;

use super::targets::TargetArgs;

/// `atp qmp …` and `atp qga …`
#[derive(Debug, Args)]
pub(crate) struct RawArgs {
    #[command(flatten)]
    pub(crate) targets: TargetArgs,

    /// Show the commonest answer in full, and of the others what differs from it
    #[arg(long)]
    pub(crate) diff: bool,

    /// COMMAND [KEY=VALUE… | JSON], after --; a value is JSON if it parses as JSON, else a string
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

pub(super) const QMP_EXAMPLES: &str = "\
Examples:
  atp qmp web-1 -- query-status
  atp qmp 'web-*' -- human-monitor-command command-line='info block'";

pub(super) const QGA_EXAMPLES: &str = "\
Examples:
  atp qga 'web-*' -- guest-get-osinfo
  atp qga web-1 -- guest-file-open path=/etc/hostname mode=r";
