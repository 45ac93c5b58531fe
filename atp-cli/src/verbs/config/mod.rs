//! `atp config …`: the settings.

mod check;
mod show;

use super::verb::verbs;

const EXAMPLES: &str = "\
Examples:
  atp config show
  atp --config ./atp.toml config check";

verbs! {
    /// Show and check the settings
    #[command(after_help = EXAMPLES)]
    pub(crate) enum ConfigCommand {
        Show(show::ShowArgs),
        Check(check::CheckArgs),
    }
}
