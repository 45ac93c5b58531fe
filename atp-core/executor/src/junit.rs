//! JUnit XML, as CI systems read it: a test case for each target, by host and VM; of a scenario one for each of its steps.
//!
//! What failed is a `failure`; what timed out, was unreachable or was cancelled is an `error`; what never started is `skipped`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use atp_api::{Data, EvidenceReport, Outcome, OutcomeError, ScenarioReport, Status, StepReport};
use quick_xml::escape::escape;

use crate::text;

/// The test cases of a run.
#[derive(Debug)]
pub struct Junit {
    suites: Vec<Suite>,
}

/// The test cases of what is run together.
#[derive(Debug)]
struct Suite {
    /// That of the operation, or of the scenario.
    name: String,
    /// When it was begun, since the first one.
    after: Duration,
    cases: Vec<Case>,
}

/// The test cases of a target.
#[derive(Debug)]
struct Case {
    /// The outcome without its large parts, to sort the cases by.
    of: Outcome,
    counts: Counts,
    text: String,
}

/// The numbers of test cases.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    tests: usize,
    failures: usize,
    errors: usize,
    skipped: usize,
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.tests += other.tests;
        self.failures += other.failures;
        self.errors += other.errors;
        self.skipped += other.skipped;
    }

    fn attributes(self, took: Duration) -> String {
        let Counts { tests, failures, errors, skipped } = self;
        let time = took.as_secs_f64();
        format!(
            "tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" time=\"{time:.3}\""
        )
    }
}

impl Junit {
    /// The first line of the document.
    pub const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

    /// A suite with the name of an operation, without cases.
    pub fn new(op: &str) -> Self {
        let first = Suite { name: op.to_owned(), after: Duration::ZERO, cases: Vec::new() };
        Junit { suites: vec![first] }
    }

    /// Begins another suite, so long after the first.
    pub fn begin(&mut self, name: &str, after: Duration) {
        self.suites.push(Suite { name: name.to_owned(), after, cases: Vec::new() });
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
        let (mut counts, mut text) = (Counts::default(), String::new());
        match &outcome.data {
            Some(Data::Scenario(report)) => scenario(outcome, report, &mut counts, &mut text),
            _ => whole(outcome, None, &mut counts, &mut text),
        }
        if let Some(suite) = self.suites.last_mut() {
            suite.cases.push(Case { of, counts, text });
        }
    }

    /// The document, without its [declaration](Self::DECLARATION).
    pub fn text(self, took: Duration) -> String {
        let ends: Vec<_> = self.suites.iter().skip(1).map(|suite| suite.after).chain([took]).collect();
        let (mut all, mut suites) = (Counts::default(), String::new());
        for (mut suite, end) in self.suites.into_iter().zip(ends) {
            suite.cases.sort_by(|one, other| one.of.report_order(&other.of));
            let mut counts = Counts::default();
            suite.cases.iter().for_each(|case| counts.add(case.counts));
            all.add(counts);
            let counts = counts.attributes(end.saturating_sub(suite.after));
            let _ = writeln!(suites, "<testsuite name=\"{}\" {counts}>", attribute(&suite.name));
            suite.cases.iter().for_each(|case| suites.push_str(&case.text));
            suites.push_str("</testsuite>\n");
        }
        format!("<testsuites name=\"atp\" {}>\n{suites}</testsuites>\n", all.attributes(took))
    }
}

/// The case of a target as a whole.
fn whole(outcome: &Outcome, evidence: Option<&EvidenceReport>, counts: &mut Counts, text: &mut String) {
    let host = outcome.host.as_ref().map_or("-", |host| host.as_str());
    let name = outcome.vm.as_deref().unwrap_or(host);
    let mut content = String::new();
    if let Some(host) = &outcome.found_on {
        let host = attribute(host.as_str());
        let _ = writeln!(content, "<properties><property name=\"found_on\" value=\"{host}\"/></properties>");
    }
    result(outcome.status, outcome.error.as_ref(), counts, &mut content);
    attachments(evidence, &mut content);
    streams(outcome.data.as_ref(), &mut content);
    case(host, name, outcome.duration_ms, &content, text);
}

/// A case for each step of a scenario, and one for the target if no step says why it failed.
fn scenario(outcome: &Outcome, report: &ScenarioReport, counts: &mut Counts, text: &mut String) {
    let host = outcome.host.as_ref().map_or("-", |host| host.as_str());
    let class = match &outcome.vm {
        Some(vm) => format!("{host}/{vm}"),
        None => host.to_owned(),
    };
    let mut evidence = report.evidence.as_deref();
    let mut has_failed = false;
    for (part, steps, all) in
        [("step", &report.steps, report.steps_total), ("teardown", &report.teardown, report.teardown_total)]
    {
        for (number, step) in (1..).zip(steps) {
            let is_failure = is_failure(step);
            let mut content = String::new();
            result(step.status, step.error.as_ref(), counts, &mut content);
            // It was collected as this step has failed.
            attachments(if is_failure { evidence.take() } else { None }, &mut content);
            streams(step.data.as_ref(), &mut content);
            case(&class, &format!("{part} {number}: {}", step.name), step.duration_ms, &content, text);
            has_failed |= is_failure;
        }
        for number in steps.len() + 1..=all {
            counts.tests += 1;
            counts.skipped += 1;
            let content = "<skipped message=\"it was not reached\"/>\n";
            case(&class, &format!("{part} {number}"), 0, content, text);
        }
    }
    let is_away = report.isolated.as_ref().is_some_and(|isolation| !isolation.restored);
    if !outcome.status.is_success() && (!has_failed || is_away) || evidence.is_some() {
        whole(outcome, evidence, counts, text);
    }
}

/// Whether a step has failed; one whose condition did not hold has not.
fn is_failure(step: &StepReport) -> bool {
    !step.status.is_success() && step.status != Status::Skipped
}

fn case(class: &str, name: &str, duration_ms: u64, content: &str, text: &mut String) {
    let _ = writeln!(
        text,
        "<testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\">\n{content}</testcase>",
        attribute(class),
        attribute(name),
        Duration::from_millis(duration_ms).as_secs_f64()
    );
}

/// Counts a case, and adds what it is if it is no success.
fn result(status: Status, error: Option<&OutcomeError>, counts: &mut Counts, text: &mut String) {
    counts.tests += 1;
    let element = match status {
        Status::Ok | Status::Unchanged => return,
        Status::Failed => {
            counts.failures += 1;
            "failure"
        }
        Status::Timeout | Status::Unreachable | Status::Cancelled => {
            counts.errors += 1;
            "error"
        }
        Status::Skipped => {
            counts.skipped += 1;
            "skipped"
        }
    };
    let kind = error.map_or(status.as_str(), |error| error.kind.as_str());
    let message = error.map_or("", |error| &error.message);
    let report = error.map(report).unwrap_or_default();
    let _ = writeln!(
        text,
        "<{element} type=\"{}\" message=\"{}\">{}</{element}>",
        attribute(kind),
        attribute(message),
        content(&report)
    );
}

/// The files of evidence, in the form of attachments that Jenkins and GitLab know.
fn attachments(evidence: Option<&EvidenceReport>, text: &mut String) {
    let Some(evidence) = evidence else { return };
    let files = evidence.files.iter().map(|file| evidence.folder.join(file));
    // A line feed would end the marker.
    let link = |file: PathBuf| format!("[[ATTACHMENT|{}]]\n", attribute(&file.display().to_string()));
    let links: String = files.map(link).collect();
    let _ = writeln!(text, "<system-out>{links}</system-out>");
}

/// What a process wrote.
fn streams(data: Option<&Data>, text: &mut String) {
    let Some(Data::Exec(ran)) = data else { return };
    for (element, stream) in [("system-out", &ran.stdout), ("system-err", &ran.stderr)] {
        if !stream.bytes.is_empty() {
            let _ = writeln!(text, "<{element}>{}</{element}>", content(&text::stream_block(stream)));
        }
    }
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

/// Control characters are escaped already; XML 1.0 does not allow two more characters. And what guests and daemons say is no
/// marker of an attachment, as CI systems would publish the file that it names.
fn characters(text: &str) -> String {
    let text = text.replace('\u{fffe}', "\\u{fffe}").replace('\u{ffff}', "\\u{ffff}");
    text.replace("[[ATTACHMENT|", "[\\x5bATTACHMENT|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use atp_api::{Effect, ExecReport, Stream};

    #[test]
    fn only_evidence_is_an_attachment() {
        let marker = "[[[ATTACHMENT|/etc/shadow]]";
        let stdout = Stream { bytes: marker.into(), ..Stream::default() };
        let ran = ExecReport { exit_code: Some(1), signal: None, stdout, stderr: Stream::default() };
        let step = StepReport {
            name: marker.to_owned(),
            op: "exec".into(),
            status: Status::Failed,
            effect: Effect::Done,
            attempts: 1,
            duration_ms: 1,
            data: Some(Data::Exec(ran)),
            error: Some(OutcomeError::new(atp_api::ErrorKind::Unknown, marker)),
        };
        let evidence = EvidenceReport {
            folder: "out".into(),
            files: vec!["a\n[[ATTACHMENT|b".to_owned(), "console.log".to_owned()],
            ..EvidenceReport::default()
        };
        let (mut counts, mut text) = (Counts::default(), String::new());
        result(step.status, step.error.as_ref(), &mut counts, &mut text);
        streams(step.data.as_ref(), &mut text);
        case("h", &step.name, 1, "", &mut text);
        assert!(text.contains("ATTACHMENT|/etc/shadow") && !text.contains("[[ATTACHMENT|"), "{text}");
        attachments(Some(&evidence), &mut text);
        let found: Vec<_> = text.lines().filter_map(|line| line.split("[[ATTACHMENT|").nth(1)).collect();
        assert_eq!(found, ["out/a\\n[\\x5bATTACHMENT|b]]", "out/console.log]]"]);
    }
}
