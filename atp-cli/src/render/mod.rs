//! Outcomes in the formats that people and programs read.

pub(crate) mod csv;
pub(crate) mod failures;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod groups;
pub(crate) mod html;
pub(crate) mod junit;
pub(crate) mod name;
pub(crate) mod summary;
pub(crate) mod table;

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::Hash;
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::Path;

pub(crate) use atp_executor::text::{name_of, target_name};
use atp_executor::{Folded, Outcome};

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
pub(crate) struct Reporter {
    format: OutputFormat,
    forms: Forms,
    /// Those that are written at the end: all, but in the format whose lines are written as targets finish.
    outcomes: Vec<Outcome>,
    /// The titles of its parts, and how many outcomes come before each.
    parts: Vec<(String, usize)>,
}

impl Reporter {
    /// A reporter in this format, whose first part has this title.
    pub(crate) fn new(format: OutputFormat, forms: Forms, title: &str) -> Self {
        Reporter { format, forms, outcomes: Vec::new(), parts: vec![(title.to_owned(), 0)] }
    }

    /// Begins another part.
    pub(crate) fn begin(&mut self, title: &str) {
        self.parts.push((title.to_owned(), self.outcomes.len()));
    }

    /// Adds one outcome.
    pub(crate) fn take(&mut self, outcome: Outcome, output: &mut Output) {
        match self.format {
            OutputFormat::Jsonl => output.write(&json::line(&outcome)),
            _ => self.outcomes.push(outcome),
        }
    }

    /// Writes everything kept for the end. Returns the text about failures for stderr.
    pub(crate) fn finish(mut self, output: &mut Output) -> String {
        let ends = self.parts.iter().skip(1).map(|(_, begin)| *begin).chain([self.outcomes.len()]);
        let parts: Vec<_> =
            self.parts.iter().zip(ends).map(|((title, begin), end)| (title, *begin..end)).collect();
        for (_, part) in &parts {
            self.outcomes[part.clone()].sort_by(Outcome::report_order);
        }
        let (forms, outcomes) = (self.forms, &self.outcomes[..]);
        let text = for_programs(self.format, forms.columns, outcomes);
        output.write(&text.unwrap_or_else(|| match &parts[..] {
            // A part without outcomes was explained on stderr.
            parts if parts.len() > 1 => {
                let parts = parts.iter().filter(|(_, part)| !part.is_empty());
                let text = |(title, part): &(&String, Range<usize>)| {
                    let heading = terminal::styled(terminal::HEADING, terminal::line(title));
                    format!("{heading}\n{}", (forms.table)(&outcomes[part.clone()]))
                };
                parts.map(text).collect::<Vec<_>>().join("\n")
            }
            _ => (forms.table)(outcomes),
        }));
        match self.format {
            OutputFormat::Table => (forms.failures)(outcomes),
            OutputFormat::Name => failures::failures(outcomes),
            // The outcomes themselves have it.
            OutputFormat::Json | OutputFormat::Jsonl | OutputFormat::Csv => String::new(),
        }
    }
}

/// Outcomes in a format that programs read; none for the format for people.
pub(crate) fn for_programs(
    format: OutputFormat,
    columns: csv::Columns,
    outcomes: &[Outcome],
) -> Option<String> {
    match format {
        OutputFormat::Table => None,
        OutputFormat::Json => Some(json::array(outcomes)),
        OutputFormat::Jsonl => Some(outcomes.iter().map(json::line).collect()),
        OutputFormat::Csv => Some(csv::outcomes(columns, outcomes)),
        OutputFormat::Name => Some(name::names(outcomes)),
    }
}

/// Creates or empties the file of a report, and writes its first line.
///
/// # Errors
/// It cannot be written. It is then removed: an empty file is no report.
fn created(path: &Path, first: &str) -> io::Result<File> {
    let mut file = File::create(path)?;
    // This detects a full disk before anything is done.
    if let Err(error) = file.write_all(first.as_bytes()) {
        if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            let _ = fs::remove_file(path);
        }
        return Err(error);
    }
    Ok(file)
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

/// Groups items by key, in the order in which the keys first appear.
pub(crate) fn group_by<T: Copy, K: Hash + Eq>(
    items: impl IntoIterator<Item = T>,
    key: impl Fn(T) -> K,
) -> Vec<Vec<T>> {
    let mut groups: Vec<Vec<T>> = Vec::new();
    let mut places = HashMap::new();
    for item in items {
        let place = *places.entry(key(item)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(members) => members.push(item),
            None => groups.push(vec![item]),
        }
    }
    groups
}
