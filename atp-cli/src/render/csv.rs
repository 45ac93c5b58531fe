//! Comma-separated values (RFC 4180, lines end with a line feed): a header, and one row per outcome.
//!
//! The first columns are the same for every operation; the columns of its own data follow. A column is never moved or
//! removed. The format is for spreadsheets: control characters but newlines and tabs are escaped, and text that a spreadsheet would take
//! for a formula has an apostrophe before it. JSON has the exact bytes.

use std::borrow::Cow;

use atp_executor::{Data, ExecReport, Outcome};
use serde_json::Value;

use crate::json;
use crate::terminal;

/// The columns that every operation has.
const COMMON: [&str; 10] = [
    "host",
    "vm",
    "uuid",
    "op",
    "status",
    "effect",
    "attempts",
    "duration_ms",
    "error_kind",
    "error_message",
];

/// The columns of an operation's data. The column `data` is all of it as JSON, if there is no better form.
pub(crate) type Columns = &'static [&'static str];

/// The header and one row per outcome.
pub(crate) fn outcomes(columns: Columns, outcomes: &[Outcome]) -> String {
    let mut text = row(COMMON.iter().chain(columns).map(|&name| name.into()));
    for outcome in outcomes {
        text.push_str(&outcome_row(columns, outcome));
    }
    text
}

fn outcome_row(columns: Columns, outcome: &Outcome) -> String {
    let error = outcome.error.as_ref();
    let common: [Cow<'_, str>; COMMON.len()] = [
        outcome.host.as_ref().map_or("", |host| host.as_str()).into(),
        outcome.vm.as_deref().unwrap_or_default().into(),
        outcome.uuid.map(|uuid| uuid.to_string()).unwrap_or_default().into(),
        outcome.op.as_ref().into(),
        outcome.status.as_str().into(),
        outcome.effect.as_str().into(),
        outcome.attempts.to_string().into(),
        outcome.duration_ms.to_string().into(),
        error.map_or("", |error| error.kind.as_str()).into(),
        error.map_or("", |error| error.message.as_str()).into(),
    ];
    let own: Vec<Cow<'_, str>> = match &outcome.data {
        None => vec!["".into(); columns.len()],
        Some(data) => {
            let value = serde_json::to_value(data).unwrap_or_default();
            columns.iter().map(|name| own_cell(name, data, &value)).collect()
        }
    };
    row(common.into_iter().chain(own))
}

/// The cell of this column of an outcome's data.
fn own_cell<'a>(name: &str, data: &Data, value: &Value) -> Cow<'a, str> {
    match (name, data) {
        // A stream's text is more readable than its JSON.
        ("stdout", Data::Exec(ExecReport { stdout, .. })) => terminal::stream_block(stdout).into(),
        ("stderr", Data::Exec(ExecReport { stderr, .. })) => terminal::stream_block(stderr).into(),
        ("data", _) => cell(value).into_owned().into(),
        (name, _) => value.get(name).map(cell).unwrap_or_default().into_owned().into(),
    }
}

/// A value as the text of a cell.
pub(crate) fn cell(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => "".into(),
        Value::String(text) => text.into(),
        other => json::compact(other).into(),
    }
}

/// A line with these cells.
pub(crate) fn row<'a>(cells: impl Iterator<Item = Cow<'a, str>>) -> String {
    let mut line = cells.map(|cell| quoted(&cell)).collect::<Vec<_>>().join(",");
    line.push('\n');
    line
}

fn quoted(text: &str) -> String {
    let text = terminal::block(text);
    let text = if is_formula(&text) { format!("'{text}") } else { text };
    if text.contains([',', '"', '\n', '\t']) || text.trim() != text {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

/// Whether a spreadsheet would evaluate the text. A signed number is not a formula.
fn is_formula(text: &str) -> bool {
    match text.trim_start().chars().next() {
        Some('=' | '@') => true,
        Some('+' | '-') => text.trim().parse::<f64>().is_err(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use atp_transport::ErrorKind;

    use super::*;
    use crate::render::fixture::{self, ran};
    use atp_executor::{OutcomeError, Status};

    fn outcome(vm: &str, data: Option<Data>) -> Outcome {
        Outcome { data, ..fixture::outcome(Some(vm)) }
    }

    #[test]
    fn a_process_has_its_streams_in_columns() {
        let failed = Outcome {
            status: Status::Failed,
            error: Some(OutcomeError::new(ErrorKind::VmNotRunning, "host h1: VM \"b\" is not running")),
            ..outcome("b", None)
        };
        let ran = ran(Some(0), None, b"two\nlines \"q\"\x1b[2J\xff\r\n", b"");
        assert_eq!(
            outcomes(&["exit_code", "signal", "stdout", "stderr"], &[outcome("a,1", Some(ran)), failed]),
            "host,vm,uuid,op,status,effect,attempts,duration_ms,error_kind,error_message,exit_code,signal,stdout,stderr\n\
             h1,\"a,1\",,exec,ok,done,1,7,,,0,,\"two\nlines \"\"q\"\"\\x1b[2J\\xff\n\",\n\
             h1,b,,exec,failed,done,1,7,vm-not-running,\"host h1: VM \"\"b\"\" is not running\",,,,\n"
        );
    }

    #[test]
    fn every_row_has_as_many_cells_as_the_header() {
        let reply = Some(Data::Reply(serde_json::json!({"a": [1, 2], "b": null})));
        let text = outcomes(&["data"], &[outcome("a", reply), outcome("b", None)]);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].ends_with(r#","{""a"":[1,2],""b"":null}""#), "{text}");
        assert_eq!(lines[2].matches(',').count(), lines[0].matches(',').count());
    }

    #[test]
    fn formulas_become_text() {
        for (text, cell) in [
            ("=1+1", "'=1+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-x", "'-x"),
            ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
            ("-12.5", "-12.5"),
            ("a=b", "a=b"),
            ("", ""),
        ] {
            assert_eq!(quoted(text), cell);
        }
        assert_eq!(quoted("\t=1"), "\"'\t=1\"");
    }
}
