//! `atp snapshot …`: snapshots of VMs.

mod create;
mod delete;
mod list;
mod revert;

use super::verb::verbs;

const EXAMPLES: &str = "\
Examples:
  atp snapshot create 'web-*' clean
  atp snapshot revert 'web-*' clean --yes
  atp snapshot list web-1";

verbs! {
    /// Make snapshots of VMs, and go back to them
    #[command(after_help = EXAMPLES)]
    pub(crate) enum SnapshotCommand {
        Create(create::CreateArgs),
        List(list::ListArgs),
        Revert(revert::RevertArgs),
        Delete(delete::DeleteArgs),
    }
}
