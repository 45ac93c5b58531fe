//! Outcomes as a person or a program reads them.

mod details;
mod failures;
mod groups;
pub(crate) mod json;
pub(crate) mod summary;
pub(crate) mod table;

use std::collections::HashMap;
use std::hash::Hash;

use atp_executor::{Operation, Outcome};
use atp_transport::HostId;

use crate::args::OutputFormat;
use crate::output::Output;
use crate::terminal;

/// Takes the outcomes of a run and renders them in one form.
#[derive(Debug)]
pub(crate) enum Reporter {
    /// For people, at the end.
    People(View, Vec<Outcome>),
    /// One array, at the end.
    Json(Vec<Outcome>),
    /// A line for each, as it comes.
    JsonLines,
}

/// What people are shown of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// A row for each VM.
    Listing,
    /// A block for each VM.
    Details,
    /// A row for each host.
    Hosts,
    /// A row for each VM with what became of it.
    Changes,
    /// A row for each VM with how far it got through a scenario.
    Steps,
    /// Outputs, targets with the same one together.
    Outputs,
    /// A row for each target with what would be done.
    Forecast,
}

impl View {
    fn of(operation: &Operation, dry_run: bool) -> Self {
        match operation {
            _ if dry_run => View::Forecast,
            Operation::HostCheck => View::Hosts,
            Operation::VmList => View::Listing,
            Operation::VmInfo => View::Details,
            Operation::Lifecycle { .. } => View::Changes,
            Operation::Scenario(_) => View::Steps,
            Operation::Exec(_) | Operation::Qmp(_) | Operation::Qga(_) => View::Outputs,
        }
    }
}

impl Reporter {
    /// A reporter of the outcomes of an operation.
    pub(crate) fn new(format: OutputFormat, operation: &Operation, dry_run: bool) -> Self {
        match format {
            OutputFormat::Table => Reporter::People(View::of(operation, dry_run), Vec::new()),
            OutputFormat::Json => Reporter::Json(Vec::new()),
            OutputFormat::Jsonl => Reporter::JsonLines,
        }
    }

    /// Takes one outcome.
    pub(crate) fn take(&mut self, outcome: Outcome, output: &mut Output) {
        match self {
            Reporter::People(_, outcomes) | Reporter::Json(outcomes) => outcomes.push(outcome),
            Reporter::JsonLines => output.write(&json::line(&outcome)),
        }
    }

    /// Writes what was kept for the end. Returns what is to be said of failures on stderr.
    pub(crate) fn finish(self, output: &mut Output) -> String {
        match self {
            Reporter::People(view, mut outcomes) => {
                outcomes.sort_by(Outcome::report_order);
                output.write(&match view {
                    View::Listing => table::listing(&outcomes),
                    View::Details => details::details(&outcomes),
                    View::Hosts => table::checks(&outcomes),
                    View::Changes => table::changes(&outcomes),
                    View::Steps => table::steps(&outcomes),
                    View::Outputs => groups::outputs(&outcomes),
                    View::Forecast => table::forecast(&outcomes),
                });
                failures::failures(view, &outcomes)
            }
            Reporter::Json(mut outcomes) => {
                outcomes.sort_by(Outcome::report_order);
                output.write(&json::array(&outcomes));
                String::new()
            }
            Reporter::JsonLines => String::new(),
        }
    }
}

/// `HOST/VM`, `HOST`, or `VM` where it was found on no host; harmless for a terminal.
pub(crate) fn target_name(host: Option<&HostId>, vm: Option<&str>) -> String {
    match (host, vm) {
        (Some(host), Some(vm)) => format!("{host}/{}", terminal::line(vm)),
        (Some(host), None) => host.to_string(),
        (None, vm) => terminal::line(vm.unwrap_or("?")).into_owned(),
    }
}

/// The name of an outcome's target.
fn name_of(outcome: &Outcome) -> String {
    target_name(outcome.host.as_ref(), outcome.vm.as_deref())
}

/// Puts together what has the same key, in the order in which the keys first come.
fn group_by<'a, K: Hash + Eq>(
    outcomes: impl IntoIterator<Item = &'a Outcome>,
    key: impl Fn(&'a Outcome) -> K,
) -> Vec<Vec<&'a Outcome>> {
    let mut groups: Vec<Vec<&'a Outcome>> = Vec::new();
    let mut places = HashMap::new();
    for outcome in outcomes {
        let place = *places.entry(key(outcome)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(members) => members.push(outcome),
            None => groups.push(vec![outcome]),
        }
    }
    groups
}
