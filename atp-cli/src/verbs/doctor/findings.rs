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

/// The hints, each once with all its targets.
pub(crate) fn advice(outcomes: &[Outcome]) -> String {
    let mut advice: Vec<(&Finding, Vec<&Outcome>)> = Vec::new();
    for (outcome, finding) in all(outcomes).filter(|(_, finding)| finding.hint.is_some()) {
        let same = |(known, _): &&mut (&Finding, Vec<&Outcome>)| {
            (&known.check, known.verdict, &known.hint) == (&finding.check, finding.verdict, &finding.hint)
        };
        match advice.iter_mut().find(same) {
            Some((_, whose)) => whose.push(outcome),
            None => advice.push((finding, vec![outcome])),
        }
    }
    let mut text = String::new();
    for (finding, outcomes) in advice {
        let (style, word) = match finding.verdict {
            Verdict::Problem => (ERROR, "error"),
            _ => (WARNING, "warning"),
        };
        let names = match outcomes[..] {
            [only] => name(only),
            _ => names_of(&outcomes),
        };
        let label = styled(style, word);
        // The messages are in the table.
        text.push_str(&format!("{label}: {names} ({})\n", finding.check));
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
    fn findings_with_the_same_hint_are_grouped_and_their_messages_stand_in_the_table_only() {
        let found = |vm: &str, message: &str| {
            let finding = Finding::problem("auth", message, "check the password");
            let data = Some(Data::Diagnosis(Diagnosis::from(vec![finding])));
            Outcome { data, ..fixture::outcome(Some(vm)) }
        };
        let text = |outcomes: &[Outcome]| anstream::adapter::strip_str(&advice(outcomes)).to_string();
        let different = [found("b", "no such file"), found("c", "no such variable")];
        assert_eq!(text(&different), "error: h1/b, h1/c (auth)\nhint: check the password\n\n");
        let table = anstream::adapter::strip_str(&findings(&different)).to_string();
        assert!(table.contains("no such file") && table.contains("no such variable"), "{table}");
    }
}
