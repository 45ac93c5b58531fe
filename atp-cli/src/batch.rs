//! One operation over many targets: plan, ask, run, report.

use std::time::Duration;

use atp_executor::{Executor, Notice, Operation, Outcome, Plan, Run, RunEvent, Selection, StateFilter};
use atp_transport::TransportManager;
use tokio::time::Instant;

use crate::confirm::confirm;
use crate::context::Context;
use crate::dry_run;
use crate::inventory;
use crate::journal;
use crate::problem::{Failure, Problem};
use crate::progress;
use crate::render::Forms;
use crate::report::Report;
use crate::reservations;
use crate::signals::Interrupts;

/// One operation over the selected targets, and what the command line says of it.
pub(crate) struct Batch {
    pub(crate) selection: Selection,
    pub(crate) operation: Operation,
    /// What a dry run says of the operation beyond its name; a line for each part. See [`dry_run::name_only`].
    pub(crate) dry_run: fn(&Operation) -> Vec<String>,
    /// How the outcomes are shown.
    pub(crate) forms: Forms,
}

/// Runs a batch and reports it. Returns the exit code.
///
/// # Errors
/// Why there is no run to report.
pub(crate) async fn run(batch: Batch, context: &Context) -> Result<u8, Failure> {
    let Batch { selection, operation, dry_run: words, forms } = batch;
    let started = Instant::now();
    let interrupts = Interrupts::listen()?;
    let history = tokio::select! {
        history = journal::history(&operation, context) => history?,
        signal = interrupts.first() => return Err(Failure::Interrupted(signal)),
    };
    let settings = inventory::with_passwords(&selection, &context.settings, &interrupts).await?;
    let planning = async {
        let manager = tokio::select! {
            opened = inventory::open(&settings) => opened?,
            signal = interrupts.first() => return Err(Failure::Interrupted(signal)),
        };
        let executor = Executor::new(manager.clone());
        let policy = context.settings.policy.clone();
        let plan = executor.plan_until_stopped(&selection, operation, policy, interrupts.control()).await;
        let plan = plan.map_err(Problem::from)?;
        let plan = match &history {
            Some(history) => history.apply(plan),
            None => plan,
        };
        Ok::<_, Failure>((manager, executor, plan))
    };
    let (manager, executor, plan) =
        progress::while_waiting("asking the hosts for their VMs", context, planning).await?;

    let is_none_left = |notice: &&Notice| matches!(notice, Notice::NoneLeft { .. });
    plan.notices.iter().filter(|notice| !is_none_left(notice)).for_each(|notice| match notice {
        // More targets are processed than intended, or fewer.
        Notice::NothingExcluded { .. } | Notice::JournalDamaged => {
            context.console.warning(&notice.to_string())
        }
        notice => context.console.note(&notice.to_string()),
    });
    let report = if interrupts.received().is_some() {
        // Nothing is sent from here on; each target that is known has its outcome, and each host that is not listed.
        interrupted(plan, forms, &executor, &interrupts, context).await?
    } else if plan.matched_nothing() {
        let mut report = Report::new(plan.operation.name(), plan.done_before, forms, context)?;
        report.ending.matched_nothing = true;
        explain_empty(&selection, &plan.operation, plan.notices.iter().find(is_none_left), context);
        report
    } else if context.dry_run {
        let mut report = Report::new(plan.operation.name(), plan.done_before, forms, context)?;
        words(&plan.operation).iter().for_each(|line| context.console.note(line));
        let would_be = dry_run::of_plan(&plan);
        dry_run::report(plan.settled, would_be, &mut report);
        report
    } else {
        match confirm(&plan.report(), context, &interrupts).await {
            Err(Failure::Interrupted(_)) => {
                let report = interrupted(plan, forms, &executor, &interrupts, context).await?;
                return Ok(end(report, started, &manager).await);
            }
            confirmed => confirmed?,
        }
        Report::check(context)?;
        let journal = journal::open(&plan, history.as_ref(), context).await?;
        // Last, because it empties the file of the previous report: if there is no run, nothing would replace it.
        let mut report = Report::new(plan.operation.name(), plan.done_before, forms, context)?;
        if plan.operation.name() == "vm-list" {
            report.reserved = reservations::of_file(context).await;
        }
        let run = executor.run_noted(plan, journal, interrupts.control());
        drive(run, &mut report, &interrupts, |_| {}).await;
        report.ending.signal = interrupts.received();
        report
    };
    Ok(end(report, started, &manager).await)
}

async fn end(report: Report<'_>, started: Instant, manager: &TransportManager) -> u8 {
    let code = report.finish(started);
    inventory::close(manager, Duration::ZERO).await;
    code
}

/// Reports a plan of which nothing is begun, as a signal came before.
async fn interrupted<'a>(
    plan: Plan,
    forms: Forms,
    executor: &Executor,
    interrupts: &Interrupts,
    context: &'a Context,
) -> Result<Report<'a>, Failure> {
    context.console.warning("interrupted; nothing was done");
    let mut report = Report::new(plan.operation.name(), plan.done_before, forms, context)?;
    let run = executor.run(plan, interrupts.control());
    drive(run, &mut report, interrupts, |_| {}).await;
    report.ending.signal = interrupts.received();
    Ok(report)
}

/// The events of a run, here or in a service.
pub(crate) trait Events {
    /// The next event; none after the run's end.
    ///
    /// # Errors
    /// The events cannot be read any more. Nothing comes after that.
    ///
    /// Cancel safe.
    async fn next(&mut self) -> Result<Option<RunEvent>, Problem>;
}

impl Events for Run {
    async fn next(&mut self) -> Result<Option<RunEvent>, Problem> {
        Ok(Run::next(self).await)
    }
}

/// Reports all events of a run; `seen` gets each outcome first.
pub(crate) async fn drive(
    mut run: impl Events,
    report: &mut Report<'_>,
    interrupts: &Interrupts,
    mut seen: impl FnMut(&Outcome),
) {
    let (mut is_noted, mut has_ended, mut is_broken) = (interrupts.received().is_some(), false, false);
    let mut ticks = tokio::time::interval(progress::TICK);
    loop {
        tokio::select! {
            event = run.next() => match event.unwrap_or_else(|problem| {
                report.broken(&problem);
                is_broken = true;
                None
            }) {
                Some(RunEvent::Finished(outcome)) => {
                    seen(&outcome);
                    report.take(*outcome);
                }
                Some(RunEvent::Started { host, vm }) => report.started(&host, vm.as_deref()),
                Some(RunEvent::Progress { host, vm, done, total }) => {
                    report.progress(&host, vm.as_deref(), done, total);
                }
                Some(RunEvent::Console { host, vm, line }) => report.console_line(host, vm, line),
                Some(RunEvent::Stopping(reason)) => report.stopping(&reason),
                Some(RunEvent::Begun(start)) => report.begun(&start),
                Some(RunEvent::Ended(statistics)) => {
                    has_ended = true;
                    report.ended(&statistics);
                }
                Some(RunEvent::Unknown) => {}
                None => break,
            },
            _ = ticks.tick() => report.tick(),
            _ = interrupts.first(), if !is_noted => {
                is_noted = true;
                report.warn("interrupted: targets in progress are finished first; interrupt again to stop them at once");
            }
        }
    }
    // Without its numbers nothing is known of the run, not even that it failed.
    report.ending.bug |= !has_ended && !is_broken;
}

pub(crate) fn explain_empty(
    selection: &Selection,
    operation: &Operation,
    none_left: Option<&Notice>,
    context: &Context,
) {
    if operation.is_for_hosts() {
        let hosts = selection.selectors.iter().map(|selector| format!("'{}'", selector.host()));
        let problem = Problem::new(format!("no host matches {}", hosts.collect::<Vec<_>>().join(" ")));
        return context.console.problem(&problem.hint("`atp host list` lists the hosts"));
    }
    let is_scenario = matches!(operation, Operation::Scenario(_));
    let message = match none_left {
        Some(notice) => notice.to_string(),
        None => {
            let selectors: Vec<_> =
                selection.selectors.iter().map(|selector| format!("'{selector}'")).collect();
            format!("nothing matches {}", selectors.join(" "))
        }
    };
    let problem = Problem::new(message).hint(match is_scenario {
        true => {
            "`atp vm list` lists the VMs with their states; `--set NAME=VALUE` sets a variable that the file uses for its \
             targets"
        }
        false => "`atp vm list` lists the VMs with their states",
    });
    let (filters, source) = match is_scenario {
        true => (filters(selection, "").join(", "), " of the file"),
        false => (filters(selection, "--").join(" "), ""),
    };
    context.console.problem(&match filters.is_empty() {
        true => problem,
        false => problem.cause(format!("the filters{source}: {filters}")),
    });
}

/// The filters of the selection, each by its name after `dashes`: `--` for options, nothing for the keys of a file.
fn filters(selection: &Selection, dashes: &str) -> Vec<String> {
    let state = Some(selection.state).filter(|state| *state != StateFilter::Any);
    let state = state.map(|state| format!("{dashes}state {state}"));
    let labels = selection.labels.iter().map(|label| format!("{dashes}label {}={}", label.key, label.value));
    let exclude = selection.exclude.iter().map(|selector| format!("{dashes}exclude '{selector}'"));
    state.into_iter().chain(labels).chain(exclude).collect()
}
