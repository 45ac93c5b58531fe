//! The last line on stderr: the number of targets by status, and the time.

use std::time::Duration;

use atp_executor::Status;
use serde_json::{Map, Value, json};

use crate::console::Console;
use crate::terminal::{DIM, ERROR, GOOD, WARNING, styled};

/// Outcomes by status.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    counts: Vec<(Status, usize)>,
    /// Targets done by an earlier run of the same journal.
    done_before: usize,
}

impl Summary {
    /// Starts without outcomes; `done_before` targets were done by an earlier run.
    pub(crate) fn after(done_before: usize) -> Self {
        Summary { done_before, ..Summary::default() }
    }

    /// Counts one outcome.
    pub(crate) fn count(&mut self, status: Status) {
        match self.counts.iter_mut().find(|(counted, _)| *counted == status) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((status, 1)),
        }
    }

    fn of(&self, status: Status) -> usize {
        self.counts.iter().find(|(counted, _)| *counted == status).map_or(0, |(_, count)| *count)
    }

    /// Prints the line, unless the console is quiet.
    pub(crate) fn print(&self, console: &Console, dry_run: bool, took: Duration) {
        if console.is_quiet() {
            return;
        }
        let statuses = Status::ALL.iter().copied();
        let counts: Map<String, Value> =
            statuses.map(|s| (s.as_str().to_owned(), json!(self.of(s)))).collect();
        console.record(json!({
            "level": "INFO", "message": "summary", "dry_run": dry_run, "counts": counts,
            "duration_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }));
        console.styled(&self.line(dry_run, took));
    }

    fn line(&self, dry_run: bool, took: Duration) -> String {
        let total: usize = self.counts.iter().map(|(_, count)| count).sum();
        if total == 0 {
            return match self.done_before {
                0 => "nothing to do\n".to_owned(),
                1 => "nothing left to do: the only target was done before\n".to_owned(),
                done => format!("nothing left to do: {done} of {done} targets were done before\n"),
            };
        }
        let style = |status| match status {
            Status::Ok | Status::Unchanged => GOOD,
            Status::Skipped | Status::Cancelled => WARNING,
            Status::Failed | Status::Timeout | Status::Unreachable => ERROR,
        };
        let word = |status: Status| match status {
            Status::Skipped if dry_run => "to do",
            status => status.as_str(),
        };
        let counts: Vec<_> = Status::ALL
            .iter()
            .copied()
            .filter(|&status| self.of(status) > 0)
            .map(|status| styled(style(status), format!("{} {}", self.of(status), word(status))))
            .collect();
        let targets = if total == 1 { "target" } else { "targets" };
        let time = styled(DIM, format!("in {:.2} s", took.as_secs_f64()));
        let dry = if dry_run { "dry run: " } else { "" };
        format!("{dry}{total} {targets}: {} {time}\n", counts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_a_fixed_order() {
        let mut summary = Summary::default();
        for status in [Status::Unreachable, Status::Ok, Status::Ok, Status::Failed] {
            summary.count(status);
        }
        let line = summary.line(false, Duration::from_millis(1234));
        let line = anstream::adapter::strip_str(&line).to_string();
        assert_eq!(line, "4 targets: 2 ok, 1 failed, 1 unreachable in 1.23 s\n");
    }

    #[test]
    fn a_run_with_nothing_left_says_so() {
        let line = |done| Summary::after(done).line(false, Duration::ZERO);
        assert_eq!(line(4), "nothing left to do: 4 of 4 targets were done before\n");
        assert_eq!(line(1), "nothing left to do: the only target was done before\n");
    }

    #[test]
    fn a_dry_run_has_things_to_do() {
        let mut summary = Summary::default();
        summary.count(Status::Skipped);
        let line = summary.line(true, Duration::ZERO);
        assert!(anstream::adapter::strip_str(&line).to_string().starts_with("dry run: 1 target: 1 to do"));
    }
}
