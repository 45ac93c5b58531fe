//! `atp events`.

use std::time::Duration;

use atp_executor::{LabelFilter, Selector};
use atp_transport::settings::parse_duration;
use clap::Args;

use crate::completer;

/// `atp events …`
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// VMs to tell of, as [HOST/]VM; all VMs of all hosts if none is given. Hosts that no selector can match are not
    /// connected to
    #[arg(value_name = "SEL", add = completer::selectors())]
    pub(crate) selectors: Vec<Selector>,

    /// Leave out the VMs this selects; may be repeated
    #[arg(long, value_name = "SEL", add = completer::selectors())]
    pub(crate) exclude: Vec<Selector>,

    /// Only VMs of hosts with this label; may be repeated, and then all must fit
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<LabelFilter>,

    /// End after so many events; what is told of states and connections does not count
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// End after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,

    /// Tell the events of QEMU's monitors too
    #[arg(long)]
    pub(crate) qemu: bool,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  atp events
  atp events 'web-*' --for 10m -o jsonl";
