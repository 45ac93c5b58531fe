//! What comes of a run, told as it comes and at its end.

use atp_executor::{Outcome, Plan, StopReason};
use atp_transport::{ErrorKind, HostId};
use tokio::time::Instant;

use crate::commands::Context;
use crate::exit::Ending;
use crate::output::Output;
use crate::problem::Problem;
use crate::render::summary::Summary;
use crate::render::{Reporter, target_name};

/// What has come of a run so far.
pub(crate) struct Report<'a> {
    context: &'a Context,
    output: Output,
    reporter: Reporter,
    summary: Summary,
    /// What the exit code is told from.
    pub(crate) ending: Ending,
}

impl<'a> Report<'a> {
    /// A report of the operation of a plan, in the form that the settings ask for.
    pub(crate) fn new(plan: &Plan, context: &'a Context) -> Self {
        Report {
            context,
            output: Output::stdout(),
            reporter: Reporter::new(context.settings.output, &plan.operation, context.dry_run),
            summary: Summary::default(),
            ending: Ending::default(),
        }
    }

    /// A target was admitted.
    pub(crate) fn started(&mut self, host: &HostId, vm: Option<&str>) {
        tracing::info!(target = target_name(Some(host), vm), "started");
    }

    /// The run ends early.
    pub(crate) fn stopping(&mut self, reason: &StopReason) {
        let console = &self.context.console;
        match reason {
            // Whoever asked for it knows.
            StopReason::Requested | StopReason::Aborted => {}
            StopReason::JournalFailed(error) => {
                self.ending.failures = true;
                console.problem(&error.clone().into());
            }
            reason => {
                self.ending.stopped_early = true;
                console.warning(&format!("stopped early: {reason}"));
            }
        }
    }

    /// A target has its outcome.
    pub(crate) fn take(&mut self, outcome: Outcome) {
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
    pub(crate) fn show(&mut self, outcome: Outcome) {
        self.summary.count(outcome.status);
        self.reporter.take(outcome, &mut self.output);
    }

    /// Writes what was kept for the end, and the summary. Returns the exit code.
    pub(crate) fn finish(mut self, started: Instant) -> u8 {
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
