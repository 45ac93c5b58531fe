//! `console`: what VMs write to their serial consoles, into files and line by line.
//!
//! ```text
//! stream ──bytes──► record ──► a report: bytes, lines, gaps, faults of the kernel
//!   │ opens the console, and opens it again after the VM was restarted, has moved, or its host was not reached
//! ```

mod record;
mod stream;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use atp_api::{ConsoleReport, ConsoleSpec, Data, OutcomeError, Status};
use atp_transport::domain::DomainInfo;
use atp_transport::{Effect, ErrorKind, Hint, HostId};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep, sleep_until};

pub(super) use self::record::{ConsolePlace, ConsoleRecord};
pub(super) use self::stream::{ConsoleItem, ConsoleStream};

use super::completion::Completion;
use super::facts::VerbFacts;
use super::job::Job;
use crate::run::PartialResult;
use crate::safe_name::safe_name;

/// For how long a capture continues after a request to stop, so that output in flight is captured too.
const DRAIN: Duration = Duration::from_millis(200);

/// The time for the end of a file before the deadline.
const RESERVE: Duration = Duration::from_millis(500);

/// A request to stop the run ends a capture as its deadline does: with what was captured.
pub(super) static FACTS: VerbFacts = VerbFacts { all_at_once: true, ..VerbFacts::look("console") };

/// Captures the console until the deadline, or until the run is asked to stop. A VM that does not run is waited for.
pub(super) async fn perform(job: &Job, domain: &DomainInfo, spec: &ConsoleSpec) -> Completion {
    let file = spec.folder.as_deref().map(|folder| file_for(folder, &job.planned_on, &domain.name));
    let mut capture = Capture {
        job,
        vm: &domain.name,
        lines: spec.lines,
        record: ConsoleRecord::without_lines(),
        file: None,
    };
    if let Some(path) = &file {
        match create(path).await {
            Ok(file) => capture.file = Some(file),
            Err(error) => return capture.unwritten(path, &error),
        }
    }
    let mut stream = ConsoleStream::new(job.clone(), domain.clone(), spec.device.clone(), spec.force);
    let ended = tokio::select! {
        biased;
        () = stopped(job) => Ok(()),
        () = sleep_until(end_before(job.deadline())) => Ok(()),
        ended = capture.run(&mut stream) => ended,
    };
    let last = capture.record.finish();
    if let (Some(line), true) = (last, spec.lines) {
        job.attempt.console_line(&domain.name, line, Instant::now() + job.policy.grace / 4).await;
    }
    let ended = match (ended, &mut capture.file) {
        (Ok(()), Some(file)) => file.sync_all().await.map_err(Ended::Unwritten),
        (ended, _) => ended,
    };
    let report = ConsoleReport { file: file.clone(), ..capture.record.report() };
    let completion = match (ended, file) {
        (Err(Ended::Unwritten(error)), Some(path)) => capture.unwritten(&path, &error),
        (Err(Ended::Console(error)), _) => Completion::failed(Status::Failed, Effect::None, error),
        _ => match stream.never_opened() {
            Some(error) => never_opened(job, error.clone()),
            None if stream.is_open_once() => Completion::ok(Effect::None, None),
            None => never_opened(job, silent(job, domain)),
        },
    };
    Completion { data: Some(Data::Console(Box::new(report))), ..stream.job().ended(completion) }
}

/// Returns when a capture that was asked to stop is to end.
async fn stopped(job: &Job) {
    job.attempt.stop_requested().await;
    sleep(DRAIN).await;
}

/// When a capture ends so that its file is on disk by the deadline.
fn end_before(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline - (left / 10).min(RESERVE)
}

/// Why a capture ended early.
enum Ended {
    Console(OutcomeError),
    Unwritten(io::Error),
}

/// A capture under way.
struct Capture<'a> {
    job: &'a Job,
    vm: &'a str,
    /// Whether lines are events of the run.
    lines: bool,
    record: ConsoleRecord,
    file: Option<File>,
}

impl Capture<'_> {
    /// Captures without an end.
    async fn run(&mut self, stream: &mut ConsoleStream) -> Result<(), Ended> {
        loop {
            let item = stream.next().await.map_err(Ended::Console)?;
            let complete = self.record.take(&item);
            let mark = match &item {
                ConsoleItem::Bytes(_) | ConsoleItem::Off(_) | ConsoleItem::Closed => None,
                ConsoleItem::Open => Some(mark("the console is open")),
                ConsoleItem::Gap(reason) => Some(mark(&format!("gap: {reason}"))),
            };
            if let Some(file) = &mut self.file {
                let text = mark.as_ref().map(|mark| format!("\n{mark}\n"));
                let bytes = match (&item, &text) {
                    (ConsoleItem::Bytes(bytes), _) => *bytes,
                    (_, Some(text)) => text.as_bytes(),
                    (_, None) => &[],
                };
                self.job.allowance.take(bytes.len() as u64).map_err(Ended::Unwritten)?;
                file.write_all(bytes).await.map_err(Ended::Unwritten)?;
                // What is in the file is there also if this process is killed.
                file.flush().await.map_err(Ended::Unwritten)?;
            }
            if self.lines {
                for line in complete.into_iter().chain(mark) {
                    self.job.attempt.console_line(self.vm, line, self.job.deadline()).await;
                }
            }
            let report = Data::Console(Box::new(self.record.report()));
            self.job.attempt.if_cut_off(PartialResult { words: None, data: Some(report) });
        }
    }

    fn unwritten(&self, file: &Path, error: &io::Error) -> Completion {
        let host = &self.job.target.host;
        let message = format!("host {host}: the console cannot be written to {}: {error}", file.display());
        let error = OutcomeError::new(ErrorKind::LocalFileError, message).with_hint(Hint::CHECK_FOLDER);
        Completion::failed(Status::Failed, Effect::None, error)
    }
}

/// A line that is not the guest's, in its text.
fn mark(what: &str) -> String {
    format!("--- {}: {what} ---", humantime::format_rfc3339_seconds(SystemTime::now()))
}

/// Creates the file, in a folder that is created too.
async fn create(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).await?;
    }
    File::create(path).await
}

/// The file for a VM.
fn file_for(folder: &Path, host: &HostId, vm: &str) -> PathBuf {
    folder.join(safe_name(host.as_str())).join(format!("{}.log", safe_name(vm)))
}

/// The completion of a console that was not open at any time.
fn never_opened(job: &Job, error: OutcomeError) -> Completion {
    use ErrorKind::{ConnectFailed, ConnectTimeout, ConnectionRefused, HostUnreachable};
    let is_unreachable =
        matches!(error.kind, ConnectFailed | ConnectTimeout | ConnectionRefused | HostUnreachable);
    let status = match () {
        () if job.attempt.is_stop_requested() => Status::Cancelled,
        () if is_unreachable => Status::Unreachable,
        () => Status::Timeout,
    };
    Completion::failed(status, Effect::None, error)
}

/// The error of a host that answered nothing.
fn silent(job: &Job, domain: &DomainInfo) -> OutcomeError {
    let message = format!(
        "host {}: VM {:?}: the console was not open by the deadline: the daemon did not answer",
        job.target.host, domain.name
    );
    let kind = ErrorKind::CallTimeout;
    OutcomeError::new(kind, message).with_hint(kind.hint()).retryable()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vm_has_a_file_in_the_folder() {
        let host: HostId = "h1".parse().unwrap();
        assert_eq!(file_for(Path::new("logs"), &host, "web-1"), Path::new("logs/h1/web-1.log"));
        assert_eq!(file_for(Path::new("logs"), &host, "../x"), Path::new("logs/h1/%2e.%2fx.log"));
    }
}
