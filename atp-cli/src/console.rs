//! Messages on stderr: errors, notes, the summary and the log, as text or as JSON lines.

use std::io::Write as _;

use atp_executor::{Outcome, Status};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::json;
use crate::problem::{Failure, Problem};
use crate::terminal::{self, ERROR, HINT, WARNING, styled};

/// The crates whose log lines are shown.
const LOGGED: [&str; 6] = ["atp", "atp_executor", "atp_protocol", "atp_serve", "atp_transport", "libvirt"];

/// The format of the messages on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Text for people
    Text,
    /// One JSON object a line
    Json,
}

/// Writes messages to stderr. Nothing here fails: without stderr there is no other place to report to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Console {
    format: LogFormat,
    quiet: bool,
}

impl Console {
    /// A console; `quiet` leaves only warnings and errors.
    pub(crate) fn new(format: LogFormat, quiet: bool) -> Self {
        Console { format, quiet }
    }

    /// Writes an error.
    pub(crate) fn problem(&self, problem: &Problem) {
        match self.format {
            LogFormat::Json => self.json(serde_json::json!({
                "level": "ERROR", "message": problem.message, "causes": problem.causes, "hint": problem.hint,
            })),
            LogFormat::Text => self.text(&problem_text(problem)),
        }
    }

    /// Writes why a verb ended without a run to report.
    pub(crate) fn failure(&self, failure: &Failure) {
        match failure {
            Failure::Usage(problems) => self.problems(problems),
            Failure::Target(problem) | Failure::NoMatch(problem) => self.problem(problem),
            Failure::Interrupted(_) => self.warning("interrupted; nothing was done"),
            Failure::Bug(error) => self.problem(&error.into()),
        }
    }

    /// Writes all errors, with an empty line between them.
    pub(crate) fn problems(&self, problems: &[Problem]) {
        for (n, problem) in problems.iter().enumerate() {
            if n > 0 {
                self.styled("\n");
            }
            self.problem(problem);
        }
    }

    /// Writes a warning, also if the console is quiet.
    pub(crate) fn warning(&self, message: &str) {
        match self.format {
            LogFormat::Json => self.json(serde_json::json!({"level": "WARN", "message": message})),
            LogFormat::Text => {
                self.text(&format!("{}: {}\n", styled(WARNING, "warning"), terminal::line(message)));
            }
        }
    }

    /// Writes a note, unless the console is quiet.
    pub(crate) fn note(&self, message: &str) {
        if self.quiet {
            return;
        }
        match self.format {
            LogFormat::Json => self.json(serde_json::json!({"level": "INFO", "message": message})),
            LogFormat::Text => self.text(&format!("{}: {}\n", styled(HINT, "note"), terminal::line(message))),
        }
    }

    /// Writes the failure of a target, in the JSON format only; in the text format the report at the end has it.
    pub(crate) fn outcome(&self, outcome: &Outcome) {
        if self.format != LogFormat::Json {
            return;
        }
        let level = match outcome.status {
            Status::Skipped | Status::Cancelled => "WARN",
            _ => "ERROR",
        };
        let error = outcome.error.as_ref();
        self.json(serde_json::json!({
            "level": level, "message": error.map_or(outcome.status.as_str(), |error| error.message.as_str()),
            "host": outcome.host, "vm": outcome.vm, "op": outcome.op, "status": outcome.status, "effect": outcome.effect,
            "kind": error.map(|error| &error.kind), "causes": error.map(|error| &error.causes),
            "hint": error.and_then(|error| error.hint.as_ref()),
        }));
    }

    /// Writes one structured line, in the JSON format only.
    pub(crate) fn record(&self, record: serde_json::Value) {
        if self.format == LogFormat::Json && !self.quiet {
            self.json(record);
        }
    }

    /// Writes text that is already safe and styled, in the text format only.
    pub(crate) fn styled(&self, text: &str) {
        if self.format == LogFormat::Text {
            self.text(text);
        }
    }

    /// Whether messages are JSON lines.
    pub(crate) fn is_json(&self) -> bool {
        self.format == LogFormat::Json
    }

    /// Whether notes are left out.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    fn text(&self, text: &str) {
        let mut stderr = anstream::stderr().lock();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }

    fn json(&self, record: serde_json::Value) {
        let _ = writeln!(std::io::stderr().lock(), "{}", json::compact(&record));
    }
}

/// `error: …`, the causes, an empty line, `hint: …`.
fn problem_text(problem: &Problem) -> String {
    let mut text = format!("{}: {}\n", styled(ERROR, "error"), terminal::block(&problem.message));
    for cause in &problem.causes {
        text.push_str(&format!("  caused by: {}\n", terminal::block(cause).replace('\n', "\n    ")));
    }
    if let Some(hint) = &problem.hint {
        text.push_str(&format!("\n{}: {}\n", styled(HINT, "hint"), terminal::block(hint)));
    }
    text
}

/// Gets what is logged, beside stderr.
pub(crate) type Further = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts the log on stderr: errors only by default, with `-v` information, with `-vv` details for debugging.
pub(crate) fn start_log(format: LogFormat, verbosity: u8, further: Option<Further>) {
    let level = match verbosity {
        0 => LevelFilter::ERROR,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let targets = Targets::new().with_targets(LOGGED.map(|target| (target, level)));
    let colored = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colored);
    let registry = tracing_subscriber::registry().with(further);
    // Fails only if a log was started before, which is then kept.
    let _ = match format {
        LogFormat::Text => registry.with(lines.with_filter(targets)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_filter(targets)).try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_error_causes_hint() {
        let problem = Problem {
            message: "host h1: cannot \x1b[31mconnect".into(),
            causes: vec!["connection refused".into()],
            hint: Some("check the port".into()),
        };
        let text = anstream::adapter::strip_str(&problem_text(&problem)).to_string();
        assert_eq!(
            text,
            "error: host h1: cannot \\x1b[31mconnect\n  caused by: connection refused\n\nhint: check the port\n"
        );
    }
}
