//! Comma-separated values (RFC 4180, lines ended by a line feed): a header, and a row for each outcome.
//!
//! The first columns are the same for every operation; those of the operation's own data follow. A column is never
//! moved or removed. Made for spreadsheets: control characters are written as escapes, and text that a spreadsheet
//! would take for a formula has an apostrophe before it. For the exact bytes there is JSON.

use std::borrow::Cow;

use atp_executor::{Data, ExecReport, Operation, Outcome};
use serde_json::Value;

use crate::json;
use crate::settings::Entry;
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

/// The columns of an operation's data. `data` is all of it, as JSON, where there is no better form.
pub(crate) type Columns = &'static [&'static str];

/// What `atp host list` has for data.
pub(crate) const HOST_LIST: Columns = &["uri", "address", "groups", "labels", "weight"];

const EXEC: Columns = &["exit_code", "signal", "stdout", "stderr"];

/// The columns of an operation's data.
pub(crate) fn columns(operation: &Operation) -> Columns {
    match operation {
        Operation::Exec(_) => EXEC,
        Operation::VmList => &["state", "id", "vcpus", "memory_kib", "max_memory_kib"],
        Operation::VmInfo => &[
            "state",
            "id",
            "vcpus",
            "memory_kib",
            "max_memory_kib",
            "persistent",
            "autostart",
            "agent",
            "title",
            "guest",
            "guest_error",
        ],
        Operation::Push(_) | Operation::Pull(_) => {
            &["guest_path", "local_path", "bytes", "resumed_at", "sha256"]
        }
        Operation::Wait(_) => &["looks"],
        Operation::HostCheck => &[
            "hostname",
            "daemon_version",
            "hypervisor",
            "hypervisor_version",
            "connect_ms",
            "latency_ms",
            "domains",
            "active_domains",
        ],
        Operation::DiagnoseHost | Operation::DiagnoseAgent => &["findings"],
        Operation::Lifecycle(_) => &["state"],
        Operation::Screenshot(_) => &["file", "width", "height", "bytes"],
        _ => &["data"],
    }
}

/// The header and a row for each outcome.
pub(crate) fn outcomes(columns: Columns, outcomes: &[Outcome]) -> String {
    let mut text = row(COMMON.iter().chain(columns).map(|&name| name.into()));
    for outcome in outcomes {
        text.push_str(&outcome_row(columns, outcome));
    }
    text
}

/// `atp config show`.
pub(crate) fn settings(entries: &[Entry]) -> String {
    let mut text = row(["key", "value", "origin"].map(Cow::from).into_iter());
    for entry in entries {
        text.push_str(&row([
            Cow::from(entry.key.as_str()),
            cell(&entry.value),
            entry.origin.as_str().into(),
        ]
        .into_iter()));
    }
    text
}

fn outcome_row(columns: Columns, outcome: &Outcome) -> String {
    let error = outcome.error.as_ref();
    let common: [Cow<'_, str>; COMMON.len()] = [
        outcome.host.as_ref().map_or("", |host| host.as_str()).into(),
        outcome.vm.as_deref().unwrap_or_default().into(),
        outcome.uuid.map(|uuid| uuid.to_string()).unwrap_or_default().into(),
        outcome.op.into(),
        outcome.status.as_str().into(),
        outcome.effect.as_str().into(),
        outcome.attempts.to_string().into(),
        outcome.duration_ms.to_string().into(),
        error.map_or("", |error| error.kind.as_str()).into(),
        error.map_or("", |error| error.message.as_str()).into(),
    ];
    let own: Vec<Cow<'_, str>> = match &outcome.data {
        None => vec!["".into(); columns.len()],
        // Whatever the data is, a process says more by its streams than by their JSON.
        Some(Data::Exec(report)) if columns == EXEC => exec(report).to_vec(),
        Some(data) => {
            let value = serde_json::to_value(data).unwrap_or_default();
            let field = |&name: &&str| match name {
                "data" => cell(&value),
                name => value.get(name).map(cell).unwrap_or_default(),
            };
            columns.iter().map(|name| Cow::Owned(field(name).into_owned())).collect()
        }
    };
    row(common.into_iter().chain(own))
}

fn exec(report: &ExecReport) -> [Cow<'_, str>; 4] {
    let number = |number: Option<i32>| number.map(|number| number.to_string()).unwrap_or_default().into();
    [
        number(report.exit_code),
        number(report.signal),
        terminal::stream_block(&report.stdout).into(),
        terminal::stream_block(&report.stderr).into(),
    ]
}

fn cell(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => "".into(),
        Value::String(text) => text.into(),
        other => json::compact(other).into(),
    }
}

fn row<'a>(cells: impl Iterator<Item = Cow<'a, str>>) -> String {
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

/// Whether a spreadsheet would compute the text. A number with its sign is one.
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
    use atp_executor::{Condition, LifecycleSpec, OutcomeError, PullSpec, ScreenshotSpec, Status};
    use atp_protocol::ExecSpec;
    use atp_protocol::screenshot::ScreenshotLimits;
    use atp_transport::domain::Lifecycle;

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
            outcomes(EXEC, &[outcome("a,1", Some(ran)), failed]),
            "host,vm,uuid,op,status,effect,attempts,duration_ms,error_kind,error_message,exit_code,signal,stdout,stderr\n\
             h1,\"a,1\",,exec,ok,done,1,7,,,0,,\"two\nlines \"\"q\"\"\\x1b[2J\\xff\n\",\n\
             h1,b,,exec,failed,done,1,7,vm-not-running,\"host h1: VM \"\"b\"\" is not running\",,,,\n"
        );
    }

    #[test]
    fn every_column_is_on_the_page() {
        const PAGE: &str = include_str!("../../../docs/cli.md");
        let (from, to) = (PAGE.find("### Columns of CSV").unwrap(), PAGE.find("### JUnit").unwrap());
        let exec = || ExecSpec::new("true");
        let lifecycle = Operation::Lifecycle(LifecycleSpec { action: Lifecycle::Start, wait: false });
        let pull = PullSpec { path: "/x".into(), destination: "x".into(), separate: false };
        let (folder, limits) = ("x".into(), ScreenshotLimits::default());
        let operations = [
            Operation::HostCheck,
            Operation::DiagnoseHost,
            Operation::VmList,
            Operation::VmInfo,
            lifecycle,
            Operation::Exec(exec()),
            Operation::Pull(pull),
            Operation::Wait(Condition::Exec(exec())),
            Operation::Screenshot(ScreenshotSpec { folder, screen: 0, limits }),
        ];
        let own = operations.iter().flat_map(columns);
        for column in COMMON.iter().chain(own).chain(HOST_LIST) {
            assert!(PAGE[from..to].contains(&format!("`{column}`")), "{column}");
        }
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
    fn what_a_spreadsheet_would_compute_is_text() {
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
