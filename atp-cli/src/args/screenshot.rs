//! `atp screenshot`.

use std::path::PathBuf;

use clap::Args;

use super::number::parse_number;
use super::targets::TargetArgs;

/// `atp screenshot …`
#[derive(Debug, Args)]
pub(crate) struct ScreenshotArgs {
    #[command(flatten)]
    pub(crate) targets: TargetArgs,

    /// The folder for the pictures; that of a VM is HOST/VM.png in it. What is there already is replaced
    #[arg(short, long, value_name = "DIR")]
    pub(crate) directory: PathBuf,

    /// Which screen of the VMs, from 0
    #[arg(long, value_name = "N", default_value_t = 0, allow_hyphen_values = true, value_parser = parse_number)]
    pub(crate) screen: u32,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  atp screenshot 'kiosk-*' -d shots
  atp screenshot 'node7/' --state running -d /tmp/node7 -o json";
