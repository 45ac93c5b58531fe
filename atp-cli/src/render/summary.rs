//! The last line on stderr: the number of targets by status, and the time.

use std::time::Duration;

use atp_executor::{RunStatistics, Status, millis};
use serde_json::json;

use crate::console::Console;
use crate::terminal::{DIM, ERROR, GOOD, WARNING, styled};

/// Prints the line, unless the console is quiet. `done_before` targets were done by an earlier run of the same journal.
pub(crate) fn print(
    statistics: &RunStatistics,
    done_before: usize,
    console: &Console,
    dry_run: bool,
    took: Duration,
) {
    if console.is_quiet() {
        return;
    }
    console.record(json!({
        "level": "INFO", "message": "summary", "dry_run": dry_run, "counts": statistics.counts,
        "duration_ms": millis(took),
    }));
    console.styled(&line(statistics, done_before, dry_run, took));
}

fn line(statistics: &RunStatistics, done_before: usize, dry_run: bool, took: Duration) -> String {
    let total = statistics.total();
    if total == 0 {
        return match done_before {
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
        .map(|&status| (status, statistics.count(status)))
        .filter(|&(_, count)| count > 0)
        .map(|(status, count)| styled(style(status), format!("{count} {}", word(status))))
        .collect();
    let targets = if total == 1 { "target" } else { "targets" };
    let time = styled(DIM, format!("in {:.2} s", took.as_secs_f64()));
    let dry = if dry_run { "dry run: " } else { "" };
    let earlier = match statistics.from_earlier_run {
        0 => String::new(),
        all if all == total => "; of an earlier run, none was repeated".to_owned(),
        some => format!("; {some} of an earlier run, not repeated"),
    };
    format!("{dry}{total} {targets}: {} {time}{earlier}\n", counts.join(", "))
}

#[cfg(test)]
mod tests {
    use atp_executor::Outcome;

    use super::*;
    use crate::render::fixture;

    fn statistics(statuses: &[Status]) -> RunStatistics {
        let outcome = |&status: &Status| Outcome { status, ..fixture::outcome(None) };
        statuses.iter().map(outcome).collect::<Vec<_>>().iter().collect()
    }

    #[test]
    fn counts_have_a_fixed_order() {
        let statistics = statistics(&[Status::Unreachable, Status::Ok, Status::Ok, Status::Failed]);
        let line = line(&statistics, 0, false, Duration::from_millis(1234));
        let line = anstream::adapter::strip_str(&line).to_string();
        assert_eq!(line, "4 targets: 2 ok, 1 failed, 1 unreachable in 1.23 s\n");
    }

    #[test]
    fn failures_of_an_earlier_run_are_no_new_ones() {
        let old = Outcome { from_earlier_run: true, status: Status::Failed, ..fixture::outcome(None) };
        let line = |outcomes: &[Outcome]| {
            let line = line(&outcomes.iter().collect(), 0, false, Duration::ZERO);
            anstream::adapter::strip_str(&line).to_string()
        };
        let new = fixture::outcome(None);
        assert_eq!(
            line(&[old.clone(), new]),
            "2 targets: 1 ok, 1 failed in 0.00 s; 1 of an earlier run, not repeated\n"
        );
        assert_eq!(line(&[old]), "1 target: 1 failed in 0.00 s; of an earlier run, none was repeated\n");
    }

    #[test]
    fn a_run_with_nothing_left_says_so() {
        let line = |done| line(&RunStatistics::default(), done, false, Duration::ZERO);
        assert_eq!(line(4), "nothing left to do: 4 of 4 targets were done before\n");
        assert_eq!(line(1), "nothing left to do: the only target was done before\n");
    }

    #[test]
    fn a_dry_run_has_things_to_do() {
        let line = line(&statistics(&[Status::Skipped]), 0, true, Duration::ZERO);
        assert!(anstream::adapter::strip_str(&line).to_string().starts_with("dry run: 1 target: 1 to do"));
    }
}
