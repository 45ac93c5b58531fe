//! `atp vm list`.

use atp_executor::{Data, Operation, Outcome, Selection, Selector};
use clap::Args;

use crate::args::NarrowArgs;
use crate::batch::Batch;
use crate::completer;
use crate::context::Context;
use crate::dry_run;
use crate::problem::Failure;
use crate::render::Forms;
use crate::render::table::{NOTHING, Rows, number, reason, size, vm};
use crate::verbs::reserve::until;
use crate::verbs::verb::Run;

const EXAMPLES: &str = "\
Examples:
  atp vm list
  atp vm list '@rack-2/web-*' --state running -o json";

/// List VMs, active or not, with state, vCPUs and memory
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ListArgs {
    /// VMs to list, as [HOST/]VM; all VMs of all hosts by default
    #[arg(value_name = "SEL", add = completer::selectors())]
    selectors: Vec<Selector>,
    #[command(flatten)]
    narrow: NarrowArgs,
}

impl Run for ListArgs {
    async fn batch(self, _: &Context) -> Result<Batch, Failure> {
        let all = if self.selectors.is_empty() { Selection::all() } else { Selection::of(self.selectors) };
        Ok(Batch {
            selection: self.narrow.narrow(all),
            operation: Operation::VmList,
            dry_run: dry_run::name_only,
            forms: Forms::new(listing, COLUMNS),
        })
    }
}

const COLUMNS: &[&str] =
    &["state", "id", "vcpus", "memory_kib", "max_memory_kib", "reserved_by", "reserved_until_ms"];

/// One row per VM, and one per host that could not be listed.
fn listing(outcomes: &[Outcome]) -> String {
    let is_reserved = |outcome: &Outcome| match &outcome.data {
        Some(Data::Domain(domain)) => domain.reserved_by.is_some(),
        _ => false,
    };
    let has_reserved = outcomes.iter().any(is_reserved);
    let all = ["HOST", "VM", "STATE", "VCPUS", "MEMORY", "RESERVED BY", "UNTIL"];
    let shown = if has_reserved { &all[..] } else { &all[..5] };
    let mut rows = Rows::new(shown);
    for outcome in outcomes {
        let vm = vm(outcome);
        match &outcome.data {
            Some(Data::Domain(domain)) => {
                let state = match &outcome.found_on {
                    Some(host) => format!("{}, runs on {host}", domain.state_with_reason()),
                    None => domain.state_with_reason(),
                };
                let (vcpus, memory) = (number(domain.vcpus), size(domain.memory_kib));
                let by = domain.reserved_by.as_deref().unwrap_or(NOTHING);
                let until = domain.reserved_until_ms.map_or_else(|| NOTHING.to_owned(), until);
                let cells = [vm, &state, &vcpus, &memory, by, &until];
                rows.add_outcome(outcome, &cells[..shown.len() - 1]);
            }
            _ => {
                let cells = [&[vm, reason(outcome)][..], &[NOTHING; 4]].concat();
                rows.add_outcome(outcome, &cells[..shown.len() - 1]);
            }
        }
    }
    rows.finish()
}

#[cfg(test)]
mod tests {
    use atp_executor::{OutcomeError, Status};
    use atp_transport::ErrorKind;
    use atp_transport::domain::{DomainInfo, DomainState};

    use super::*;
    use crate::render::fixture::outcome;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn row(vm: &str) -> Outcome {
        let domain = DomainInfo {
            id: Some(1),
            vcpus: Some(2),
            memory_kib: Some(1536 * 1024),
            ..DomainInfo::new(vm, Default::default(), DomainState::ShutOff)
        };
        Outcome { data: Some(Data::Domain(domain)), ..outcome(Some(vm)) }
    }

    #[test]
    fn a_listing_has_a_row_per_vm_and_shows_unreachable_hosts() {
        let dead = Outcome {
            status: Status::Unreachable,
            host: Some("h2".parse().unwrap()),
            error: Some(OutcomeError::new(ErrorKind::ConnectionRefused, "m")),
            ..outcome(None)
        };
        let text = plain(&listing(&[row("web\x1b[31m\n"), dead]));
        assert_eq!(
            text,
            "HOST  VM             STATE        VCPUS  MEMORY\n\
             h1    web\\x1b[31m\\n  shut off     2      1.5 GiB\n\
             h2    -              unreachable  -      -\n"
        );
    }

    #[test]
    fn reservations_are_shown_if_there_are_any() {
        let mut reserved = row("a");
        let Some(Data::Domain(domain)) = &mut reserved.data else { panic!() };
        (domain.reserved_by, domain.reserved_until_ms) = (Some("job-1".to_owned()), Some(0));
        assert_eq!(
            plain(&listing(&[reserved, row("b")])),
            "HOST  VM  STATE     VCPUS  MEMORY   RESERVED BY  UNTIL\n\
             h1    a   shut off  2      1.5 GiB  job-1        1970-01-01T00:00:00Z\n\
             h1    b   shut off  2      1.5 GiB  -            -\n"
        );
    }

    #[test]
    fn without_rows_there_is_no_table() {
        assert_eq!(listing(&[]), "");
    }
}
