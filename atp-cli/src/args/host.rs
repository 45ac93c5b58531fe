//! `atp host …`

use atp_executor::HostSelector;
use clap::Subcommand;

/// `atp host …`
#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// List the inventory; connects to nothing
    #[command(after_help = LIST)]
    List,

    /// Connect to hosts and report versions, latency, and what is wrong
    #[command(after_help = CHECK)]
    Check {
        /// Host ids, globs on them, or @GROUP; all hosts if none is given
        #[arg(value_name = "HOST")]
        hosts: Vec<HostSelector>,
    },
}

pub(super) const EXAMPLES: &str = "\
Examples:
  atp host list
  atp host check '@rack-2' --timeout 5s";

const LIST: &str = "\
Examples:
  atp host list
  atp host list -o json";

const CHECK: &str = "\
Examples:
  atp host check
  atp host check 'node*' --timeout 5s";
