//! `atp host check`.

use atp_executor::{Data, HostSelector, Operation, Outcome, Selection};
use clap::Args;

use crate::batch::Batch;
use crate::completer;
use crate::context::Context;
use crate::dry_run;
use crate::problem::Failure;
use crate::render::Forms;
use crate::render::table::{NOTHING, Rows, status};
use crate::verbs::verb::Run;

const EXAMPLES: &str = "\
Examples:
  atp host check
  atp host check 'node*' --timeout 5s";

/// The columns of CSV.
const COLUMNS: &[&str] = &[
    "hostname",
    "daemon_version",
    "hypervisor",
    "hypervisor_version",
    "connect_ms",
    "latency_ms",
    "domains",
    "active_domains",
];

/// Connect to hosts and report versions, latency and problems
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArgs {
    /// Host ids, globs that match them, or @GROUP; all hosts by default
    #[arg(value_name = "HOST", add = completer::hosts())]
    hosts: Vec<HostSelector>,
}

impl Run for CheckArgs {
    async fn batch(self, _: &Context) -> Result<Batch, Failure> {
        Ok(Batch {
            selection: if self.hosts.is_empty() { Selection::all() } else { Selection::hosts(self.hosts) },
            operation: Operation::HostCheck,
            dry_run: dry_run::name_only,
            forms: Forms::new(checks, COLUMNS),
        })
    }
}

fn checks(outcomes: &[Outcome]) -> String {
    let header =
        ["HOST", "RESULT", "HYPERVISOR", "LIBVIRT", "HOSTNAME", "CONNECT", "LATENCY", "VMS", "ACTIVE"];
    let mut rows = Rows::new(&header);
    for outcome in outcomes {
        match &outcome.data {
            Some(Data::Host(host)) => rows.add_outcome(
                outcome,
                &[
                    outcome.status.as_str(),
                    &format!("{} {}", host.hypervisor, host.hypervisor_version),
                    &host.daemon_version.to_string(),
                    &host.hostname,
                    &milliseconds(host.connect_ms),
                    &milliseconds(host.latency_ms),
                    &host.domains.to_string(),
                    &host.active_domains.to_string(),
                ],
            ),
            _ => rows.add_outcome(outcome, &[&[status(outcome).as_str()][..], &[NOTHING; 7]].concat()),
        }
    }
    rows.finish()
}

fn milliseconds(value: f64) -> String {
    format!("{value:.1} ms")
}
