//! `atp journal …`: the journals of runs.

mod show;

use super::verb::verbs;

const EXAMPLES: &str = "\
Examples:
  atp journal show upgrade.journal
  atp journal show upgrade.journal -o json";

verbs! {
    /// Read the journals of runs
    #[command(after_help = EXAMPLES)]
    pub(crate) enum JournalCommand {
        Show(show::ShowArgs),
    }
}
