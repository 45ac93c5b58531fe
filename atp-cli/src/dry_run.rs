//! `--dry-run`: a plan is reported instead of carried out.

use atp_executor::{
    Data, DryRun, ExecTemplate, Operation, Outcome, OutcomeError, Plan, Scenario, Status, Step,
    StepOperation, Template, WaitFor,
};
use atp_protocol::ExecSpec;
use atp_transport::domain::DomainState;
use atp_transport::{Effect, ErrorKind, Hint};

use crate::report::Report;

/// Reports a plan instead of carrying it out: each target as `skipped`, or as `unchanged` where there would be
/// nothing to do. Only what is settled already counts for the exit code.
pub(crate) fn forecast(plan: Plan, report: &mut Report<'_>) {
    let forecasts: Vec<_> = plan.dry_run().map(|(_, forecast)| forecast).collect();
    let op = plan.operation.name();
    for outcome in plan.settled {
        report.take(outcome);
    }
    for (target, forecast) in plan.targets.into_iter().zip(forecasts) {
        let status = if forecast == DryRun::Unchanged { Status::Unchanged } else { Status::Skipped };
        let error = (forecast == DryRun::NotRunning).then(|| {
            let hint = match target.state() {
                Some(DomainState::Paused) => Hint::RESUME_VM,
                _ => ErrorKind::VmNotRunning.hint(),
            };
            OutcomeError::new(ErrorKind::VmNotRunning, "it would fail: the VM is not running").with_hint(hint)
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
        Operation::Push(spec) => {
            let (from, size) = (spec.local_path.display(), spec.source.size());
            vec![format!("cp would copy {from} ({size} bytes) to {} in the guests", spec.destination)]
        }
        Operation::Pull(spec) => {
            let (to, own) = (spec.destination.display(), if spec.separate { "/HOST/VM/NAME" } else { "" });
            vec![format!("cp would copy {} in the guests to {to}{own}", spec.path)]
        }
        Operation::Key(spec) => {
            let chords: Vec<_> = spec.chords.iter().map(ToString::to_string).collect();
            vec![format!("key would press: {}", chords.join(" "))]
        }
        // The text may be a password.
        Operation::Type(spec) => vec![format!("type would press keys: {}", spec.chords.len())],
        Operation::Mouse(spec) => vec![format!("mouse would do: {}", spec.action)],
        Operation::Screenshot(spec) => {
            let (folder, screen) = (spec.folder.display(), spec.screen);
            vec![format!("screenshot would write: {folder}/HOST/VM.png, of screen {screen}")]
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
        let line = |(n, step): (usize, &Step)| {
            let what =
                step.operation().and_then(words_of).map(|words| format!(": {words}")).unwrap_or_default();
            match step.op() {
                op if op == step.name => format!("{part} {}: {op}{what}", n + 1),
                op => format!("{part} {}: {} ({op}){what}", n + 1, step.name),
            }
        };
        steps.iter().enumerate().map(line).collect()
    };
    [part("step", scenario.steps()), part("teardown", scenario.teardown())].concat()
}

/// What a step does, with its variables as they stand in the file, where the operation's name does not say it.
fn words_of(operation: &StepOperation) -> Option<String> {
    let joined = |words: &[Template]| {
        let words: Vec<_> = words.iter().map(|word| quoted(&word.to_string())).collect();
        words.join(" ")
    };
    let command = |exec: &ExecTemplate| match &exec.words[..] {
        [line] if exec.shell => line.to_string(),
        words => joined(words),
    };
    Some(match operation {
        StepOperation::Exec(exec) => command(exec),
        StepOperation::Wait(WaitFor::Exec(exec)) => format!("until this ends with 0: {}", command(exec)),
        StepOperation::Wait(WaitFor::Agent) => "until the agent answers".to_owned(),
        StepOperation::Wait(WaitFor::State(state)) => format!("until it is {state}"),
        StepOperation::Qmp(words)
        | StepOperation::Qga(words)
        | StepOperation::Key(words)
        | StepOperation::Mouse(words) => joined(words),
        StepOperation::Push { from, to } => format!("{from} to {to} in the guest"),
        StepOperation::Pull { from, to } => format!("{from} in the guest to {to}/HOST/VM/NAME"),
        StepOperation::Screenshot(folder) => format!("{folder}/HOST/VM.png"),
        // The text may be a password.
        StepOperation::Type(_) | StepOperation::Lifecycle(_) | StepOperation::Info => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use atp_executor::{KeySpec, MouseSpec, PullSpec};
    use atp_protocol::input::{MouseAction, MouseTiming};

    #[test]
    fn a_command_is_told_as_it_would_be_typed() {
        let spec = ExecSpec::new("sh").args(["-c", "echo it's", ""]);
        assert_eq!(what(&Operation::Exec(spec)), [r"exec would run: sh -c 'echo it'\''s' ''"]);
        assert_eq!(what(&Operation::Exec(ExecSpec::shell("a | b"))), ["exec would run: a | b"]);
    }

    #[test]
    fn a_scenario_is_told_step_by_step() {
        let text = "name: x\ntargets: '*'\nsteps:\n  - {name: up, wait: agent}\n  - exec: uname ${vm} '$x'\nteardown:\n  - vm: info\n";
        let scenario: Scenario = text.parse().unwrap();
        let told = what(&Operation::Scenario(scenario.into()));
        assert_eq!(told.len(), 3);
        assert_eq!(
            told,
            [
                "step 1: up (wait): until the agent answers",
                "step 2: exec: uname ${vm} '$x'",
                "teardown 1: vm-info"
            ]
        );
    }

    #[test]
    fn copies_keys_and_the_mouse_are_told_too() {
        let told = |operation| what(&operation).join("\n");
        let pull = |separate| PullSpec { path: "/etc/x".into(), destination: "to".into(), separate };
        assert_eq!(told(Operation::Pull(pull(false))), "cp would copy /etc/x in the guests to to");
        assert_eq!(
            told(Operation::Pull(pull(true))),
            "cp would copy /etc/x in the guests to to/HOST/VM/NAME"
        );
        let keys = KeySpec::new(vec!["ctrl-alt-del".parse().unwrap(), "a".parse().unwrap()]);
        assert_eq!(told(Operation::Type(keys.clone())), "type would press keys: 2");
        assert_eq!(told(Operation::Key(keys)), "key would press: ctrl-alt-delete a");
        let words = ["click", "right", "50%", "20"].map(str::to_owned);
        let action = MouseAction::from_words(&words).unwrap();
        let mouse = Operation::Mouse(MouseSpec { action, timing: MouseTiming::default() });
        assert_eq!(told(mouse), "mouse would do: click right 0.5 20");
    }
}
