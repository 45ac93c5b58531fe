//! `atp journal show`.

use std::borrow::Cow;
use std::path::PathBuf;

use anstyle::Style;
use atp_api::Status;
use atp_executor::{JournalProgress, JournalReport, JournalTarget, Names};
use clap::{Args, ValueHint};

use crate::args::GlobalArgs;
use crate::context::Context;
use crate::json;
use crate::output::{Output, OutputFormat};
use crate::problem::{Failure, Problem};
use crate::render::csv;
use crate::render::table::{NOTHING, Rows, status, time};
use crate::terminal::{self, ERROR, WARNING, styled};
use crate::verbs::verb::Verb;

const EXAMPLES: &str = "\
Examples:
  atp journal show upgrade.journal
  atp journal show upgrade.journal -o json";

/// Show what a run's journal says of each target; connects to nothing
///
/// The file may be of a run that goes on just now. It is not changed
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ShowArgs {
    /// The file, as given to --journal
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
}

impl Verb for ShowArgs {
    fn check(&self, options: &GlobalArgs) -> Result<(), Problem> {
        options.refuse_reports()
    }

    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let report = JournalReport::read(&self.file).await.map_err(Problem::from)?;
        let mut output = Output::stdout();
        match context.settings.output {
            OutputFormat::Table => output.write(&text(&report)),
            OutputFormat::Json => output.write(&json::line(&report)),
            OutputFormat::Jsonl => report.targets.iter().for_each(|one| output.write(&json::line(one))),
            OutputFormat::Csv => output.write(&csv_rows(&report)),
            OutputFormat::Name => {
                let problem = Problem::new("journals have the formats table, json, jsonl and csv, not name");
                return Err(problem.hint("use -o table").into());
            }
        }
        // What was cut off was never shown by its run, and is no failure.
        for warning in warnings(&report) {
            context.console.warning(&warning);
        }
        Ok(output.end(&context.console))
    }
}

/// What is wrong with the file.
fn warnings(report: &JournalReport) -> Vec<String> {
    let file = report.path.display();
    let mut warnings = Vec::new();
    if report.has_lost {
        warnings.push(format!(
            "{file} is damaged before its end: records were lost, and it is not known which targets were started since"
        ));
    } else if report.torn_bytes > 0 {
        warnings.push(format!(
            "{file} is cut off: its last {} bytes are no whole record. Nothing was done because of them; or the run is writing \
             them now",
            report.torn_bytes
        ));
    }
    warnings
}

fn text(report: &JournalReport) -> String {
    let begun = or(&report.begun_at, "at an unknown time");
    let version = or(&report.version, "of an unknown version");
    let mut text = format!("{} begun {begun} by atp {version}\n", terminal::line(&report.op));
    for at in &report.resumed_at {
        text.push_str(&format!("resumed {}\n", or(at, "at an unknown time")));
    }
    if !report.unresolved.is_empty() {
        let names = Names(report.unresolved.clone()).to_string();
        text.push_str(&format!("{}\n", styled(WARNING, format!("not resolved: {}", terminal::line(&names)))));
    }
    let mut rows = Rows::new(&["HOST", "VM", "RESULT", "EFFECT", "TIME"]);
    for target in &report.targets {
        let (style, cells) = row(target);
        let vm = target.vm.as_deref().unwrap_or(NOTHING);
        rows.add(style, &[target.host.as_str(), vm, &cells[0], &cells[1], &cells[2]]);
    }
    let table = rows.finish();
    if !table.is_empty() {
        text.push_str(&format!("\n{table}"));
    }
    let count = |progress| report.count(progress);
    let ended = |is: fn(Status) -> bool| {
        report
            .targets
            .iter()
            .filter_map(|target| target.outcome.as_ref())
            .filter(|one| is(one.status))
            .count()
    };
    let counts = [
        (ended(Status::is_success), "succeeded"),
        (ended(|status| status == Status::Cancelled), "cancelled"),
        (ended(|status| status == Status::Skipped), "skipped"),
        (
            ended(|status| !status.is_success() && !matches!(status, Status::Cancelled | Status::Skipped)),
            "failed",
        ),
        (count(JournalProgress::Started), "started without an outcome"),
        (count(JournalProgress::Lost), "lost"),
        (count(JournalProgress::NeverStarted), "never started"),
    ];
    let counts: Vec<_> =
        counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let counts = if counts.is_empty() { "no targets".to_owned() } else { counts.join(", ") };
    text.push_str(&format!("\n{counts}\n"));
    text
}

fn or<'a>(text: &'a str, unknown: &'static str) -> Cow<'a, str> {
    if text.is_empty() { unknown.into() } else { terminal::line(text) }
}

/// A target's style, result, effect and time.
fn row(target: &JournalTarget) -> (Style, [String; 3]) {
    let effect = match target.progress {
        JournalProgress::NeverStarted => "none",
        _ => "unknown",
    };
    match &target.outcome {
        Some(outcome) => {
            let style = if outcome.status.is_success() { Style::new() } else { ERROR };
            (style, [status(outcome), outcome.effect.as_str().to_owned(), time(outcome)])
        }
        None => {
            let style = if effect == "none" { terminal::DIM } else { WARNING };
            (style, [target.progress.to_string(), effect.to_owned(), NOTHING.to_owned()])
        }
    }
}

fn csv_rows(report: &JournalReport) -> String {
    let columns =
        ["host", "vm", "uuid", "progress", "status", "effect", "duration_ms", "error_kind", "error_message"];
    let mut text = csv::row(columns.iter().map(|&name| name.into()));
    for target in &report.targets {
        let outcome = target.outcome.as_deref();
        let error = outcome.and_then(|outcome| outcome.error.as_ref());
        text.push_str(&csv::row(
            [
                target.host.as_str().into(),
                target.vm.as_deref().unwrap_or_default().into(),
                target.uuid.map(|uuid| uuid.to_string()).unwrap_or_default().into(),
                target.progress.to_string().into(),
                outcome.map_or("", |outcome| outcome.status.as_str()).into(),
                outcome.map_or("", |outcome| outcome.effect.as_str()).into(),
                outcome.map(|outcome| outcome.duration_ms.to_string()).unwrap_or_default().into(),
                error.map_or("", |error| error.kind.as_str()).into(),
                error.map_or("", |error| error.message.as_str()).into(),
            ]
            .into_iter(),
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture::outcome;

    fn report() -> JournalReport {
        let target = |vm: &str, progress, outcome| JournalTarget {
            host: "h1".parse().unwrap(),
            vm: Some(vm.to_owned()),
            uuid: None,
            progress,
            outcome,
        };
        JournalReport {
            path: PathBuf::from("j"),
            op: "exec".to_owned(),
            version: "1.0.0".to_owned(),
            begun_at: "2026-01-01T00:00:00.000Z".to_owned(),
            resumed_at: vec!["2026-01-02T00:00:00.000Z".to_owned()],
            torn_bytes: 7,
            has_lost: false,
            unresolved: vec!["h2".to_owned()],
            targets: vec![
                target("a", JournalProgress::Finished, Some(Box::new(outcome(Some("a"))))),
                target("b\x1b[2J", JournalProgress::Started, None),
                target("c", JournalProgress::NeverStarted, None),
            ],
        }
    }

    #[test]
    fn a_journal_is_told_to_people() {
        let text = anstream::adapter::strip_str(&text(&report())).to_string();
        let words: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0].join(" "), "exec begun 2026-01-01T00:00:00.000Z by atp 1.0.0");
        assert_eq!(words[1].join(" "), "resumed 2026-01-02T00:00:00.000Z");
        assert_eq!(words[2].join(" "), "not resolved: h2");
        assert_eq!(words[4], ["HOST", "VM", "RESULT", "EFFECT", "TIME"]);
        assert_eq!(words[6], ["h1", "b\\x1b[2J", "started", "unknown", "-"]);
        assert_eq!(words[7], ["h1", "c", "never-started", "none", "-"]);
        assert_eq!(words[9].join(" "), "1 succeeded, 1 started without an outcome, 1 never started");
        assert!(warnings(&report())[0].contains("last 7 bytes"));
        assert_eq!(csv_rows(&report()).lines().count(), 4);
    }
}
