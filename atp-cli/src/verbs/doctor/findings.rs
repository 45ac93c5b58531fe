//! Output of `atp doctor`: a row for each finding, and a hint for each problem.

use anstyle::Style;
use atp_executor::{Data, Finding, Outcome, Status, Verdict};

use crate::render::table::Rows;
use crate::render::{name_of, names_of};
use crate::terminal::{self, DIM, ERROR, HINT, WARNING, styled};

/// The findings, by host and VM.
pub(crate) fn findings(outcomes: &[Outcome]) -> String {
    let mut rows = Rows::new(&["HOST", "VM", "CHECK", "RESULT", "FINDING"]);
    for outcome in outcomes {
        let host = outcome.host.as_ref().map_or("-", |host| host.as_str());
        let vm = outcome.vm.as_deref().unwrap_or("-");
        // Targets without a diagnosis: skipped or cut off.
        if outcome.data.is_none() {
            let message = outcome.error.as_ref().map_or("", |error| error.message.as_str());
            let style = if outcome.status == Status::Skipped { DIM } else { ERROR };
            rows.add(style, &[host, vm, "-", outcome.status.as_str(), message]);
        }
        for finding in found(outcome) {
            let style = match finding.verdict {
                Verdict::Ok => Style::new(),
                Verdict::Note => DIM,
                Verdict::Warning => WARNING,
                Verdict::Problem => ERROR,
            };
            rows.add(style, &[host, vm, &finding.check, finding.verdict.as_str(), &finding.message]);
        }
    }
    rows.finish()
}

/// How many messages with one hint are printed.
const MESSAGES: usize = 20;

/// The hints, each once with all its targets.
pub(crate) fn advice(outcomes: &[Outcome]) -> String {
    let mut advice: Vec<(&Finding, Vec<(&Outcome, &str)>)> = Vec::new();
    for (outcome, finding) in all(outcomes).filter(|(_, finding)| finding.hint.is_some()) {
        let same = |(known, _): &&mut (&Finding, Vec<(&Outcome, &str)>)| {
            (&known.check, known.verdict, &known.hint) == (&finding.check, finding.verdict, &finding.hint)
        };
        match advice.iter_mut().find(same) {
            Some((_, whose)) => whose.push((outcome, &finding.message)),
            None => advice.push((finding, vec![(outcome, &finding.message)])),
        }
    }
    let mut text = String::new();
    for (finding, whose) in advice {
        let (style, word) = match finding.verdict {
            Verdict::Problem => (ERROR, "error"),
            _ => (WARNING, "warning"),
        };
        let outcomes: Vec<&Outcome> = whose.iter().map(|(outcome, _)| *outcome).collect();
        let names = match outcomes[..] {
            [only] => name(only),
            _ => names_of(&outcomes),
        };
        let label = styled(style, word);
        if whose.iter().all(|(_, message)| *message == finding.message) {
            let message = terminal::line(&finding.message);
            text.push_str(&format!("{label}: {names} ({}): {message}\n", finding.check));
        } else {
            text.push_str(&format!("{label}: {names} ({}):\n", finding.check));
            for (outcome, message) in whose.iter().take(MESSAGES) {
                text.push_str(&format!("  {}: {}\n", name(outcome), terminal::line(message)));
            }
            if whose.len() > MESSAGES {
                text.push_str(&format!("  … and {} more; `-o json` has them all\n", whose.len() - MESSAGES));
            }
        }
        let hint = terminal::block(finding.hint.as_deref().unwrap_or_default());
        text.push_str(&format!("{}: {hint}\n\n", styled(HINT, "hint")));
    }
    text
}

fn all(outcomes: &[Outcome]) -> impl Iterator<Item = (&Outcome, &Finding)> {
    outcomes.iter().flat_map(|outcome| found(outcome).iter().map(move |finding| (outcome, finding)))
}

fn found(outcome: &Outcome) -> &[Finding] {
    match &outcome.data {
        Some(Data::Diagnosis(diagnosis)) => &diagnosis.findings,
        _ => &[],
    }
}

fn name(outcome: &Outcome) -> String {
    if outcome.host.is_none() && outcome.vm.is_none() { "here".to_owned() } else { name_of(outcome) }
}

#[cfg(test)]
mod tests {
    use atp_transport::ErrorKind;

    use super::*;
    use crate::render::fixture;
    use atp_executor::{Diagnosis, OutcomeError};

    #[test]
    fn a_host_without_a_diagnosis_has_a_row() {
        let error = Some(OutcomeError::new(ErrorKind::Stopped, "not started: the run was stopped before"));
        let skipped = Outcome { status: Status::Skipped, error, ..fixture::outcome(None) };
        let text = anstream::adapter::strip_str(&findings(&[skipped])).to_string();
        let row: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row[..6], ["h1", "-", "-", "skipped", "not", "started:"]);
    }

    #[test]
    fn findings_with_the_same_hint_are_grouped_with_their_messages() {
        let found = |vm: &str, message: &str| {
            let finding = Finding::problem("auth", message, "check the password");
            let data = Some(Data::Diagnosis(Diagnosis::from(vec![finding])));
            Outcome { data, ..fixture::outcome(Some(vm)) }
        };
        let text = |outcomes: &[Outcome]| anstream::adapter::strip_str(&advice(outcomes)).to_string();
        assert_eq!(
            text(&[found("b", "no such file"), found("c", "no such variable")]),
            "error: h1/b, h1/c (auth):\n  h1/b: no such file\n  h1/c: no such variable\nhint: check the password\n\n"
        );
        let alike = text(&[found("b", "refused"), found("c", "refused")]);
        assert_eq!(alike, "error: h1/b, h1/c (auth): refused\nhint: check the password\n\n");
    }
}
