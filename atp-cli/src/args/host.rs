//! `atp host …`

use atp_executor::{HostSelector, LabelFilter};
use atp_transport::HostId;
use clap::{Args, Subcommand};

use crate::completer;

/// `atp host …`
#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// List the inventory; connects to nothing
    #[command(after_help = LIST)]
    List,

    /// Connect to hosts and report versions, latency, and what is wrong
    #[command(after_help = CHECK)]
    Check {
        /// Host ids, globs on them, or @GROUP; all hosts if none is given
        #[arg(value_name = "HOST", add = completer::hosts())]
        hosts: Vec<HostSelector>,
    },

    /// Add a host to the settings' file, whose comments and order stay; connects to nothing
    ///
    /// The file is the one given with --config, or else $XDG_CONFIG_HOME/atp/config.toml. It is created if there is
    /// none.
    #[command(after_help = ADD)]
    Add(HostAddArgs),

    /// Remove a host from the settings' file, whose comments and order stay
    #[command(after_help = REMOVE)]
    Remove {
        /// The host's id
        #[arg(value_name = "ID", add = completer::host_ids())]
        id: HostId,
    },
}

/// `atp host add …`
#[derive(Debug, Args)]
pub(crate) struct HostAddArgs {
    /// The id to give the host: A-Z a-z 0-9 . _ -
    #[arg(value_name = "ID")]
    pub(crate) id: HostId,

    /// Its libvirt URI, such as qemu+tcp://10.0.0.7/system or qemu+ssh://root@node7/system
    #[arg(value_name = "URI")]
    pub(crate) uri: String,

    /// A group the host is in; may be repeated
    #[arg(long = "group", value_name = "NAME", value_parser = parse_group)]
    pub(crate) groups: Vec<String>,

    /// A label of the host; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<LabelFilter>,
}

/// A group that no selector could name would be of no use.
fn parse_group(text: &str) -> Result<String, String> {
    match format!("@{text}").parse::<HostSelector>() {
        Ok(selector) if selector.group_literal() == Some(text) => Ok(text.to_owned()),
        _ => Err("expected a name that a selector @NAME can have".to_owned()),
    }
}

pub(super) const EXAMPLES: &str = "\
Examples:
  atp host list
  atp host check '@rack-2' --timeout 5s";

const LIST: &str = "\
Examples:
  atp host list
  atp host list -o json";

const CHECK: &str = "\
Examples:
  atp host check
  atp host check 'node*' --timeout 5s";

const ADD: &str = "\
Examples:
  atp host add node7 qemu+tcp://10.0.0.7/system
  atp host add node8 qemu+ssh://root@node8/system --group rack-2 --label arch=x86";

const REMOVE: &str = "\
Examples:
  atp host remove node7
  atp --config ./atp.toml host remove node7";
