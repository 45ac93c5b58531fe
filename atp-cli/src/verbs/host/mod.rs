//! `atp host …`: the inventory.

mod add;
mod check;
mod edit;
mod list;
mod remove;

use super::verb::verbs;

const EXAMPLES: &str = "\
Examples:
  atp host list
  atp host check '@rack-2' --timeout 5s";

verbs! {
    /// List, check, add and remove hosts
    #[command(after_help = EXAMPLES)]
    pub(crate) enum HostCommand {
        List(list::ListArgs),
        Check(check::CheckArgs),
        Add(add::AddArgs),
        Remove(remove::RemoveArgs),
    }
}
