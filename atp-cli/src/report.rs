//! Reports outcomes to stdout, a JUnit file, progress, the log and the exit code, during a run and at its end.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use atp_api::serve::ReservedVms;
use atp_executor::{Data, Outcome, RunEvent, RunStart, RunStatistics, Status, StopReason};
use atp_transport::{ErrorKind, HostId};
use tokio::time::Instant;

use crate::context::Context;
use crate::exit::Ending;
use crate::json;
use crate::output::{Output, OutputFormat};
use crate::problem::Problem;
use crate::progress::Progress;
use crate::render::html::HtmlFile;
use crate::render::junit::JunitFile;
use crate::render::{Forms, Reporter, summary, target_name};
use crate::terminal;
use crate::words;

/// The report of a run.
pub(crate) struct Report<'a> {
    context: &'a Context,
    output: Output,
    reporter: Reporter,
    junit: Option<JunitFile>,
    html: Option<HtmlFile>,
    since: Instant,
    /// The data of outcomes of targets on which nothing was begun.
    pub(crate) empty: Option<Data>,
    progress: Progress,
    /// The numbers of what was reported.
    statistics: RunStatistics,
    /// The number of targets that an earlier run of the same journal has done.
    done_before: usize,
    /// The reservations, by VM, if rows of listings are to have them.
    pub(crate) reserved: ReservedVms,
    /// What decides the exit code.
    pub(crate) ending: Ending,
}

impl<'a> Report<'a> {
    /// Starts the report of what is called `title`, in the formats that the settings ask for. `done_before` targets were done by an
    /// earlier run.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn new(
        title: &str,
        done_before: usize,
        forms: Forms,
        context: &'a Context,
    ) -> Result<Self, Problem> {
        let forms = if context.dry_run { forms.of_dry_run() } else { forms };
        let junit = context
            .junit
            .as_ref()
            .map(|path| JunitFile::create(path, title).map_err(|error| unwritable("--junit", path, &error)));
        let html = context
            .html
            .as_ref()
            .map(|path| HtmlFile::create(path, title).map_err(|error| unwritable("--html", path, &error)));
        Ok(Report {
            context,
            output: Output::stdout(),
            reporter: Reporter::new(context.settings.output, forms, title),
            junit: junit.transpose()?,
            html: html.transpose()?,
            since: Instant::now(),
            empty: None,
            progress: Progress::new(context),
            statistics: RunStatistics::default(),
            done_before,
            reserved: ReservedVms::default(),
            ending: Ending::default(),
        })
    }

    /// Checks that its files can be written, before anything else is done for the run.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn check(context: &Context) -> Result<(), Problem> {
        for (option, path) in [("--junit", &context.junit), ("--html", &context.html)] {
            if let Some(path) = path {
                check_file(path).map_err(|error| unwritable(option, path, &error))?;
            }
        }
        Ok(())
    }

    /// Goes on with the report of something else.
    pub(crate) fn begin(&mut self, title: &str, done_before: usize) {
        self.done_before += done_before;
        self.reporter.begin(title);
        if let Some(junit) = &mut self.junit {
            junit.begin(title, self.since.elapsed());
        }
        if let Some(html) = &mut self.html {
            html.begin(title);
        }
    }

    /// A run starts.
    pub(crate) fn begun(&mut self, start: &RunStart) {
        self.done_before += start.done_before;
        self.progress.expect(start.outcomes());
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

    /// A VM wrote a line to its console. With the formats that are written at the end there are no such events.
    pub(crate) fn console_line(&mut self, host: HostId, vm: String, line: String) {
        let text = match self.context.settings.output {
            OutputFormat::Jsonl => json::line(&RunEvent::Console { host, vm, line }),
            _ => format!("{}: {}\n", target_name(Some(&host), Some(&vm)), terminal::line(&line)),
        };
        let output = &mut self.output;
        self.progress.suspend(|| output.write(&text));
    }

    /// The run stops early.
    pub(crate) fn stopping(&mut self, reason: &StopReason) {
        match reason {
            // The person who asked for it knows.
            StopReason::Requested | StopReason::Aborted => {}
            StopReason::JournalFailed { error } => {
                self.ending.failures = true;
                self.progress.suspend(|| self.context.console.problem(&error.into()));
            }
            reason => {
                self.ending.stopped_early = true;
                self.warn(&format!("stopped early: {reason}"));
            }
        }
    }

    /// The events of the run cannot be read any more.
    pub(crate) fn broken(&mut self, problem: &Problem) {
        self.ending.failures = true;
        self.progress.suspend(|| self.context.console.problem(problem));
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
        self.show(outcome);
    }

    /// A run has ended, or outcomes that no run made are all reported. These are their numbers.
    pub(crate) fn ended(&mut self, statistics: &RunStatistics) {
        self.ending.failures |= statistics.failures() > 0;
        self.ending.bug |= statistics.count_of(ErrorKind::Panicked) > 0;
        self.statistics.merge(statistics);
    }

    /// Reports outcomes that no run made.
    pub(crate) fn take_all(&mut self, outcomes: Vec<Outcome>) {
        self.progress.expect(outcomes.len());
        self.ended(&outcomes.iter().collect());
        outcomes.into_iter().for_each(|outcome| self.take(outcome));
    }

    /// Reports what would be done to targets. It does not affect the exit code.
    pub(crate) fn show_all(&mut self, outcomes: Vec<Outcome>) {
        self.statistics.merge(&outcomes.iter().collect());
        outcomes.into_iter().for_each(|outcome| self.show(outcome));
    }

    fn show(&mut self, outcome: Outcome) {
        let mut outcome = words::outcome(outcome);
        if !self.context.dry_run && outcome.data.is_none() {
            outcome.data.clone_from(&self.empty);
        }
        if let (Some(Data::Domain(domain)), Some(host)) = (&mut outcome.data, &outcome.host)
            && let Some(reservation) = self.reserved.of(host, domain.uuid)
        {
            domain.reserved_by = Some(reservation.owner.clone());
            domain.reserved_until_ms = Some(reservation.until_ms);
        }
        // The skipped targets of a dry run are its data, not failures.
        let is_dry_run = self.context.dry_run && outcome.status == Status::Skipped;
        if !outcome.status.is_success() && !is_dry_run {
            self.context.console.outcome(&outcome);
        }
        if let Some(junit) = &mut self.junit {
            junit.take(&outcome);
        }
        if let Some(html) = &mut self.html {
            html.take(&outcome, self.since.elapsed());
        }
        self.reporter.take(outcome, &mut self.output);
    }

    /// Updates the progress; to be called every [`TICK`](crate::progress::TICK) during the run. `silent_for` is for how long its
    /// service has not answered.
    pub(crate) fn tick(&mut self, silent_for: Option<Duration>) {
        self.progress.tick(silent_for, &self.context.console);
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
        if let Some(html) = self.html {
            let path = html.path().display().to_string();
            if let Err(error) = html.finish(took) {
                console
                    .problem(&Problem::new(format!("--html {path}: could not be written")).because(&error));
                self.ending.failures = true;
            }
        }
        console.styled(&failures);
        let has_said_why = self.ending.matched_nothing || self.ending.failures;
        if !has_said_why || self.statistics.total() > 0 {
            summary::print(&self.statistics, self.done_before, console, self.context.dry_run, took);
        }
        self.ending.code()
    }
}

/// Checks that a file can be written, and keeps its content.
fn check_file(path: &Path) -> io::Result<()> {
    let is_new = !path.exists();
    File::options().append(true).create(true).open(path)?;
    if is_new { fs::remove_file(path) } else { Ok(()) }
}

fn unwritable(option: &str, path: &Path, error: &io::Error) -> Problem {
    Problem::new(format!("{option} {}: cannot be written; nothing was done", path.display()))
        .because(error)
        .hint("check the folder and its permissions")
}
