//! JUnit XML, as CI systems read it: a test case for each target, by host and VM, written at the end.
//!
//! A target that failed is a `failure`; one that timed out, was unreachable or was cancelled is an `error`; one that
//! never started is `skipped`.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use atp_executor::{Data, Outcome, OutcomeError, RunStatistics, Status, StatusCounts};
use atp_protocol::files::sync_written;
use quick_xml::escape::escape;

use crate::terminal;

/// A JUnit file in progress.
#[derive(Debug)]
pub(crate) struct Junit {
    path: PathBuf,
    file: File,
    /// The name of the suite: that of the operation.
    suite: &'static str,
    cases: Vec<Case>,
}

/// The test case of a target.
#[derive(Debug)]
struct Case {
    /// The outcome without its large parts, to sort the cases by.
    of: Outcome,
    text: String,
}

impl Junit {
    /// Creates or empties the file.
    ///
    /// # Errors
    /// It cannot be written. It is then removed: an empty file is no report.
    pub(crate) fn create(path: &Path, suite: &'static str) -> io::Result<Self> {
        let mut file = File::create(path)?;
        // This detects a full disk before anything is done.
        if let Err(error) = file.write_all(DECLARATION.as_bytes()) {
            if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
                let _ = fs::remove_file(path);
            }
            return Err(error);
        }
        Ok(Junit { path: path.to_owned(), file, suite, cases: Vec::new() })
    }

    /// Checks that the file can be written, and keeps its content.
    ///
    /// # Errors
    /// It cannot be opened for writing.
    pub(crate) fn check(path: &Path) -> io::Result<()> {
        let is_new = !path.exists();
        File::options().append(true).create(true).open(path)?;
        if is_new { fs::remove_file(path) } else { Ok(()) }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds one outcome.
    pub(crate) fn take(&mut self, outcome: &Outcome) {
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
        self.cases.push(Case { of, text: case(outcome) });
    }

    /// Writes the file, with the numbers of the outcomes that were added, and waits until it is on disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn finish(mut self, statistics: &RunStatistics, took: Duration) -> io::Result<()> {
        self.cases.sort_by(|one, other| one.of.report_order(&other.of));
        let StatusCounts { failed: failures, timeout, unreachable, cancelled, skipped, .. } =
            statistics.counts;
        let (tests, errors) = (statistics.total(), timeout + unreachable + cancelled);
        let counts = format!(
            "tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" time=\"{:.3}\"",
            took.as_secs_f64()
        );
        let mut text =
            format!("<testsuites name=\"atp\" {counts}>\n<testsuite name=\"{}\" {counts}>\n", self.suite);
        self.cases.iter().for_each(|case| text.push_str(&case.text));
        text.push_str("</testsuite>\n</testsuites>\n");
        self.file.write_all(text.as_bytes())?;
        sync_written(&self.file, &self.path)
    }
}

/// The first line of the file.
const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

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
    if let Some(Data::Exec(ran)) = &outcome.data {
        for (element, stream) in [("system-out", &ran.stdout), ("system-err", &ran.stderr)] {
            if !stream.bytes.is_empty() {
                let _ = writeln!(text, "<{element}>{}</{element}>", content(&terminal::stream_block(stream)));
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
    escape(characters(&terminal::line(text))).into_owned()
}

/// Text of an element.
fn content(text: &str) -> String {
    escape(characters(&terminal::block(text))).into_owned()
}

/// Control characters are escaped already; XML 1.0 does not allow two more characters.
fn characters(text: &str) -> String {
    text.replace('\u{fffe}', "\\u{fffe}").replace('\u{ffff}', "\\u{ffff}")
}

#[cfg(test)]
mod tests {
    use atp_transport::ErrorKind;

    use super::*;
    use crate::render::fixture::{self, ran};
    use proptest::prelude::*;

    fn outcome(vm: &str, status: Status, stdout: &[u8]) -> Outcome {
        Outcome {
            status,
            data: Some(ran(Some(0), None, stdout, b"")),
            error: (!status.is_success())
                .then(|| OutcomeError::new(ErrorKind::Unknown, format!("about {vm}")).with_hint("try")),
            ..fixture::outcome(Some(vm))
        }
    }

    fn written(outcomes: &[Outcome]) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut junit = Junit::create(file.path(), "exec").unwrap();
        outcomes.iter().for_each(|outcome| junit.take(outcome));
        junit.finish(&outcomes.iter().collect(), Duration::from_millis(1500)).unwrap();
        fs::read_to_string(file.path()).unwrap()
    }

    #[test]
    fn each_target_is_a_case_and_the_suite_has_the_counts() {
        let text = written(&[
            outcome("a", Status::Ok, b"6.1\n"),
            outcome("b", Status::Failed, b""),
            outcome("c", Status::Timeout, b""),
            outcome("d", Status::Skipped, b""),
        ]);
        let document = roxmltree::Document::parse(&text).unwrap();
        let suites = document.root_element();
        let suite = suites.first_element_child().unwrap();
        for element in [suites, suite] {
            let counts = ["tests", "failures", "errors", "skipped", "time"]
                .map(|name| element.attribute(name).unwrap());
            assert_eq!(counts, ["4", "1", "1", "1", "1.500"]);
        }
        let cases: Vec<_> = suite
            .children()
            .filter(|node| node.is_element())
            .map(|case| {
                let inner: Vec<_> = case
                    .children()
                    .filter(|node| node.is_element())
                    .map(|node| node.tag_name().name())
                    .collect();
                (case.attribute("classname").unwrap(), case.attribute("name").unwrap(), inner)
            })
            .collect();
        assert_eq!(
            cases,
            [
                ("h1", "a", vec!["system-out"]),
                ("h1", "b", vec!["failure"]),
                ("h1", "c", vec!["error"]),
                ("h1", "d", vec!["skipped"]),
            ]
        );
        let failure = document.descendants().find(|node| node.has_tag_name("failure")).unwrap();
        assert_eq!(failure.attribute("type"), Some("unknown"));
        assert_eq!(failure.text(), Some("about b\nhint: try"));
    }

    #[test]
    fn cases_are_sorted_by_host_and_vm() {
        let of =
            |host: &str, vm| Outcome { host: Some(host.parse().unwrap()), ..outcome(vm, Status::Ok, b"") };
        let text = written(&[of("h2", "a"), of("h1", "b"), of("h1", "a")]);
        let document = roxmltree::Document::parse(&text).unwrap();
        let cases = document.descendants().filter(|node| node.has_tag_name("testcase"));
        let names: Vec<_> = cases
            .map(|case| (case.attribute("classname").unwrap(), case.attribute("name").unwrap()))
            .collect();
        assert_eq!(names, [("h1", "a"), ("h1", "b"), ("h2", "a")]);
    }

    proptest! {
        #[test]
        fn whatever_a_guest_is_called_and_writes_the_file_is_xml(
            vm in ".*",
            odd in prop::sample::select(vec!["", "\u{0}", "\u{fffe}", "\u{ffff}", "]]>", "\u{9b}", "\u{202e}", "&<>\"'"]),
            stdout in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let text = written(&[outcome(&format!("{vm}{odd}"), Status::Failed, &stdout)]);
            prop_assert!(roxmltree::Document::parse(&text).is_ok(), "{}", text);
            prop_assert!(!text.contains(|c: char| terminal::is_unsafe(c) && c != '\n' && c != '\t'));
        }
    }
}
