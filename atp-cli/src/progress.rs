//! Progress of a run on stderr: a bar and the running targets on a terminal, a line of counts every few seconds
//! elsewhere, nothing if quiet.

use std::env;
use std::future::Future;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use atp_executor::{Outcome, RunStatistics, Status};
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::time::Instant;

use crate::console::Console;
use crate::context::Context;
use crate::output::OutputFormat;
use crate::terminal::{self, ERROR, WARNING, styled};

/// Interval between redraws of the bar.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// Interval between lines of counts, if there is no bar.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Maximum number of running targets named below the bar; of more, the count is shown.
const NAMED: usize = 8;

/// Maximum number of failures that are shown at once.
const FAILED: u64 = 20;

/// Waiting is shown after this time.
const SPINNER_DELAY: Duration = Duration::from_millis(300);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Bar,
    Lines,
    Silent,
}

/// What decides how progress is shown.
#[derive(Debug, Clone, Copy, Default)]
struct Environment {
    /// stderr is a terminal that can move its cursor.
    is_terminal: bool,
    /// A CI system, whose log would keep every redraw of a bar.
    is_ci: bool,
    /// Only warnings and errors are wanted.
    quiet: bool,
    /// The log or JSON lines share stderr.
    is_shared: bool,
    /// Outcomes are written to the same terminal as targets finish.
    is_streaming: bool,
}

impl Environment {
    fn of(context: &Context) -> Self {
        let stderr = io::stderr().is_terminal();
        let variable = |name| env::var(name).unwrap_or_default();
        Environment {
            is_terminal: stderr && variable("TERM") != "dumb",
            is_ci: !matches!(variable("CI").as_str(), "" | "0" | "false"),
            quiet: context.console.is_quiet(),
            is_shared: context.verbosity > 0 || context.console.is_json(),
            is_streaming: context.settings.output == OutputFormat::Jsonl && io::stdout().is_terminal(),
        }
    }

    fn mode(self) -> Mode {
        match self {
            Environment { quiet: true, .. } => Mode::Silent,
            Environment {
                is_terminal: true, is_ci: false, is_shared: false, is_streaming: false, ..
            } => Mode::Bar,
            _ => Mode::Lines,
        }
    }
}

/// The progress of a run.
#[derive(Debug)]
pub(crate) struct Progress {
    mode: Mode,
    /// How many outcomes there will be.
    total: usize,
    /// The numbers of those that there are.
    so_far: RunStatistics,
    /// In the order in which they started.
    running: Vec<Running>,
    started: Instant,
    line_due: Instant,
    bar: Option<Bar>,
}

/// A target in progress.
#[derive(Debug)]
struct Running {
    name: String,
    since: Instant,
    /// Bytes done and bytes in total, if the work reports them.
    so_far: Option<(u64, u64)>,
}

impl Progress {
    /// The progress of a run that has not started.
    pub(crate) fn new(context: &Context) -> Self {
        let started = Instant::now();
        Progress {
            mode: Environment::of(context).mode(),
            total: 0,
            so_far: RunStatistics::default(),
            running: Vec::new(),
            started,
            line_due: started + LINE_EVERY,
            bar: None,
        }
    }

    /// Adds outcomes to come.
    pub(crate) fn expect(&mut self, more: usize) {
        self.total = self.total.saturating_add(more);
    }

    /// A target was started. The name is safe for a terminal.
    pub(crate) fn started(&mut self, name: String) {
        if self.mode != Mode::Silent {
            self.running.push(Running { name, since: Instant::now(), so_far: None });
        }
    }

    /// Updates the bytes done of a target.
    pub(crate) fn is_at(&mut self, name: &str, done: u64, total: u64) {
        if let Some(running) = self.running.iter_mut().find(|running| running.name == name) {
            running.so_far = Some((done, total));
        }
    }

    /// A target has its outcome. If there is a bar, the first failures are shown at once.
    pub(crate) fn finished(&mut self, name: &str, outcome: &Outcome, console: &Console) {
        if let Some(place) = self.running.iter().position(|running| running.name == name) {
            self.running.remove(place);
        }
        self.so_far.add(outcome);
        let failures = failures(&self.so_far);
        if is_failure(outcome.status) && self.bar.is_some() && failures <= FAILED {
            let note = match failures {
                FAILED => "further failures are reported at the end\n",
                _ => "",
            };
            self.suspend(|| console.styled(&format!("{}{note}", failure(name, outcome))));
        }
    }

    /// Shows the progress if it is due. `silent_for` is for how long the service that runs it has not answered.
    pub(crate) fn tick(&mut self, silent_for: Option<Duration>, console: &Console) {
        let silence = silence(silent_for);
        let now = Instant::now();
        match self.mode {
            Mode::Silent => {}
            Mode::Bar => {
                let bar = self.bar.get_or_insert_with(|| Bar::new(self.total));
                bar.draw(self.total, &self.so_far, now - self.started, &silence, &below(&self.running, now));
            }
            Mode::Lines if now < self.line_due => {}
            Mode::Lines => {
                self.line_due = now + LINE_EVERY;
                let mut record = json!({
                    "level": "INFO", "message": "progress", "total": self.total, "done": self.so_far.total(),
                    "failed": failures(&self.so_far), "running": self.running.len(),
                });
                if let Some(silent) = silent_for {
                    record["service_silent_s"] = silent.as_secs().into();
                }
                console.record(record);
                console.styled(&line(
                    self.total,
                    &self.so_far,
                    self.running.len(),
                    now - self.started,
                    &silence,
                ));
            }
        }
    }

    /// Runs `write` while the bar is hidden.
    pub(crate) fn suspend(&self, write: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.lines.suspend(write),
            None => write(),
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&mut self) {
        self.mode = Mode::Silent;
        if let Some(bar) = self.bar.take() {
            // Fails only if the terminal is gone.
            let _ = bar.lines.clear();
        }
    }
}

/// The bar and the lines below it on the terminal.
#[derive(Debug)]
struct Bar {
    lines: MultiProgress,
    head: ProgressBar,
    below: Vec<ProgressBar>,
}

impl Bar {
    fn new(total: usize) -> Self {
        let lines = MultiProgress::new();
        let head = lines.add(ProgressBar::new(total as u64));
        head.set_style(style("[{bar:30}] {pos}/{len}{msg}").progress_chars("=> "));
        Bar { lines, head, below: Vec::new() }
    }

    fn draw(
        &mut self,
        total: usize,
        so_far: &RunStatistics,
        elapsed: Duration,
        silence: &str,
        texts: &[String],
    ) {
        self.head.set_message(format!("{}, {} s{silence}", failed(so_far), elapsed.as_secs()));
        self.head.set_length(total as u64);
        self.head.set_position(so_far.total());
        while self.below.len() < texts.len() {
            let line = self.lines.add(ProgressBar::no_length());
            line.set_style(style("{wide_msg}"));
            self.below.push(line);
        }
        for surplus in self.below.drain(texts.len()..) {
            self.lines.remove(&surplus);
        }
        for (line, text) in self.below.iter().zip(texts) {
            line.set_message(text.clone());
        }
        self.head.tick();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are the valid ones in this file.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The lines below the bar: the targets that have run longest, since the run waits for them.
fn below(running: &[Running], now: Instant) -> Vec<String> {
    let line = |Running { name, since, so_far }: &Running| {
        let so_far = so_far.map(|(done, total)| format!(", {} of {}", HumanBytes(done), HumanBytes(total)));
        format!("  {name}  {} s{}", (now - *since).as_secs(), so_far.unwrap_or_default())
    };
    let mut lines: Vec<_> = running.iter().take(NAMED).map(line).collect();
    if running.len() > NAMED {
        lines.push(format!("  … and {} more", running.len() - NAMED));
    }
    lines
}

/// A line of counts, if there is no bar.
fn line(total: usize, so_far: &RunStatistics, running: usize, elapsed: Duration, silence: &str) -> String {
    let (done, failed) = (so_far.total(), failed(so_far));
    format!("{done} of {total} done{failed}, {running} running, {} s{silence}\n", elapsed.as_secs())
}

/// Says that these are the last numbers of a service that does not answer; nothing if it does.
fn silence(silent_for: Option<Duration>) -> String {
    match silent_for {
        Some(silent) => {
            format!("; the service has not answered for {} s and is tried again", silent.as_secs())
        }
        None => String::new(),
    }
}

/// How many targets failed, and to how many nothing is done any more, each after a comma; nothing of those that are none.
fn failed(so_far: &RunStatistics) -> String {
    let failed = failures(so_far);
    let count = |count, word| if count == 0 { String::new() } else { format!(", {count} {word}") };
    count(failed, "failed") + &count(so_far.failures().saturating_sub(failed), "not done")
}

/// How many targets failed. Those that a stop has left out or ended have not.
fn failures(so_far: &RunStatistics) -> u64 {
    let failed = Status::ALL.iter().filter(|status| is_failure(**status));
    failed.map(|status| so_far.count(*status)).sum()
}

fn is_failure(status: Status) -> bool {
    !status.is_success() && !matches!(status, Status::Skipped | Status::Cancelled)
}

/// The line shown at once for a target that failed.
fn failure(name: &str, outcome: &Outcome) -> String {
    let status = styled(if outcome.attempts > 0 { ERROR } else { WARNING }, outcome.status);
    match &outcome.error {
        Some(error) => {
            format!(
                "{name}: {status} ({}): {}\n",
                terminal::line(error.kind.as_str()),
                terminal::line(&error.message)
            )
        }
        None => format!("{name}: {status}\n"),
    }
}

/// Waits for `work`, and shows a spinner during the wait.
///
/// Cancel safe if `work` is.
pub(crate) async fn while_waiting<T>(
    what: &'static str,
    context: &Context,
    work: impl Future<Output = T>,
) -> T {
    let mut work = std::pin::pin!(work);
    if Environment::of(context).mode() != Mode::Bar {
        return work.await;
    }
    tokio::select! {
        done = &mut work => return done,
        () = tokio::time::sleep(SPINNER_DELAY) => {}
    }
    let spinner = Spinner(ProgressBar::new_spinner());
    spinner.0.set_style(style("{spinner} {msg}, {elapsed}"));
    spinner.0.set_message(what);
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => spinner.0.tick(),
        }
    }
}

/// Removes itself from the terminal when dropped, also if the wait is cancelled.
struct Spinner(ProgressBar);

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use atp_executor::StatusCounts;

    use super::*;

    #[test]
    fn a_bar_is_for_people_at_a_terminal() {
        let terminal = Environment { is_terminal: true, ..Environment::default() };
        for (surroundings, mode) in [
            (terminal, Mode::Bar),
            (Environment { is_ci: true, ..terminal }, Mode::Lines),
            (Environment { is_shared: true, ..terminal }, Mode::Lines),
            (Environment { is_streaming: true, ..terminal }, Mode::Lines),
            (Environment::default(), Mode::Lines),
            (Environment { quiet: true, ..terminal }, Mode::Silent),
            (Environment { quiet: true, is_ci: true, ..terminal }, Mode::Silent),
        ] {
            assert_eq!(surroundings.mode(), mode, "{surroundings:?}");
        }
    }

    #[test]
    fn at_most_eight_are_named() {
        let start = Instant::now();
        let running = |n| Running { name: format!("h1/vm{n}"), since: start, so_far: None };
        let mut running: Vec<_> = (0..11).map(running).collect();
        let now = start + Duration::from_secs(3);
        let lines = below(&running, now);
        assert_eq!(
            (lines.len(), lines[0].as_str(), lines[8].as_str()),
            (9, "  h1/vm0  3 s", "  … and 3 more")
        );
        assert_eq!(below(&running[..8], now).len(), 8);
        running[0].so_far = Some((12 << 20, 64 << 20));
        assert_eq!(below(&running[..1], now), ["  h1/vm0  3 s, 12.00 MiB of 64.00 MiB"]);
    }

    #[test]
    fn a_line_has_counts() {
        let statistics = |failed| {
            let counts = StatusCounts { ok: 12 - failed, failed, ..StatusCounts::default() };
            RunStatistics { counts, ..RunStatistics::default() }
        };
        let seconds = Duration::from_secs;
        assert_eq!(
            line(40, &statistics(2), 8, seconds(31), ""),
            "12 of 40 done, 2 failed, 8 running, 31 s\n"
        );
        let counts = StatusCounts { failed: 1, skipped: 3, cancelled: 1, ..StatusCounts::default() };
        let stopped = RunStatistics { counts, ..RunStatistics::default() };
        assert_eq!(
            line(8, &stopped, 3, seconds(2), ""),
            "5 of 8 done, 1 failed, 4 not done, 3 running, 2 s\n"
        );
        let silence = silence(Some(seconds(9)));
        assert_eq!(
            line(40, &statistics(0), 1, seconds(0), &silence),
            "12 of 40 done, 1 running, 0 s; the service has not answered for 9 s and is tried again\n"
        );
    }
}
