//! Failures, for people: targets with the same failure together, and each hint once.

use atp_executor::{Outcome, OutcomeError, Status};
use atp_transport::Effect;

use crate::render::{group_by, groups, name_of, names_of};
use crate::terminal::{self, ERROR, HINT, WARNING, styled};

/// How many different reports of one kind of failure are printed.
const REPORTS: usize = 20;

/// The report on the outcomes with an error that is not shown elsewhere.
pub(crate) fn failures(outcomes: &[Outcome]) -> String {
    report_on(outcomes.iter())
}

/// The same after a dry run, whose table shows the errors of its targets.
pub(crate) fn of_dry_run(outcomes: &[Outcome]) -> String {
    report_on(outcomes.iter().filter(|outcome| outcome.status != Status::Skipped))
}

fn report_on<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> String {
    let unreported = outcomes.filter(|outcome| outcome.error.is_some() && !groups::is_shown(outcome));
    let kinds = group_by(unreported, |outcome| {
        let error = outcome.error.as_ref();
        (
            outcome.from_earlier_run,
            outcome.status,
            outcome.effect,
            error.map(|error| (&error.kind, &error.hint)),
        )
    });
    kinds.iter().map(|members| failure(members)).collect()
}

/// One kind of failure, with its targets.
fn failure(members: &[&Outcome]) -> String {
    let Some((outcome, error)) = members.first().and_then(|first| Some((first, first.error.as_ref()?)))
    else {
        return String::new();
    };
    let status = outcome.status;
    let label = match status {
        Status::Skipped | Status::Cancelled => styled(WARNING, "warning"),
        _ => styled(ERROR, "error"),
    };
    let reports = group_by(members.iter().copied(), report);
    let earlier = if outcome.from_earlier_run { " in an earlier run" } else { "" };
    let (word, kind) = (format!("{}{earlier}", word(status)), terminal::line(error.kind.as_str()));
    let mut text = match members {
        [only] => format!("{label}: {} {word} ({kind})", name_of(only)),
        several => format!("{label}: {} targets {word} ({kind})", several.len()),
    };
    if reports.len() > 1 {
        text.push_str(":\n");
        for members in reports.iter().take(REPORTS) {
            let report: Vec<_> = members.first().map(|first| report(first)).unwrap_or_default();
            text.push_str(&format!("  {}: {}\n", names_of(members), terminal::line(&report.join(": "))));
        }
        let more: usize = reports.iter().skip(REPORTS).map(Vec::len).sum();
        if more > 0 {
            text.push_str(&format!("  … and {more} more; `-o json` has them all\n"));
        }
    } else {
        if members.len() > 1 {
            text.push_str(&format!(": {}", names_of(members)));
        }
        text.push('\n');
        text.push_str(&indented(&report(outcome)));
    }
    if outcome.effect == Effect::Unknown {
        text.push_str("  it was sent, and may have taken effect\n");
    }
    if outcome.from_earlier_run {
        text.push_str("  it was not repeated\n");
    }
    match &error.hint {
        Some(hint) => text.push_str(&format!("\n{}: {}\n\n", styled(HINT, "hint"), terminal::block(hint))),
        None => text.push('\n'),
    }
    text
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Timeout => "timed out",
        other => other.as_str(),
    }
}

/// Message and causes without the names of host and VM: these stand beside them, and targets with the same failure
/// can be grouped.
fn report(outcome: &Outcome) -> Vec<String> {
    let Some(OutcomeError { message, causes, .. }) = &outcome.error else { return Vec::new() };
    let mut message = message.clone();
    if let Some(host) = &outcome.host {
        let named = format!("host {host}: ");
        message = message.strip_prefix(&named).unwrap_or(&message).to_owned();
    }
    if let Some(vm) = &outcome.vm {
        message = message.replace(&format!("VM {vm:?}"), "the VM");
        message = message.replace(&format!("no VM is named {vm:?}"), "no VM has this name");
    }
    let mut report = [vec![message], causes.clone()].concat();
    // A message that is only the name of a libvirt function is joined with its error.
    if report.len() > 1 && !report[0].contains(char::is_whitespace) {
        let cause = report.remove(1);
        report[0] = format!("{}: {cause}", report[0]);
    }
    report
}

fn indented(report: &[String]) -> String {
    let line = |(depth, line): (usize, &String)| {
        let because = if depth > 0 { "caused by: " } else { "" };
        format!("  {because}{}\n", terminal::block(line).replace('\n', "\n    "))
    };
    report.iter().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use atp_transport::ErrorKind;

    use super::*;
    use crate::render::fixture;

    fn failed(host: &str, vm: &str, kind: ErrorKind, message: &str) -> Outcome {
        Outcome {
            host: Some(host.parse().unwrap()),
            status: Status::Failed,
            effect: Effect::None,
            error: Some(OutcomeError::new(kind, message).with_hint(format!("mend {kind}"))),
            ..fixture::outcome(Some(vm))
        }
    }

    fn plain(outcomes: &[Outcome]) -> String {
        anstream::adapter::strip_str(&failures(outcomes)).to_string()
    }

    #[test]
    fn the_same_failure_is_reported_once_with_all_its_targets() {
        let outcomes: Vec<_> = (0..100)
            .map(|n| {
                let vm = format!("vm{n}");
                failed(
                    "h1",
                    &vm,
                    ErrorKind::VmNotRunning,
                    &format!("host h1: VM {vm:?} is not running: shut off"),
                )
            })
            .collect();
        let text = plain(&outcomes);
        assert!(text.starts_with("error: 100 targets failed (vm-not-running): h1/vm[0-99]\n"), "{text}");
        assert_eq!(text.matches("the VM is not running: shut off").count(), 1, "{text}");
        assert_eq!(text.matches("hint: mend vm-not-running").count(), 1, "{text}");
    }

    #[test]
    fn different_reports_of_one_kind_share_the_hint() {
        let text = plain(&[
            failed("h1", "a", ErrorKind::CallTimeout, "host h1: no answer after 1s"),
            failed("h2", "b", ErrorKind::CallTimeout, "host h2: no answer after 2s"),
        ]);
        assert_eq!(
            text,
            "error: 2 targets failed (call-timeout):\n  h1/a: no answer after 1s\n  h2/b: no answer after 2s\n\n\
             hint: mend call-timeout\n\n"
        );
    }

    #[test]
    fn five_hundred_different_reports_do_not_fill_the_screen() {
        let outcomes: Vec<_> = (0..500)
            .map(|n| {
                failed("h1", &format!("vm{n}"), ErrorKind::CallTimeout, &format!("no answer after {n}s"))
            })
            .collect();
        let text = plain(&outcomes);
        assert!(
            text.contains("\n  h1/vm19: no answer after 19s\n  … and 480 more; `-o json` has them all\n"),
            "{text}"
        );
        assert!(text.lines().count() < 30, "{text}");
    }

    #[test]
    fn a_bare_function_name_is_joined_with_its_error() {
        let mut outcome = failed("h1", "a", ErrorKind::NotSupported, "host h1: virDomainReset");
        outcome.error.as_mut().unwrap().causes = vec!["no such function".to_owned(), "deeper".to_owned()];
        assert!(
            plain(&[outcome]).contains("\n  virDomainReset: no such function\n  caused by: deeper\n"),
            "the causes are not joined"
        );
    }

    #[test]
    fn an_unknown_effect_is_reported() {
        let outcome =
            Outcome { effect: Effect::Unknown, ..failed("h1", "a", ErrorKind::CallTimeout, "no answer") };
        assert!(plain(&[outcome]).contains("may have taken effect"));
    }

    #[test]
    fn failures_of_an_earlier_run_stand_apart_from_new_ones() {
        let new = failed("h1", "a", ErrorKind::ExitNonzero, "ended with exit code 7");
        let old = Outcome {
            from_earlier_run: true,
            ..failed("h1", "b", ErrorKind::ExitNonzero, "ended with exit code 7")
        };
        let text = plain(&[new, old]);
        assert!(text.contains("error: h1/a failed (exit-nonzero)\n"), "{text}");
        assert!(text.contains("error: h1/b failed in an earlier run (exit-nonzero)\n"), "{text}");
        assert_eq!(text.matches("it was not repeated").count(), 1, "{text}");
    }

    #[test]
    fn messages_cannot_control_the_terminal() {
        let text = plain(&[failed("h1", "a\x1b[31m", ErrorKind::Unknown, "bad \x1b[2J")]);
        assert!(!text.contains('\x1b'), "{text:?}");
    }
}
