//! `atp vm …`: listings and changes of state.

mod info;
mod lifecycle;
mod list;

use super::verb::verbs;

const EXAMPLES: &str = "\
Examples:
  atp vm list
  atp vm shutdown 'node7/' --exclude 'db-*' --wait";

verbs! {
    /// List VMs and change their state
    #[command(after_help = EXAMPLES)]
    pub(crate) enum VmCommand {
        List(list::ListArgs),
        Info(info::InfoArgs),
        #[command(flatten)]
        Lifecycle(lifecycle::LifecycleCommand),
    }
}
