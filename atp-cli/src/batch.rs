//! One operation over many targets: plan, ask, run, report.

use std::time::Duration;

use atp_executor::{
    Data, Executor, History, Notice, Operation, Outcome, Plan, Run, RunEvent, RunStatistics, Selection,
    StateFilter,
};
use atp_transport::TransportManager;
use tokio::time::Instant;

use crate::confirm::confirm;
use crate::context::Context;
use crate::dry_run;
use crate::exit::{self, Signal};
use crate::inventory;
use crate::journal;
use crate::problem::{Failure, Problem};
use crate::progress;
use crate::render::Forms;
use crate::report::Report;
use crate::reservations;
use crate::settings::Settings;
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
    run_all(vec![batch], context).await
}

/// Runs batches, one after the other, and reports them as one. Returns the exit code.
///
/// # Errors
/// Why there is no run to report.
pub(crate) async fn run_all(batches: Vec<Batch>, context: &Context) -> Result<u8, Failure> {
    let started = Instant::now();
    let interrupts = Interrupts::listen()?;
    // With several there is no journal.
    let history = match batches.first() {
        Some(batch) => tokio::select! {
            history = journal::history(&batch.operation, context) => history?,
            signal = interrupts.first() => return Err(Failure::Interrupted(signal)),
        },
        None => None,
    };
    let mut settings = context.settings.clone();
    for batch in &batches {
        settings = inventory::with_passwords(&batch.selection, &settings, &interrupts).await?;
    }
    let mut manager = None;
    let mut reports = Reports::new(batches.len(), context);
    for batch in batches {
        if !reports.goes_on(&batch, &interrupts) {
            continue;
        }
        let run =
            run_one(batch, &settings, &mut manager, history.as_ref(), &mut reports, &interrupts, context);
        let ended = run.await;
        reports.take(ended)?;
    }
    let code = reports.finish(started);
    if let Some(manager) = &manager {
        inventory::close(manager, Duration::ZERO).await;
    }
    Ok(code)
}

async fn run_one<'a>(
    batch: Batch,
    settings: &Settings,
    manager: &mut Option<TransportManager>,
    history: Option<&History>,
    reports: &mut Reports<'a>,
    interrupts: &Interrupts,
    context: &'a Context,
) -> Result<(), Failure> {
    let Batch { selection, operation, dry_run: words, forms } = batch;
    let planning = async {
        let manager = match manager {
            Some(manager) => manager,
            None => tokio::select! {
                opened = inventory::open(settings) => manager.insert(opened?),
                signal = interrupts.first() => return Err(Failure::Interrupted(signal)),
            },
        };
        let executor = Executor::new(manager.clone());
        let policy = context.settings.policy.clone();
        let plan = executor.plan_until_stopped(&selection, operation, policy, interrupts.control()).await;
        let plan = plan.map_err(Problem::from)?;
        let plan = match history {
            Some(history) => history.apply(plan),
            None => plan,
        };
        Ok::<_, Failure>((executor, plan))
    };
    let (executor, plan) =
        progress::while_waiting("asking the hosts for their VMs", context, planning).await?;

    let is_none_left = |notice: &&Notice| matches!(notice, Notice::NoneLeft { .. });
    plan.notices.iter().filter(|notice| !is_none_left(notice)).for_each(|notice| match notice {
        // More targets are processed than intended, or fewer.
        Notice::NothingExcluded { .. } | Notice::JournalDamaged => {
            context.console.warning(&notice.to_string())
        }
        notice => context.console.note(&notice.to_string()),
    });
    if interrupts.received().is_some() {
        // Nothing is sent from here on; each target that is known has its outcome, and each host that is not listed.
        return interrupted(plan, forms, &executor, reports, interrupts, context).await;
    }
    if plan.matched_nothing() {
        let report = reports.next(&plan.operation, plan.done_before, forms)?;
        report.ending.matched_nothing = true;
        let none_left = plan.notices.iter().find(is_none_left);
        context.console.problem(&nothing_matches(&selection, &plan.operation, none_left));
    } else if context.dry_run {
        let report = reports.next(&plan.operation, plan.done_before, forms)?;
        words(&plan.operation).iter().for_each(|line| context.console.note(line));
        let would_be = dry_run::of_plan(&plan);
        dry_run::report(plan.settled, would_be, report);
    } else {
        match confirm(&plan.report(), context, interrupts).await {
            Err(Failure::Interrupted(_)) => {
                return interrupted(plan, forms, &executor, reports, interrupts, context).await;
            }
            confirmed => confirmed?,
        }
        reports.check()?;
        let journal = journal::open(&plan, history, context).await?;
        // Last, because it empties the file of the previous report: if there is no run, nothing would replace it.
        let report = reports.next(&plan.operation, 0, forms)?;
        if plan.operation.name() == "vm-list" {
            report.reserved = reservations::of_file(context).await;
        }
        let run = executor.run_noted(plan, journal, interrupts.control());
        drive(run, report, interrupts, |_| {}).await;
        report.ending.signal = interrupts.received();
    }
    Ok(())
}

/// Reports a plan of which nothing is begun, as a signal came before.
async fn interrupted<'a>(
    plan: Plan,
    forms: Forms,
    executor: &Executor,
    reports: &mut Reports<'a>,
    interrupts: &Interrupts,
    context: &'a Context,
) -> Result<(), Failure> {
    context.console.warning("interrupted; nothing was done");
    let report = reports.next(&plan.operation, 0, forms)?;
    let run = executor.run(plan, interrupts.control());
    drive(run, report, interrupts, |_| {}).await;
    report.ending.signal = interrupts.received();
    Ok(())
}

/// The report of batches that are run one after the other.
pub(crate) struct Reports<'a> {
    context: &'a Context,
    report: Option<Report<'a>>,
    /// How many batches there are.
    all: usize,
    /// Why some of them were not run; that was reported already.
    failed: Vec<Failure>,
    /// A signal came, and what became of the last one is not known.
    signal: Option<Signal>,
}

impl<'a> Reports<'a> {
    pub(crate) fn new(all: usize, context: &'a Context) -> Self {
        Reports { context, report: None, all, failed: Vec::new(), signal: None }
    }

    /// Whether the next batch is to be run: not after a signal, or after one was stopped early.
    pub(crate) fn goes_on(&mut self, batch: &Batch, interrupts: &Interrupts) -> bool {
        let ending = self.report.as_ref().map(|report| report.ending).unwrap_or_default();
        // The first one reports its targets as interrupted by itself.
        let is_first = self.report.is_none() && self.failed.is_empty() && self.signal.is_none();
        let is_over = ending.stopped_early || (interrupts.received().is_some() && !is_first);
        if is_over {
            let name = title(&batch.operation);
            self.context.console.warning(&format!("{name}: not started, as the run was stopped before it"));
            self.signal = self.signal.or(interrupts.received());
        }
        !is_over
    }

    /// Ends with a signal after which it is not known what becomes of the last batch.
    pub(crate) fn end_by(&mut self, signal: Signal) {
        self.signal = Some(signal);
    }

    /// The report of the next batch. `done_before` is for a batch that is not run: a run tells it when it begins.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn next(
        &mut self,
        operation: &Operation,
        done_before: usize,
        forms: Forms,
    ) -> Result<&mut Report<'a>, Problem> {
        let mut report = match self.report.take() {
            Some(mut report) => {
                report.begin(&title(operation), done_before);
                report
            }
            None => Report::new(&title(operation), done_before, forms, self.context)?,
        };
        report.empty = not_begun(operation);
        Ok(self.report.insert(report))
    }

    /// Checks that the files of the report can be written.
    ///
    /// # Errors
    /// One cannot be written.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        match self.report {
            Some(_) => Ok(()),
            None => Report::check(self.context),
        }
    }

    /// Takes how a batch has ended. A batch that could not be run does not hold up the others.
    ///
    /// # Errors
    /// It was the only one.
    pub(crate) fn take(&mut self, ended: Result<(), Failure>) -> Result<(), Failure> {
        match ended {
            Ok(()) => Ok(()),
            Err(failure) if self.all == 1 => Err(failure),
            Err(failure) => {
                self.context.console.failure(&failure);
                self.failed.push(failure);
                Ok(())
            }
        }
    }

    /// Writes all that is kept for the end. Returns the exit code.
    pub(crate) fn finish(self, started: Instant) -> u8 {
        let Some(mut report) = self.report else {
            let signal = self.signal.map(Signal::exit_code);
            return self.failed.iter().map(Failure::code).chain(signal).max().unwrap_or(exit::SUCCESS);
        };
        report.ending.signal = report.ending.signal.or(self.signal);
        for failure in &self.failed {
            match failure {
                Failure::Usage(_) | Failure::Target(_) => report.ending.failures = true,
                Failure::NoMatch(_) => report.ending.matched_nothing = true,
                Failure::Interrupted(signal) => report.ending.signal = Some(*signal),
                Failure::Bug(_) => report.ending.bug = true,
            }
        }
        report.finish(started)
    }
}

/// The data of a target on which nothing was begun, where it says what it is about.
fn not_begun(operation: &Operation) -> Option<Data> {
    let Operation::Scenario(scenario) = operation else { return None };
    Some(Data::Scenario(scenario.not_begun()))
}

/// What reports call a run of this operation.
fn title(operation: &Operation) -> String {
    match operation {
        Operation::Scenario(scenario) => scenario.name().to_owned(),
        operation => operation.name().to_owned(),
    }
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

    /// For how long the service whose run it is has not answered, while it is tried again.
    fn silent_for(&self) -> Option<Duration> {
        None
    }
}

impl Events for Run {
    async fn next(&mut self) -> Result<Option<RunEvent>, Problem> {
        Ok(Run::next(self).await)
    }
}

/// Reports all events of a run; `seen` gets each outcome first. Returns whether all could be read.
pub(crate) async fn drive(
    mut run: impl Events,
    report: &mut Report<'_>,
    interrupts: &Interrupts,
    mut seen: impl FnMut(&Outcome),
) -> bool {
    let (mut is_noted, mut has_ended, mut is_broken) = (interrupts.received().is_some(), false, false);
    let mut told = RunStatistics::default();
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
                    told.add(&outcome);
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
            _ = ticks.tick() => report.tick(run.silent_for()),
            _ = interrupts.first(), if !is_noted => {
                is_noted = true;
                report.warn("interrupted: targets in progress are finished first; interrupt again to stop them at once");
            }
        }
    }
    if is_broken && !has_ended {
        report.ended(&told);
    }
    // Without its numbers nothing is known of the run, not even that it failed.
    report.ending.bug |= !has_ended && !is_broken;
    !is_broken
}

/// Says that a selection has no target, and why.
pub(crate) fn nothing_matches(
    selection: &Selection,
    operation: &Operation,
    none_left: Option<&Notice>,
) -> Problem {
    if operation.is_for_hosts() {
        let hosts = selection.selectors.iter().map(|selector| format!("'{}'", selector.host()));
        let problem = Problem::new(format!("no host matches {}", hosts.collect::<Vec<_>>().join(" ")));
        return problem.hint("`atp host list` lists the hosts");
    }
    let is_all = selection.selectors.iter().all(|selector| selector.to_string() == "*");
    if none_left.is_none() && is_all && filters(selection, "").is_empty() {
        let problem = Problem::new("the hosts have no VMs");
        return problem.hint("`virsh -c URI define FILE` adds the VM of a definition to a host");
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
    match filters.is_empty() {
        true => problem,
        false => problem.cause(format!("the filters{source}: {filters}")),
    }
}

/// The filters of the selection, each by its name after `dashes`: `--` for options, nothing for the keys of a file.
fn filters(selection: &Selection, dashes: &str) -> Vec<String> {
    let state = Some(selection.state).filter(|state| *state != StateFilter::Any);
    let state = state.map(|state| format!("{dashes}state {state}"));
    let labels = selection.labels.iter().map(|label| format!("{dashes}label {}={}", label.key, label.value));
    let exclude = selection.exclude.iter().map(|selector| format!("{dashes}exclude '{selector}'"));
    state.into_iter().chain(labels).chain(exclude).collect()
}
