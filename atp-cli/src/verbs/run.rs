//! `atp run`: steps over targets, from a file.

use std::path::PathBuf;
use std::sync::Arc;

use atp_executor::{
    Action, Data, ExecTemplate, Operation, Outcome, Scenario, Status, Step, StepOperation, StepReport,
    Template, WaitFor,
};
use clap::Args;

use super::verb::Verb;
use crate::args::{GlobalArgs, pair};
use crate::batch::{self, Batch};
use crate::context::Context;
use crate::problem::{Failure, Problem};
use crate::remote;
use crate::render::Forms;
use crate::render::table::{NOTHING, Rows, status, time, vm};
use crate::scenarios;
use crate::shell;

const EXAMPLES: &str = "\
Examples:
  atp run smoke.yaml --set targets='web-*'
  atp run rolling-restart.yaml --serial 1 --yes --journal restart.journal
  atp run scenarios/ --junit report.xml --html report.html";

/// Run the steps of scenario files on VMs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// Scenario files: the VMs, and the steps to run on them (docs/scenarios.md describes the format). Of a folder, all
    /// files in it that end in .yaml or .yml. They are run one after the other
    #[arg(value_name = "SCENARIO", required = true)]
    scenarios: Vec<PathBuf>,

    /// Set a variable of the scenarios to another value; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair("expected NAME=VALUE, such as targets=web-*"))]
    set: Vec<(String, String)>,
}

impl Verb for RunArgs {
    fn check(&self, options: &GlobalArgs) -> Result<(), Problem> {
        options.check_files()
    }

    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let scenarios = scenarios::read(&self.scenarios, &self.set)?;
        if scenarios.len() > 1 && (context.journal.is_some() || context.resume.is_some()) {
            let problem = Problem::new("a journal is of one scenario, and several are given");
            return Err(problem.hint("run each by itself, with a journal of its own").into());
        }
        let batch = |scenario: Scenario| {
            Ok(Batch {
                selection: scenario.selection().map_err(|error| Problem::new(error.to_string()))?,
                operation: Operation::Scenario(Arc::new(scenario)),
                dry_run: steps,
                forms: Forms::new(progress, &["data"]),
            })
        };
        let batches = scenarios.into_iter().map(batch).collect::<Result<Vec<_>, Problem>>()?;
        match remote::client(&context.settings)? {
            Some(client) => remote::run_all(batches, &client, context).await,
            None => batch::run_all(batches, context).await,
        }
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
            let op = match step.op() {
                op if op == step.name => op.to_owned(),
                op => format!("{} ({op})", step.name),
            };
            format!("{part} {}: {op}{what}{}", n + 1, control_of(step))
        };
        steps.iter().enumerate().map(line).collect()
    };
    [part("step", scenario.steps()), part("teardown", scenario.teardown())].concat()
}

/// The conditions of a step, its own variables and its repetitions.
fn control_of(step: &Step) -> String {
    let with = step.bindings.iter().map(|(name, value)| format!("with {name}={value}"));
    let when = step.when.iter().map(|when| format!("when {when}"));
    let retry = step.retry.iter().map(|retry| format!("repeated up to {} times if it fails", retry.times));
    with.chain(when).chain(retry).map(|words| format!("; {words}")).collect()
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
        // A step whose condition did not hold is done with.
        let is_done = |step: &&StepReport| step.status.is_success() || step.status == Status::Skipped;
        let count = |steps: &[StepReport]| steps.iter().filter(is_done).count();
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
