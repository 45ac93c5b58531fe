//! `atp run`: steps over targets, from a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use atp_executor::{
    Action, Data, ExecTemplate, Operation, Outcome, Scenario, ScenarioError, Step, StepOperation, StepReport,
    Template, WaitFor,
};
use clap::Args;

use super::verb::Run;
use crate::args::pair;
use crate::batch::Batch;
use crate::context::Context;
use crate::problem::{Failure, Problem};
use crate::render::Forms;
use crate::render::table::{NOTHING, Rows, status, time, vm};
use crate::shell;

const EXAMPLES: &str = "\
Examples:
  atp run smoke.yaml --set targets='web-*'
  atp run rolling-restart.yaml --serial 1 --yes --journal restart.journal";

/// Run the steps of a scenario file on VMs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// The scenario file: the VMs, and the steps to run on them (docs/scenarios.md describes the format)
    #[arg(value_name = "SCENARIO")]
    scenario: PathBuf,

    /// Set a variable of the scenario to another value; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair("expected NAME=VALUE, such as targets=web-*"))]
    set: Vec<(String, String)>,
}

impl Run for RunArgs {
    async fn batch(self, _: &Context) -> Result<Batch, Failure> {
        let path = &self.scenario;
        let text = std::fs::read_to_string(path).map_err(|error| {
            let problem = Problem::new(format!("{} cannot be read", path.display())).because(&error);
            problem.hint("name a scenario file; docs/scenarios.md describes the format")
        })?;
        let mut scenario: Scenario = text.parse().map_err(|error| problem(path, &error))?;
        for (name, value) in self.set {
            scenario.set(&name, value).map_err(|error| problem(path, &error))?;
        }
        let selection = scenario.selection().map_err(|error| problem(path, &error))?;
        Ok(Batch {
            selection,
            operation: Operation::Scenario(Arc::new(scenario)),
            dry_run: steps,
            forms: Forms::new(progress, &["data"]),
        })
    }
}

/// `FILE:LINE:COLUMN: …`, which editors can open.
fn problem(path: &Path, error: &ScenarioError) -> Problem {
    let place = error.place.map(|place| format!(":{}:{}", place.line, place.column)).unwrap_or_default();
    let problem = Problem::new(format!("{}{place}: {}", path.display(), error.message));
    match &error.hint {
        Some(hint) => problem.hint(hint.clone()),
        None => problem,
    }
}

fn steps(operation: &Operation) -> Vec<String> {
    let Operation::Scenario(scenario) = operation else { return Vec::new() };
    let part = |part: &'static str, steps: &[Step]| -> Vec<String> {
        let line = |(n, step): (usize, &Step)| {
            let words = match &step.action {
                Action::AwaitConsole(line) => {
                    Some(format!("until its console has a line with /{}/", line.as_str()))
                }
                _ => step.operation().and_then(words_of),
            };
            let what = words.map(|words| format!(": {words}")).unwrap_or_default();
            match step.op() {
                op if op == step.name => format!("{part} {}: {op}{what}", n + 1),
                op => format!("{part} {}: {} ({op}){what}", n + 1, step.name),
            }
        };
        steps.iter().enumerate().map(line).collect()
    };
    [part("step", scenario.steps()), part("teardown", scenario.teardown())].concat()
}

/// What a step does beyond its name, with the variables as written in the file.
fn words_of(operation: &StepOperation) -> Option<String> {
    let joined = |words: &[Template]| {
        let words: Vec<_> = words.iter().map(Template::to_string).collect();
        shell::joined(words.iter().map(String::as_str))
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
        StepOperation::Wait(WaitFor::Port(port)) => format!("until a process listens on port {port}"),
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

/// One row per VM with the number of steps done.
fn progress(outcomes: &[Outcome]) -> String {
    let mut rows = Rows::new(&["HOST", "VM", "RESULT", "STEPS", "TEARDOWN", "TIME"]);
    for outcome in outcomes {
        let count = |steps: &[StepReport]| steps.iter().filter(|step| step.status.is_success()).count();
        let (done, undone) = match &outcome.data {
            Some(Data::Scenario(report)) => (
                format!("{} of {}", count(&report.steps), report.steps_total),
                format!("{} of {}", count(&report.teardown), report.teardown_total),
            ),
            _ => (NOTHING.to_owned(), NOTHING.to_owned()),
        };
        rows.add_outcome(outcome, &[vm(outcome), &status(outcome), &done, &undone, &time(outcome)]);
    }
    rows.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_shows_the_steps() {
        let text = "name: x\ntargets: '*'\nsteps:\n  - {name: up, wait: agent}\n  - exec: uname ${vm} '$x'\nteardown:\n  - vm: info\n";
        let scenario: Scenario = text.parse().unwrap();
        let lines = steps(&Operation::Scenario(scenario.into()));
        assert_eq!(lines.len(), 3);
        assert_eq!(
            lines,
            [
                "step 1: up (wait): until the agent answers",
                "step 2: exec: uname ${vm} '$x'",
                "teardown 1: vm-info"
            ]
        );
    }
}
