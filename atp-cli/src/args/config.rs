//! `atp config …`

use clap::Subcommand;

/// `atp config …`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting, its value and where it comes from; passwords in URIs are masked
    #[command(after_help = SHOW)]
    Show,

    /// Check the settings and the hosts' URIs; connects to nothing
    #[command(after_help = CHECK)]
    Check,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  atp config show
  atp --config ./atp.toml config check";

const SHOW: &str = "\
Examples:
  atp config show
  atp config show --timeout 5s -o json";

const CHECK: &str = "\
Examples:
  atp config check
  atp --config ./atp.toml config check";
