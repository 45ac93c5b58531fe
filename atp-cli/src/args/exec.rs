//! `atp exec`.

use std::path::PathBuf;

use atp_protocol::TextEncoding;
use clap::Args;

use super::targets::TargetArgs;

/// `atp exec …`
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    pub(crate) targets: TargetArgs,

    /// Give this file to the command's standard input; - is atp's own standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) stdin: Option<PathBuf>,

    /// Set an environment variable of the command; may be repeated. The command then has these and a PATH,
    /// and no others
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_env)]
    pub(crate) env: Vec<(String, String)>,

    /// Run the command through the guest's shell, its words joined by spaces
    #[arg(long)]
    pub(crate) shell: bool,

    /// Show the commonest output in full, and of the others what differs from it
    #[arg(long)]
    pub(crate) diff: bool,

    /// Run it in this directory of the guest
    #[arg(long, value_name = "DIR", value_parser = parse_folder)]
    pub(crate) cwd: Option<String>,

    /// Let the output go through files in the guest, so that it may be of any size and takes none of the guest's memory;
    /// they are in DIR, and removed in the end [default of DIR: /tmp]
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "/tmp", value_parser = parse_folder)]
    pub(crate) spool: Option<String>,

    /// What the command prints is text in this encoding, such as utf-16le or windows-1252 [default: utf-8]
    #[arg(long, value_name = "NAME")]
    pub(crate) encoding: Option<TextEncoding>,

    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

fn parse_env(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, such as LANG=C".to_owned()),
    }
}

fn parse_folder(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err("expected an absolute path in the guest, such as /var/tmp".to_owned())
    }
}

pub(super) const EXAMPLES: &str = "\
Examples:
  atp exec 'web-*' -- systemctl is-active nginx
  atp exec 'node7/' --shell -- 'df -h | tail -n +2'
  atp exec web-1 --spool=/var/tmp --cwd /var/log -- cat messages";
