//! `atp doctor`: a row for each finding, and what to do about those that are not well.

use anstyle::Style;
use atp_executor::{Data, Finding, Outcome, Verdict};

use crate::render::name_of;
use crate::render::table::Rows;
use crate::terminal::{self, DIM, ERROR, HINT, WARNING, styled};

/// The findings, by host and VM.
pub(crate) fn findings(outcomes: &[Outcome]) -> String {
    let mut rows = Rows::new(&["HOST", "VM", "CHECK", "RESULT", "FINDING"]);
    for (outcome, finding) in all(outcomes) {
        let style = match finding.verdict {
            Verdict::Ok => Style::new(),
            Verdict::Note => DIM,
            Verdict::Warning => WARNING,
            Verdict::Problem => ERROR,
        };
        let host = outcome.host.as_ref().map_or("-", |host| host.as_str());
        let vm = outcome.vm.as_deref().unwrap_or("-");
        rows.add(style, &[host, vm, finding.check, finding.verdict.as_str(), &finding.message]);
    }
    rows.finish()
}

/// What to do, each advice once with all whom it is for.
pub(crate) fn advice(outcomes: &[Outcome]) -> String {
    let mut advice: Vec<(&Finding, Vec<String>)> = Vec::new();
    for (outcome, finding) in all(outcomes).filter(|(_, finding)| finding.hint.is_some()) {
        let same = |(known, _): &&mut (&Finding, Vec<String>)| {
            (known.check, known.verdict, &known.hint) == (finding.check, finding.verdict, &finding.hint)
        };
        match advice.iter_mut().find(same) {
            Some((_, names)) => names.push(name(outcome)),
            None => advice.push((finding, vec![name(outcome)])),
        }
    }
    let mut text = String::new();
    for (finding, names) in advice {
        let (style, word) = match finding.verdict {
            Verdict::Problem => (ERROR, "error"),
            _ => (WARNING, "warning"),
        };
        let message =
            if names.len() == 1 { format!(": {}", terminal::line(&finding.message)) } else { String::new() };
        let hint = terminal::block(finding.hint.as_deref().unwrap_or_default());
        text.push_str(&format!(
            "{}: {} ({}){message}\n",
            styled(style, word),
            names.join(", "),
            finding.check
        ));
        text.push_str(&format!("{}: {hint}\n\n", styled(HINT, "hint")));
    }
    text
}

fn all(outcomes: &[Outcome]) -> impl Iterator<Item = (&Outcome, &Finding)> {
    outcomes.iter().flat_map(|outcome| {
        let findings = match &outcome.data {
            Some(Data::Examination(examination)) => &examination.findings[..],
            _ => &[],
        };
        findings.iter().map(move |finding| (outcome, finding))
    })
}

fn name(outcome: &Outcome) -> String {
    if outcome.host.is_none() && outcome.vm.is_none() { "here".to_owned() } else { name_of(outcome) }
}
