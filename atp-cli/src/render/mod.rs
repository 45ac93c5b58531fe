//! Outcomes as a person or a program reads them.

pub(crate) mod csv;
mod details;
mod doctor;
pub(crate) mod events;
mod failures;
#[cfg(test)]
mod fixture;
mod groups;
pub(crate) mod junit;
pub(crate) mod name;
pub(crate) mod summary;
pub(crate) mod table;

use std::collections::HashMap;
use std::hash::Hash;

use atp_executor::{Operation, Outcome};
use atp_transport::HostId;

use crate::context::Context;
use crate::json;
use crate::output::Output;
use crate::output::OutputFormat;
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
    /// A header and a row for each, at the end.
    Csv(csv::Columns, Vec<Outcome>),
    /// A selector for each that is well, at the end.
    Names(Vec<Outcome>),
}

/// What people are shown of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// A row for each VM.
    Listing,
    /// A row for each finding.
    Findings,
    /// A block for each VM.
    Details,
    /// A row for each host.
    Hosts,
    /// A row for each VM with what became of it.
    Changes,
    /// A row for each VM with how far it got through a scenario.
    Steps,
    /// A row for each VM with the file of its picture.
    Screenshots,
    /// A row for each target with how it went.
    Results,
    /// A row for each file that was copied.
    Copies,
    /// Outputs, targets with the same one together.
    Outputs,
    /// The commonest output, and what differs from it in the others.
    Differences,
    /// A row for each target with what would be done.
    Forecast,
}

impl View {
    fn of(operation: &Operation, context: &Context) -> Self {
        match operation {
            _ if context.dry_run => View::Forecast,
            Operation::HostCheck => View::Hosts,
            Operation::DiagnoseHost | Operation::DiagnoseAgent => View::Findings,
            Operation::VmList => View::Listing,
            Operation::VmInfo => View::Details,
            Operation::Lifecycle(_) => View::Changes,
            Operation::Push(_) | Operation::Pull(_) => View::Copies,
            Operation::Wait(_) | Operation::Key(_) | Operation::Type(_) | Operation::Mouse(_) => {
                View::Results
            }
            Operation::Screenshot(_) => View::Screenshots,
            Operation::Scenario(_) => View::Steps,
            Operation::Exec(_) | Operation::Qmp(_) | Operation::Qga(_) if context.differences => {
                View::Differences
            }
            Operation::Exec(_) | Operation::Qmp(_) | Operation::Qga(_) => View::Outputs,
        }
    }

    fn text(self, outcomes: &[Outcome]) -> String {
        match self {
            View::Listing => table::listing(outcomes),
            View::Findings => doctor::findings(outcomes),
            View::Details => details::details(outcomes),
            View::Hosts => table::checks(outcomes),
            View::Changes => table::changes(outcomes),
            View::Results => table::results(outcomes),
            View::Steps => table::steps(outcomes),
            View::Copies => table::copies(outcomes),
            View::Screenshots => table::screenshots(outcomes),
            View::Outputs => groups::outputs(outcomes),
            View::Differences => groups::differences(outcomes),
            View::Forecast => table::forecast(outcomes),
        }
    }
}

impl Reporter {
    /// A reporter of the outcomes of an operation, in the form that the settings ask for.
    pub(crate) fn new(operation: &Operation, context: &Context) -> Self {
        match context.settings.output {
            OutputFormat::Table => Reporter::People(View::of(operation, context), Vec::new()),
            OutputFormat::Json => Reporter::Json(Vec::new()),
            OutputFormat::Jsonl => Reporter::JsonLines,
            OutputFormat::Csv => Reporter::Csv(csv::columns(operation), Vec::new()),
            OutputFormat::Name => Reporter::Names(Vec::new()),
        }
    }

    /// Takes one outcome.
    pub(crate) fn take(&mut self, outcome: Outcome, output: &mut Output) {
        match self {
            Reporter::People(_, outcomes)
            | Reporter::Json(outcomes)
            | Reporter::Csv(_, outcomes)
            | Reporter::Names(outcomes) => outcomes.push(outcome),
            Reporter::JsonLines => output.write(&json::line(&outcome)),
        }
    }

    /// Writes what was kept for the end. Returns what is to be said of failures on stderr.
    pub(crate) fn finish(mut self, output: &mut Output) -> String {
        match &mut self {
            Reporter::People(_, outcomes)
            | Reporter::Json(outcomes)
            | Reporter::Csv(_, outcomes)
            | Reporter::Names(outcomes) => outcomes.sort_by(Outcome::report_order),
            Reporter::JsonLines => {}
        }
        let text = match &self {
            Reporter::People(view, outcomes) => view.text(outcomes),
            Reporter::Json(outcomes) => json::array(outcomes),
            Reporter::Csv(columns, outcomes) => csv::outcomes(columns, outcomes),
            Reporter::Names(outcomes) => name::names(outcomes),
            Reporter::JsonLines => String::new(),
        };
        output.write(&text);
        match &self {
            Reporter::People(View::Findings, outcomes) => doctor::advice(outcomes),
            Reporter::People(view, outcomes) => failures::failures(*view, outcomes),
            // The outcomes themselves tell it.
            Reporter::Json(_) | Reporter::JsonLines | Reporter::Csv(..) => String::new(),
            Reporter::Names(outcomes) => failures::failures(View::Listing, outcomes),
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
