//! `--dry-run`: a plan is reported instead of carried out.

use atp_executor::{Data, Forecast, Operation, Outcome, OutcomeError, Plan, Scenario, Status, Step};
use atp_protocol::ExecSpec;
use atp_transport::domain::DomainState;
use atp_transport::{Effect, ErrorKind};

use crate::report::Report;

/// Reports a plan instead of carrying it out: each target as `skipped`, or as `unchanged` where there would be
/// nothing to do. Only what is settled already counts for the exit code.
pub(crate) fn forecast(plan: Plan, report: &mut Report<'_>) {
    let forecasts: Vec<_> = plan.forecasts().map(|(_, forecast)| forecast).collect();
    let op = plan.operation.name();
    for outcome in plan.settled {
        report.take(outcome);
    }
    for (target, forecast) in plan.targets.into_iter().zip(forecasts) {
        let status = if forecast == Forecast::Unchanged { Status::Unchanged } else { Status::Skipped };
        let error = (forecast == Forecast::NotRunning).then(|| {
            let hint = match target.state() {
                Some(DomainState::Paused) => "resume it first (`atp vm resume`)",
                _ => ErrorKind::VmNotRunning.hint(),
            };
            OutcomeError::new(ErrorKind::VmNotRunning.as_str(), "it would fail: the VM is not running")
                .with_hint(hint)
        });
        report.show(Outcome {
            vm: target.vm().map(str::to_owned),
            uuid: target.uuid(),
            host: Some(target.host),
            op,
            status,
            effect: Effect::None,
            attempts: 0,
            duration_ms: 0,
            data: target.domain.map(Data::Domain),
            error,
        });
    }
}

/// What would be done to each target, where the operation's name does not say it; a line for each part.
pub(crate) fn what(operation: &Operation) -> Vec<String> {
    match operation {
        Operation::Exec(spec) => vec![format!("exec would run: {}", command_line(spec))],
        Operation::Qmp(command) | Operation::Qga(command) => {
            vec![format!("{operation} would send: {}", command.to_json())]
        }
        Operation::Scenario(scenario) => steps(scenario),
        _ => Vec::new(),
    }
}

/// The words as a shell takes them; with a shell in the guest, the line that is given to it.
fn command_line(spec: &ExecSpec) -> String {
    let words = std::iter::once(&spec.program).chain(&spec.args);
    if spec.shell {
        return words.map(String::as_str).collect::<Vec<_>>().join(" ");
    }
    words.map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn steps(scenario: &Scenario) -> Vec<String> {
    let part = |part: &'static str, steps: &[Step]| -> Vec<String> {
        let line = |(n, step): (usize, &Step)| match step.op() {
            op if op == step.name => format!("{part} {}: {op}", n + 1),
            op => format!("{part} {}: {} ({op})", n + 1, step.name),
        };
        steps.iter().enumerate().map(line).collect()
    };
    [part("step", scenario.steps()), part("teardown", scenario.teardown())].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_as_it_would_be_typed() {
        let spec = ExecSpec::new("sh").args(["-c", "echo it's", ""]);
        assert_eq!(what(&Operation::Exec(spec)), [r"exec would run: sh -c 'echo it'\''s' ''"]);
        assert_eq!(what(&Operation::Exec(ExecSpec::shell("a | b"))), ["exec would run: a | b"]);
    }

    #[test]
    fn a_scenario_is_told_step_by_step() {
        let text = "name: x\ntargets: '*'\nsteps:\n  - {name: up, wait: agent}\n  - exec: uname\nteardown:\n  - vm: info\n";
        let scenario: Scenario = text.parse().unwrap();
        let told = what(&Operation::Scenario(scenario.into()));
        assert_eq!(told.len(), 3);
        assert_eq!(told[0], "step 1: up (wait)");
        assert!(told[1].starts_with("step 2: ") && told[2].starts_with("teardown 1: "), "{told:?}");
    }
}
