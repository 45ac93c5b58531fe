//! JUnit XML, as CI systems read it: a test case for each target, by host and VM.
//!
//! A target that failed is a `failure`; one that timed out, was unreachable or was cancelled is an `error`; one that
//! never started is `skipped`.

use std::fmt::Write as _;
use std::time::Duration;

use atp_api::{Data, Outcome, OutcomeError, RunStatistics, ScenarioReport, Status, StatusCounts};
use quick_xml::escape::escape;

use crate::text;

/// The test cases of a run.
#[derive(Debug)]
pub struct Junit {
    /// The name of the suite: that of the operation.
    suite: String,
    cases: Vec<Case>,
    statistics: RunStatistics,
}

/// The test case of a target.
#[derive(Debug)]
struct Case {
    /// The outcome without its large parts, to sort the cases by.
    of: Outcome,
    text: String,
}

impl Junit {
    /// The first line of the document.
    pub const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

    /// A suite with the name of an operation, without cases.
    pub fn new(op: &str) -> Self {
        Junit { suite: op.to_owned(), cases: Vec::new(), statistics: RunStatistics::default() }
    }

    /// Adds one outcome.
    pub fn take(&mut self, outcome: &Outcome) {
        let of = Outcome {
            host: outcome.host.clone(),
            vm: outcome.vm.clone(),
            op: outcome.op.clone(),
            data: None,
            error: None,
            found_on: None,
            from_earlier_run: false,
            ..*outcome
        };
        self.statistics.add(outcome);
        self.cases.push(Case { of, text: case(outcome) });
    }

    /// The document, without its [declaration](Self::DECLARATION).
    pub fn text(mut self, took: Duration) -> String {
        self.cases.sort_by(|one, other| one.of.report_order(&other.of));
        let StatusCounts { failed: failures, timeout, unreachable, cancelled, skipped, .. } =
            self.statistics.counts;
        let (tests, errors) = (self.statistics.total(), timeout + unreachable + cancelled);
        let counts = format!(
            "tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" time=\"{:.3}\"",
            took.as_secs_f64()
        );
        let suite = attribute(&self.suite);
        let mut text = format!("<testsuites name=\"atp\" {counts}>\n<testsuite name=\"{suite}\" {counts}>\n");
        self.cases.iter().for_each(|case| text.push_str(&case.text));
        text.push_str("</testsuite>\n</testsuites>\n");
        text
    }
}

fn case(outcome: &Outcome) -> String {
    let host = outcome.host.as_ref().map_or("-", |host| host.as_str());
    let name = outcome.vm.as_deref().unwrap_or(host);
    let mut text = format!(
        "<testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\">\n",
        attribute(host),
        attribute(name),
        Duration::from_millis(outcome.duration_ms).as_secs_f64()
    );
    if let Some(host) = &outcome.found_on {
        let host = attribute(host.as_str());
        let _ = writeln!(text, "<properties><property name=\"found_on\" value=\"{host}\"/></properties>");
    }
    let element = match outcome.status {
        Status::Ok | Status::Unchanged => None,
        Status::Failed => Some("failure"),
        Status::Timeout | Status::Unreachable | Status::Cancelled => Some("error"),
        Status::Skipped => Some("skipped"),
    };
    if let Some(element) = element {
        let kind = outcome.error.as_ref().map_or(outcome.status.as_str(), |error| error.kind.as_str());
        let message = outcome.error.as_ref().map_or("", |error| &error.message);
        let report = outcome.error.as_ref().map(report).unwrap_or_default();
        let _ = writeln!(
            text,
            "<{element} type=\"{}\" message=\"{}\">{}</{element}>",
            attribute(kind),
            attribute(message),
            content(&report)
        );
    }
    if let Some(Data::Scenario(ScenarioReport { evidence: Some(evidence), .. })) = &outcome.data {
        // The form of an attachment that Jenkins and GitLab know.
        let files = evidence.files.iter().map(|file| evidence.folder.join(file));
        let links: String = files.map(|file| format!("[[ATTACHMENT|{}]]\n", file.display())).collect();
        let _ = writeln!(text, "<system-out>{}</system-out>", content(&links));
    }
    if let Some(Data::Exec(ran)) = &outcome.data {
        for (element, stream) in [("system-out", &ran.stdout), ("system-err", &ran.stderr)] {
            if !stream.bytes.is_empty() {
                let _ = writeln!(text, "<{element}>{}</{element}>", content(&text::stream_block(stream)));
            }
        }
    }
    text.push_str("</testcase>\n");
    text
}

fn report(error: &OutcomeError) -> String {
    let mut text = error.message.clone();
    for cause in &error.causes {
        let _ = write!(text, "\ncaused by: {cause}");
    }
    if let Some(hint) = &error.hint {
        let _ = write!(text, "\nhint: {hint}");
    }
    text
}

/// Text of an attribute: one line, without characters that XML does not allow.
fn attribute(text: &str) -> String {
    escape(characters(&text::line(text))).into_owned()
}

/// Text of an element.
fn content(text: &str) -> String {
    escape(characters(&text::block(text))).into_owned()
}

/// Control characters are escaped already; XML 1.0 does not allow two more characters.
fn characters(text: &str) -> String {
    text.replace('\u{fffe}', "\\u{fffe}").replace('\u{ffff}', "\\u{ffff}")
}
