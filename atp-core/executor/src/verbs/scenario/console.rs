//! The console of a scenario's VM, captured beside its steps.
//!
//! The capture begins before the first step, so that a step finds what an earlier one has caused.

use std::sync::Arc;
use std::time::Duration;

use atp_api::{ConsoleReport, Data, KernelFault, OutcomeError, Status, WaitReport};
use atp_transport::domain::DomainInfo;
use atp_transport::{Effect, ErrorKind, Hint};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::assertion::Matcher;
use crate::verbs::completion::Completion;
use crate::verbs::console::{ConsoleItem, ConsolePlace, ConsoleRecord, ConsoleStream};
use crate::verbs::job::Job;

/// How long the first step waits for the console to be open. A VM that does not run has none to wait for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A console that is captured until this is dropped.
pub(super) struct ConsoleWatch {
    record: Arc<Mutex<ConsoleRecord>>,
    progress: watch::Receiver<Progress>,
    /// What a step has found is not found by the next one.
    place: ConsolePlace,
    _capture: AbortOnDropHandle<()>,
}

/// How far a capture is. A change of it means that there is something new to look at.
#[derive(Debug, Clone, Default)]
struct Progress {
    is_open: bool,
    /// Why the console will never be open.
    error: Option<OutcomeError>,
}

impl ConsoleWatch {
    /// Begins to capture, and waits until the console is open if the VM runs.
    pub(super) async fn begin(job: &Job, domain: &DomainInfo) -> Self {
        let record = Arc::new(Mutex::new(ConsoleRecord::new()));
        let (sender, mut progress) = watch::channel(Progress::default());
        let stream = ConsoleStream::new(job.clone(), domain.clone(), None, false);
        let capture = AbortOnDropHandle::new(tokio::spawn(capture(stream, Arc::clone(&record), sender)));
        if job.was_active {
            let is_settled = |progress: &Progress| progress.is_open || progress.error.is_some();
            // A console that is not open yet is waited for by the steps that need it.
            let _late = timeout(PATIENCE, progress.wait_for(is_settled)).await;
        }
        ConsoleWatch { record, progress, place: ConsolePlace::default(), _capture: capture }
    }

    /// Waits for a line that matches, from the last one on that a step has waited for.
    pub(super) async fn wait(&mut self, matcher: &Matcher, deadline: Instant) -> Completion {
        let mut looks = 0;
        loop {
            looks += 1;
            let progress = self.progress.borrow_and_update().clone();
            let found = self.record.lock().find(&matcher.0, self.place);
            match found {
                Ok(after) => {
                    self.place = after;
                    return Completion::ok(Effect::None, Data::Waited(WaitReport { looks }));
                }
                Err(next) => self.place = next,
            }
            if let Some(error) = progress.error {
                return Completion::failed(Status::Failed, Effect::None, error);
            }
            match timeout_at(deadline, self.progress.changed()).await {
                Ok(Ok(())) => {}
                // The capture has panicked.
                Ok(Err(_)) => return Completion::failed(Status::Failed, Effect::None, ended()),
                Err(_) => return self.too_late(matcher),
            }
        }
    }

    fn too_late(&self, matcher: &Matcher) -> Completion {
        let record = self.record.lock();
        let report = record.report();
        let last = match record.tail(1).pop() {
            Some(last) => format!("its last line is {last:?}"),
            None if report.bytes == 0 => "it has written nothing".to_owned(),
            None => "it has written no line".to_owned(),
        };
        let faults = match faults(&record) {
            faults if faults.is_empty() => String::new(),
            faults => format!("; its kernel reported {faults}"),
        };
        let message = format!("the deadline passed before the console had the line: {last}{faults}");
        let error =
            OutcomeError::new(ErrorKind::ConditionNotMet, message).with_hint(Hint::GIVE_TIME).retryable();
        let error = OutcomeError { causes: vec![format!("no line matched /{}/", matcher.0)], ..error };
        Completion::failed(Status::Timeout, Effect::None, error)
    }

    /// How the console differs from what was expected of it: no fault of these.
    ///
    /// # Errors
    /// The console could not be captured, so that nothing is known of it.
    pub(super) fn differences(&self, none_of: &[KernelFault]) -> Result<Vec<String>, OutcomeError> {
        let progress = self.progress.borrow().clone();
        if let Some(error) = progress.error {
            return Err(error);
        }
        let record = self.record.lock();
        if record.report().bytes == 0 && !progress.is_open {
            let message = "the console was not open until now, so nothing is known of it";
            return Err(OutcomeError::new(ErrorKind::ConditionNotMet, message));
        }
        let found = record.faults().filter(|found| none_of.contains(&found.fault));
        Ok(found.map(|found| format!("the console reports {}: {:?}", found.fault, found.line)).collect())
    }

    /// What was captured.
    pub(super) fn report(&self) -> ConsoleReport {
        self.record.lock().report()
    }

    /// The last lines, or why there are none: what came before an error is there all the same.
    pub(super) fn tail(&self, lines: usize) -> Result<Vec<String>, OutcomeError> {
        let tail = self.record.lock().tail(lines);
        match self.progress.borrow().error.clone() {
            Some(error) if tail.is_empty() => Err(error),
            _ => Ok(tail),
        }
    }
}

/// Captures until it is aborted, or until the console can never be opened.
async fn capture(
    mut stream: ConsoleStream,
    record: Arc<Mutex<ConsoleRecord>>,
    progress: watch::Sender<Progress>,
) {
    loop {
        let change = match stream.next().await {
            Ok(item) => {
                let is_open = match &item {
                    ConsoleItem::Gap(_) => false,
                    ConsoleItem::Open | ConsoleItem::Bytes(_) => true,
                };
                record.lock().take(&item);
                Progress { is_open, error: None }
            }
            Err(error) => Progress { is_open: false, error: Some(error) },
        };
        let is_over = change.error.is_some();
        progress.send_replace(change);
        if is_over {
            return;
        }
    }
}

/// The names of the faults, each once.
fn faults(record: &ConsoleRecord) -> String {
    let mut names: Vec<_> = record.faults().map(|found| found.fault.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

fn ended() -> OutcomeError {
    OutcomeError::new(ErrorKind::Panicked, "the capture of the console has ended")
        .with_hint("this is a bug in atp: please report it")
}
