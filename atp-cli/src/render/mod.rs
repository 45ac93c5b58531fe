//! Outcomes in the formats that people and programs read.

pub(crate) mod csv;
pub(crate) mod failures;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod groups;
pub(crate) mod junit;
pub(crate) mod name;
pub(crate) mod summary;
pub(crate) mod table;

use std::collections::HashMap;
use std::hash::Hash;

use atp_executor::{Folded, Outcome};
use atp_transport::HostId;

use crate::json;
use crate::output::Output;
use crate::output::OutputFormat;
use crate::terminal;

/// How the outcomes of a verb are shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forms {
    /// The text on stdout for people.
    pub(crate) table: fn(&[Outcome]) -> String,
    /// The text on stderr about failures, for people.
    pub(crate) failures: fn(&[Outcome]) -> String,
    /// The columns of the verb's own data in CSV.
    pub(crate) columns: csv::Columns,
}

impl Forms {
    /// A table and columns; failures are reported as for most verbs.
    pub(crate) const fn new(table: fn(&[Outcome]) -> String, columns: csv::Columns) -> Self {
        Forms { table, failures: failures::failures, columns }
    }

    /// The same for a dry run.
    pub(crate) fn of_dry_run(self) -> Self {
        Forms { table: table::dry_run, failures: failures::of_dry_run, ..self }
    }
}

/// Collects the outcomes of a run and renders them in one format.
#[derive(Debug)]
pub(crate) enum Reporter {
    /// Text for people, at the end.
    People(Forms, Vec<Outcome>),
    /// One array, at the end.
    Json(Vec<Outcome>),
    /// One line per outcome, as targets finish.
    JsonLines,
    /// A header and one row per outcome, at the end.
    Csv(csv::Columns, Vec<Outcome>),
    /// A selector for each successful target, at the end.
    Names(Vec<Outcome>),
}

impl Reporter {
    /// A reporter in this format.
    pub(crate) fn new(format: OutputFormat, forms: Forms) -> Self {
        match format {
            OutputFormat::Table => Reporter::People(forms, Vec::new()),
            OutputFormat::Json => Reporter::Json(Vec::new()),
            OutputFormat::Jsonl => Reporter::JsonLines,
            OutputFormat::Csv => Reporter::Csv(forms.columns, Vec::new()),
            OutputFormat::Name => Reporter::Names(Vec::new()),
        }
    }

    /// Adds one outcome.
    pub(crate) fn take(&mut self, outcome: Outcome, output: &mut Output) {
        match self {
            Reporter::People(_, outcomes)
            | Reporter::Json(outcomes)
            | Reporter::Csv(_, outcomes)
            | Reporter::Names(outcomes) => outcomes.push(outcome),
            Reporter::JsonLines => output.write(&json::line(&outcome)),
        }
    }

    /// Writes everything kept for the end. Returns the text about failures for stderr.
    pub(crate) fn finish(mut self, output: &mut Output) -> String {
        match &mut self {
            Reporter::People(_, outcomes)
            | Reporter::Json(outcomes)
            | Reporter::Csv(_, outcomes)
            | Reporter::Names(outcomes) => outcomes.sort_by(Outcome::report_order),
            Reporter::JsonLines => {}
        }
        let text = match &self {
            Reporter::People(forms, outcomes) => (forms.table)(outcomes),
            Reporter::Json(outcomes) => json::array(outcomes),
            Reporter::Csv(columns, outcomes) => csv::outcomes(columns, outcomes),
            Reporter::Names(outcomes) => name::names(outcomes),
            Reporter::JsonLines => String::new(),
        };
        output.write(&text);
        match &self {
            Reporter::People(forms, outcomes) => (forms.failures)(outcomes),
            // The outcomes themselves have it.
            Reporter::Json(_) | Reporter::JsonLines | Reporter::Csv(..) => String::new(),
            Reporter::Names(outcomes) => failures::failures(outcomes),
        }
    }
}

/// `HOST/VM`, `HOST`, or `VM` if it was found on no host; safe for a terminal.
pub(crate) fn target_name(host: Option<&HostId>, vm: Option<&str>) -> String {
    match (host, vm) {
        (Some(host), Some(vm)) => format!("{host}/{}", terminal::line(vm)),
        (Some(host), None) => host.to_string(),
        (None, vm) => terminal::line(vm.unwrap_or("?")).into_owned(),
    }
}

/// The names of the outcomes' targets, folded by their numbers, and no more than fit on a few lines.
pub(crate) fn names_of(outcomes: &[&Outcome]) -> String {
    let names = outcomes.iter().map(|outcome| match (&outcome.host, &outcome.vm) {
        (Some(host), Some(vm)) => format!("{host}/{vm}"),
        (Some(host), None) => host.to_string(),
        (None, vm) => vm.clone().unwrap_or_else(|| "?".to_owned()),
    });
    match outcomes {
        [only] => name_of(only),
        _ => terminal::line(&Folded::of(names).to_string()).into_owned(),
    }
}

/// The name of an outcome's target.
pub(crate) fn name_of(outcome: &Outcome) -> String {
    target_name(outcome.host.as_ref(), outcome.vm.as_deref())
}

/// Groups outcomes by key, in the order in which the keys first appear.
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
