//! The JUnit file of a run, written at its end.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use atp_executor::{Junit, Outcome};
use atp_protocol::files::sync_written;

use super::created;

/// A JUnit file in progress.
#[derive(Debug)]
pub(crate) struct JunitFile {
    path: PathBuf,
    file: File,
    cases: Junit,
}

impl JunitFile {
    /// Creates or empties the file.
    ///
    /// # Errors
    /// It cannot be written. It is then removed: an empty file is no report.
    pub(crate) fn create(path: &Path, suite: &str) -> io::Result<Self> {
        let file = created(path, Junit::DECLARATION)?;
        Ok(JunitFile { path: path.to_owned(), file, cases: Junit::new(suite) })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Begins another suite, so long after the first.
    pub(crate) fn begin(&mut self, suite: &str, after: Duration) {
        self.cases.begin(suite, after);
    }

    /// Adds one outcome.
    pub(crate) fn take(&mut self, outcome: &Outcome) {
        self.cases.take(outcome);
    }

    /// Writes the file, and waits until it is on disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn finish(mut self, took: Duration) -> io::Result<()> {
        self.file.write_all(self.cases.text(took).as_bytes())?;
        sync_written(&self.file, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use atp_executor::{OutcomeError, Status};
    use atp_transport::ErrorKind;

    use super::*;
    use crate::render::fixture::{self, ran};
    use crate::terminal;
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
        let mut junit = JunitFile::create(file.path(), "exec").unwrap();
        outcomes.iter().for_each(|outcome| junit.take(outcome));
        junit.finish(Duration::from_millis(1500)).unwrap();
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
