//! Reports outcomes to stdout, a JUnit file, progress, the log and the exit code, during a run and at its end.

use std::io;
use std::path::Path;

use atp_executor::{Outcome, Plan, Status, StopReason};
use atp_transport::{ErrorKind, HostId};
use tokio::time::Instant;

use crate::context::Context;
use crate::exit::Ending;
use crate::output::Output;
use crate::problem::Problem;
use crate::progress::Progress;
use crate::render::junit::Junit;
use crate::render::summary::Summary;
use crate::render::{Forms, Reporter, target_name};
use crate::words;

/// The report of a run.
pub(crate) struct Report<'a> {
    context: &'a Context,
    output: Output,
    reporter: Reporter,
    junit: Option<Junit>,
    progress: Progress,
    summary: Summary,
    /// What decides the exit code.
    pub(crate) ending: Ending,
}

impl<'a> Report<'a> {
    /// Starts the report of a plan's operation, in the formats that the settings ask for.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn new(plan: &Plan, forms: Forms, context: &'a Context) -> Result<Self, Problem> {
        let forms = if context.dry_run { forms.of_dry_run() } else { forms };
        let junit = context
            .junit
            .as_ref()
            .map(|path| Junit::create(path, plan.operation.name()).map_err(|error| unwritable(path, &error)));
        Ok(Report {
            context,
            output: Output::stdout(),
            reporter: Reporter::new(context.settings.output, forms),
            junit: junit.transpose()?,
            progress: Progress::new(plan.targets.len() + plan.settled.len(), context),
            summary: Summary::after(plan.done_before),
            ending: Ending::default(),
        })
    }

    /// Checks that its files can be written, before anything else is done for the run.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn check(context: &Context) -> Result<(), Problem> {
        match &context.junit {
            Some(path) => Junit::check(path).map_err(|error| unwritable(path, &error)),
            None => Ok(()),
        }
    }

    /// Adds targets to those of the plan.
    pub(crate) fn expect(&mut self, more: usize) {
        self.progress.expect(more);
    }

    /// A target was started.
    pub(crate) fn started(&mut self, host: &HostId, vm: Option<&str>) {
        let name = target_name(Some(host), vm);
        tracing::info!(%host, vm, "started");
        self.progress.started(name);
    }

    /// Updates the bytes done of a target.
    pub(crate) fn progress(&mut self, host: &HostId, vm: Option<&str>, done: u64, total: u64) {
        self.progress.is_at(&target_name(Some(host), vm), done, total);
    }

    /// The run stops early.
    pub(crate) fn stopping(&mut self, reason: &StopReason) {
        match reason {
            // The person who asked for it knows.
            StopReason::Requested | StopReason::Aborted => {}
            StopReason::JournalFailed(error) => {
                self.ending.failures = true;
                self.progress.suspend(|| self.context.console.problem(&error.clone().into()));
            }
            reason => {
                self.ending.stopped_early = true;
                self.warn(&format!("stopped early: {reason}"));
            }
        }
    }

    /// A target has its outcome.
    pub(crate) fn take(&mut self, outcome: Outcome) {
        let name = target_name(outcome.host.as_ref(), outcome.vm.as_deref());
        tracing::info!(
            host = outcome.host.as_ref().map(HostId::as_str),
            vm = outcome.vm.as_deref(),
            status = outcome.status.as_str(),
            effect = outcome.effect.as_str(),
            duration_ms = outcome.duration_ms,
            kind = outcome.error.as_ref().map(|error| error.kind.as_str()),
            error = outcome.error.as_ref().map(|error| error.message.as_str()),
            "finished"
        );
        self.progress.finished(&name, &outcome, &self.context.console);
        self.ending.failures |= !outcome.status.is_success();
        self.ending.bug |=
            outcome.error.as_ref().is_some_and(|error| error.kind == ErrorKind::Panicked.as_str());
        self.show(outcome);
    }

    /// Reports an outcome that does not affect the exit code.
    pub(crate) fn show(&mut self, outcome: Outcome) {
        let outcome = words::outcome(outcome);
        self.summary.count(outcome.status);
        // The skipped targets of a dry run are its data, not failures.
        let is_dry_run = self.context.dry_run && outcome.status == Status::Skipped;
        if !outcome.status.is_success() && !is_dry_run {
            self.context.console.outcome(&outcome);
        }
        if let Some(junit) = &mut self.junit {
            junit.take(&outcome);
        }
        self.reporter.take(outcome, &mut self.output);
    }

    /// Updates the progress; to be called every [`TICK`](crate::progress::TICK) during the run.
    pub(crate) fn tick(&mut self) {
        self.progress.tick(&self.context.console);
    }

    /// Writes a warning during the run.
    pub(crate) fn warn(&self, message: &str) {
        self.progress.suspend(|| self.context.console.warning(message));
    }

    /// Writes everything kept for the end, and the summary. Returns the exit code.
    pub(crate) fn finish(mut self, started: Instant) -> u8 {
        let console = &self.context.console;
        let took = started.elapsed();
        self.progress.finish();
        let failures = self.reporter.finish(&mut self.output);
        if let Err(error) = self.output.finish() {
            console.problem(&Problem::new("the report could not be written to stdout").because(&error));
            self.ending.failures = true;
        }
        if let Some(junit) = self.junit {
            let path = junit.path().display().to_string();
            if let Err(error) = junit.finish(took) {
                console
                    .problem(&Problem::new(format!("--junit {path}: could not be written")).because(&error));
                self.ending.failures = true;
            }
        }
        console.styled(&failures);
        if !self.ending.matched_nothing {
            self.summary.print(console, self.context.dry_run, took);
        }
        self.ending.code()
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Problem {
    Problem::new(format!("--junit {}: cannot be written; nothing was done", path.display()))
        .because(error)
        .hint("check the folder and its permissions")
}
