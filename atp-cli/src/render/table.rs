//! Tables for people: one line per row and no borders, so that `cut` and `grep` work on them.

use anstyle::Style;
use atp_executor::{Data, Outcome, Status};
use comfy_table::{Table, presets};

use crate::terminal::{self, ERROR, HEADING, styled};
use crate::words;

/// The cell of a value that does not exist.
pub(crate) const NOTHING: &str = "-";

/// A table under construction.
pub(crate) struct Rows {
    table: Table,
    styles: Vec<Style>,
}

impl Rows {
    pub(crate) fn new(header: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(header.to_vec());
        Rows { table, styles: Vec::new() }
    }

    /// Adds a row; its cells are made safe for terminals.
    pub(crate) fn add(&mut self, style: Style, cells: &[&str]) {
        self.table.add_row(cells.iter().map(|cell| terminal::line(cell).into_owned()).collect::<Vec<_>>());
        self.styles.push(style);
    }

    /// Adds a row for an outcome, highlighted if it is a failure.
    pub(crate) fn add_outcome(&mut self, outcome: &Outcome, cells: &[&str]) {
        let host = outcome.host.as_ref().map_or(NOTHING, |host| host.as_str());
        let style = if outcome.status.is_success() || outcome.status == Status::Skipped {
            Style::new()
        } else {
            ERROR
        };
        self.add(style, &[&[host], cells].concat());
    }

    /// The text; empty if there are no rows.
    pub(crate) fn finish(mut self) -> String {
        if self.styles.is_empty() {
            return String::new();
        }
        for column in self.table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let styles = [HEADING].into_iter().chain(self.styles);
        self.table
            .lines()
            .zip(styles)
            .map(|(line, style)| format!("{}\n", styled(style, line.trim_end())))
            .collect()
    }
}

/// One row per outcome with its status: for verbs without data of their own to show.
pub(crate) fn results(outcomes: &[Outcome]) -> String {
    let mut rows = Rows::new(&["HOST", "VM", "RESULT", "TIME"]);
    for outcome in outcomes {
        rows.add_outcome(outcome, &[vm(outcome), &status(outcome), &time(outcome)]);
    }
    rows.finish()
}

/// The duration, if the target was started.
pub(crate) fn time(outcome: &Outcome) -> String {
    if outcome.attempts > 0 { format!("{} ms", outcome.duration_ms) } else { NOTHING.to_owned() }
}

/// The table of `--dry-run`, for every verb.
pub(crate) fn dry_run(outcomes: &[Outcome]) -> String {
    let mut rows = Rows::new(&["HOST", "VM", "STATE", "WOULD"]);
    for outcome in outcomes {
        let state = match &outcome.data {
            Some(Data::Domain(domain)) => domain.state_with_reason(),
            _ => NOTHING.to_owned(),
        };
        let would = match (outcome.status, &outcome.error) {
            (Status::Skipped, None) => words::verb(&outcome.op),
            (Status::Skipped, Some(error)) => format!("fail: {}", error.kind),
            (Status::Unchanged, _) => "do nothing".to_owned(),
            _ => status(outcome),
        };
        rows.add_outcome(outcome, &[vm(outcome), &state, &would]);
    }
    rows.finish()
}

/// The VM of an outcome.
pub(crate) fn vm(outcome: &Outcome) -> &str {
    outcome.vm.as_deref().unwrap_or(NOTHING)
}

/// Why there is no data: `unreachable`, or the kind of the error.
pub(crate) fn reason(outcome: &Outcome) -> &str {
    match &outcome.error {
        Some(error) if outcome.status == Status::Failed => error.kind.as_str(),
        _ => outcome.status.as_str(),
    }
}

/// The status, with the kind of the error behind it.
pub(crate) fn status(outcome: &Outcome) -> String {
    let status = match &outcome.error {
        Some(error) => format!("{}: {}", outcome.status, error.kind),
        None => outcome.status.to_string(),
    };
    status + &elsewhere(outcome) + earlier(outcome)
}

/// That nothing was done now, if so.
fn earlier(outcome: &Outcome) -> &'static str {
    if outcome.from_earlier_run { " (earlier run)" } else { "" }
}

/// Where the VM was found, if that is not the host of the outcome.
pub(crate) fn elsewhere(outcome: &Outcome) -> String {
    outcome.found_on.as_ref().map(|host| format!(" (on {host})")).unwrap_or_default()
}

/// A number that may not be known.
pub(crate) fn number(number: Option<u32>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// KiB as `96 MiB`, `1.5 GiB`: in the largest unit, with one decimal.
pub(crate) fn size(kib: Option<u64>) -> String {
    let Some(kib) = kib else { return "-".to_owned() };
    const MIB: u64 = 1 << 10;
    const GIB: u64 = 1 << 20;
    let (unit, name) = match kib {
        GIB.. => (GIB, "GiB"),
        MIB.. => (MIB, "MiB"),
        _ => (1, "KiB"),
    };
    let tenths = (u128::from(kib) * 10 + u128::from(unit / 2)) / u128::from(unit);
    if tenths % 10 == 0 {
        format!("{} {name}", tenths / 10)
    } else {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture::outcome;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn results_have_no_column_for_a_state() {
        assert_eq!(
            plain(&results(&[outcome(Some("a"))])),
            "HOST  VM  RESULT  TIME\nh1    a   ok      7 ms\n"
        );
    }

    #[test]
    fn an_outcome_of_an_earlier_run_says_so() {
        let old = Outcome { from_earlier_run: true, status: Status::Failed, ..outcome(Some("a")) };
        assert!(plain(&results(&[old])).contains("failed (earlier run)"));
    }

    #[test]
    fn sizes_are_short() {
        for (kib, text) in [
            (0, "0 KiB"),
            (512, "512 KiB"),
            (96 * 1024, "96 MiB"),
            (1536 * 1024, "1.5 GiB"),
            (8 * 1024 * 1024, "8 GiB"),
            (u64::MAX, "17592186044416 GiB"),
        ] {
            assert_eq!(size(Some(kib)), text);
        }
    }
}
