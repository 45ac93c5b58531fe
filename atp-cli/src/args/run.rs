//! `atp run`: a scenario file.

use std::path::PathBuf;

use clap::Args;

/// `atp run …`
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The scenario: which VMs, and the steps they go through (docs/scenarios.md describes the format)
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenario: PathBuf,

    /// Give a variable of the scenario another value; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_variable)]
    pub(crate) set: Vec<(String, String)>,
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE, such as targets=web-*".to_owned()),
    }
}

pub(super) const EXAMPLES: &str = "\
Examples:
  atp run smoke.yaml --set targets='web-*'
  atp run rolling-restart.yaml --serial 1 --yes --journal restart.journal";
