//! One operation over many targets: plan, ask, run, report.

use std::time::Duration;

use anyhow::Context as _;
use atp_executor::{
    Data, Executor, Forecast, Operation, Outcome, OutcomeError, Plan, Policy, RunEvent, Selection, Status,
};
use atp_transport::{Effect, ErrorKind};
use tokio::time::Instant;

use crate::commands::Context;
use crate::confirm::confirm;
use crate::exit::Ending;
use crate::inventory;
use crate::output::Output;
use crate::problem::{Failure, Problem};
use crate::render::summary::Summary;
use crate::render::{Reporter, target_name};
use crate::signals::Interrupts;

/// Longest the connections may take to be closed when all is reported. A daemon logs an error for each client that
/// goes without a word.
const FAREWELL: Duration = Duration::from_millis(200);

/// Carries out an operation on the selected targets and reports it. Returns the exit code.
///
/// # Errors
/// Why there is no run to report.
pub(crate) async fn run(
    selection: Selection,
    operation: Operation,
    context: &Context,
) -> Result<u8, Failure> {
    let started = Instant::now();
    let interrupts = Interrupts::listen().context("signals cannot be listened to").map_err(Failure::Bug)?;
    let policy = Policy {
        parallel: context.settings.parallel,
        timeout: context.settings.timeout,
        ..Policy::default()
    };
    let planning = async {
        let manager = inventory::open(&context.settings).await?;
        let executor = Executor::new(manager.clone());
        let plan = executor.plan(&selection, operation, policy).await;
        let plan = plan.map_err(|error| Problem::new(error.to_string()).hint(error.hint()))?;
        Ok::<_, Failure>((manager, executor, plan))
    };
    let (manager, executor, plan) = tokio::select! {
        planned = planning => planned?,
        signal = interrupts.first() => return Err(Failure::Interrupted(signal)),
    };

    let mut report = Report::new(&plan, context);
    if plan.matched_nothing() {
        report.ending.matched_nothing = true;
        explain_empty(&selection, context);
    } else if context.dry_run {
        forecast(plan, &mut report);
    } else {
        confirm(&plan, context, &interrupts).await?;
        let mut run = executor.run(plan, interrupts.control());
        let mut told = false;
        loop {
            tokio::select! {
                event = run.next() => match event {
                    Some(RunEvent::Finished(outcome)) => report.take(*outcome),
                    Some(RunEvent::Started { host, vm }) => {
                        tracing::info!(target = target_name(Some(&host), vm.as_deref()), "started");
                    }
                    None => break,
                },
                _ = interrupts.first(), if !told => {
                    told = true;
                    context.console.warning("interrupted: what runs is finished first; once more stops it at once");
                }
            }
        }
        report.ending.signal = interrupts.received();
    }
    let code = report.finish(started);
    // Whatever hangs is left behind.
    let _ = tokio::time::timeout(FAREWELL, manager.close(Duration::ZERO)).await;
    Ok(code)
}

/// What has come of a run so far.
struct Report<'a> {
    context: &'a Context,
    output: Output,
    reporter: Reporter,
    summary: Summary,
    ending: Ending,
}

impl<'a> Report<'a> {
    fn new(plan: &Plan, context: &'a Context) -> Self {
        Report {
            context,
            output: Output::stdout(),
            reporter: Reporter::new(context.settings.output, &plan.operation, context.dry_run),
            summary: Summary::default(),
            ending: Ending::default(),
        }
    }

    fn take(&mut self, outcome: Outcome) {
        tracing::info!(
            target = target_name(outcome.host.as_ref(), outcome.vm.as_deref()),
            status = outcome.status.as_str(),
            effect = outcome.effect.as_str(),
            duration_ms = outcome.duration_ms,
            "finished"
        );
        self.ending.failures |= !outcome.status.is_success();
        self.ending.bug |=
            outcome.error.as_ref().is_some_and(|error| error.kind == ErrorKind::Panicked.as_str());
        self.show(outcome);
    }

    /// Reports an outcome without a say in how the run ends.
    fn show(&mut self, outcome: Outcome) {
        self.summary.count(outcome.status);
        self.reporter.take(outcome, &mut self.output);
    }

    fn finish(mut self, started: Instant) -> u8 {
        let console = &self.context.console;
        let failures = self.reporter.finish(&mut self.output);
        if let Err(error) = self.output.finish() {
            console.problem(&Problem::new("the report could not be written to stdout").because(&error));
            self.ending.failures = true;
        }
        console.styled(&failures);
        if !self.ending.matched_nothing {
            self.summary.print(console, self.context.dry_run, started.elapsed());
        }
        self.ending.code()
    }
}

/// Reports a plan instead of carrying it out: each target as `skipped`, or as `unchanged` where there would be
/// nothing to do. Only what is settled already counts for the exit code.
fn forecast(plan: Plan, report: &mut Report<'_>) {
    let forecasts: Vec<_> = plan.forecasts().map(|(_, forecast)| forecast).collect();
    let op = plan.operation.name();
    for outcome in plan.settled {
        report.take(outcome);
    }
    for (target, forecast) in plan.targets.into_iter().zip(forecasts) {
        let status = if forecast == Forecast::Unchanged { Status::Unchanged } else { Status::Skipped };
        let error = (forecast == Forecast::NotRunning).then(|| OutcomeError {
            kind: ErrorKind::VmNotRunning.as_str().to_owned(),
            message: "it would fail: the VM is not running".to_owned(),
            hint: Some(ErrorKind::VmNotRunning.hint().to_owned()),
            retryable: false,
            libvirt: None,
            causes: Vec::new(),
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

fn explain_empty(selection: &Selection, context: &Context) {
    let selectors: Vec<_> = selection.selectors.iter().map(|selector| format!("'{selector}'")).collect();
    let problem = Problem::new(format!("nothing matches {}", selectors.join(" ")));
    context.console.problem(
        &problem.hint("`atp vm list` shows the VMs there are; --state, --label and --exclude take VMs away"),
    );
}
