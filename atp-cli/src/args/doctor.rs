//! `atp doctor`.

use atp_executor::HostSelector;
use clap::Args;

use crate::completer;

/// `atp doctor …`
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Host ids, globs on them, or @GROUP; all hosts if none is given
    #[arg(value_name = "HOST", add = completer::hosts())]
    pub(crate) hosts: Vec<HostSelector>,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  atp doctor
  atp doctor node7 --timeout 5s";
