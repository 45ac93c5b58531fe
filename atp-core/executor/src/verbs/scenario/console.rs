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

/// How long the first step waits for the console to be open, and a check of it for one that is to be opened again. A VM that does
/// not run has none to wait for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A console that is captured until this is dropped.
pub(super) struct ConsoleWatch {
    record: Arc<Mutex<ConsoleRecord>>,
    progress: watch::Receiver<Progress>,
    /// Whether the VM ran, and its console was not open yet when the first step began.
    began_without: bool,
    /// What a step has found is not found by the next one.
    place: ConsolePlace,
    _capture: AbortOnDropHandle<()>,
}

/// How far a capture is. A change of it means that there is something new to look at.
#[derive(Debug, Clone, Default)]
struct Progress {
    now: Now,
    /// Whether the console was open at any time.
    was_open: bool,
    /// Why the guest may have written something that was not seen.
    unseen: Option<String>,
    /// Why the console will never be open.
    error: Option<OutcomeError>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Now {
    /// It is not open, and may be soon.
    #[default]
    Closed,
    Open,
    /// The VM did not run when it was looked at, which began at this time.
    Off(Instant),
}

impl Progress {
    /// Whether there is nothing to wait for, for somebody who asks how it is at this time.
    fn is_settled(&self, at: Instant) -> bool {
        let is_known = match self.now {
            Now::Open => true,
            Now::Off(looked) => looked >= at,
            Now::Closed => false,
        };
        is_known || self.error.is_some()
    }
}

impl ConsoleWatch {
    /// Begins to capture, and waits until the console is open if the VM runs.
    pub(super) async fn begin(job: &Job, domain: &DomainInfo) -> Self {
        let began = Instant::now();
        let record = Arc::new(Mutex::new(ConsoleRecord::new()));
        let (sender, mut progress) = watch::channel(Progress::default());
        let stream = ConsoleStream::new(job.clone(), domain.clone(), None, false);
        let capture = AbortOnDropHandle::new(tokio::spawn(capture(stream, Arc::clone(&record), sender)));
        let mut began_without = false;
        if job.was_active {
            // A console that is not open yet is waited for by the steps that need it.
            let is_settled = progress.wait_for(|progress| progress.is_settled(began));
            began_without = timeout(PATIENCE, is_settled).await.is_err();
        }
        ConsoleWatch { record, progress, began_without, place: ConsolePlace::default(), _capture: capture }
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

    /// How the console differs from what was expected of it: no fault of these. A console that is not open, as after a start of the VM,
    /// is waited for, for a moment.
    ///
    /// # Errors
    /// The console could not be captured, or not all the time, so that it is not known what the kernel has reported.
    pub(super) async fn differences(
        &mut self,
        none_of: &[KernelFault],
        deadline: Instant,
    ) -> Result<Vec<String>, OutcomeError> {
        let asked = Instant::now();
        let is_settled = self.progress.wait_for(|progress| progress.is_settled(asked));
        let is_late = timeout_at(deadline.min(asked + PATIENCE), is_settled).await.is_err();
        let mut progress = self.progress.borrow().clone();
        // That it does not run was seen before the step.
        if is_late && matches!(progress.now, Now::Off(_)) {
            progress.now = Now::Closed;
        }
        let found: Vec<_> = {
            let record = self.record.lock();
            let found = record.faults().filter(|found| none_of.contains(&found.fault));
            found.map(|found| format!("the console reports {}: {:?}", found.fault, found.line)).collect()
        };
        if let (Some(error), true) = (&progress.error, found.is_empty()) {
            return Err(error.clone());
        }
        match self.unseen(&progress) {
            Some(unseen) if found.is_empty() => {
                let message = format!("it is not known what the kernel has reported: {unseen}");
                let error = OutcomeError::new(ErrorKind::ConditionNotMet, message);
                Err(error.with_hint(
                    "the data has the gaps of the console; look at the log of the kernel in the guest",
                ))
            }
            _ => Ok(found),
        }
    }

    /// Why something that the guest has written since the first step may not have been seen.
    fn unseen(&self, progress: &Progress) -> Option<String> {
        match (&progress.unseen, progress.now) {
            _ if !progress.was_open => Some("the console was not open until now".to_owned()),
            _ if self.began_without => {
                Some("the console was not open yet when the first step began".to_owned())
            }
            (Some(reason), _) => Some(format!("the console was not open all the time: {reason}")),
            (None, Now::Closed) => Some("the console is not open".to_owned()),
            (None, Now::Open | Now::Off(_)) => None,
        }
    }

    /// Whether the kernel has reported one of these faults, or it will never be known.
    pub(super) fn stays_wrong(&self, none_of: &[KernelFault]) -> bool {
        let progress = self.progress.borrow();
        let is_unknown = progress.now == Now::Open && self.unseen(&progress).is_some();
        let mut found = none_of.iter();
        let record = self.record.lock();
        !none_of.is_empty()
            && (is_unknown || found.any(|fault| record.faults().any(|found| found.fault == *fault)))
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
        let (now, error) = match stream.next().await {
            Ok(item) => {
                record.lock().take(&item);
                let now = match item {
                    ConsoleItem::Gap(_) | ConsoleItem::Closed => Now::Closed,
                    ConsoleItem::Open | ConsoleItem::Bytes(_) => Now::Open,
                    ConsoleItem::Off(looked) => Now::Off(looked),
                };
                (now, None)
            }
            Err(error) => (Now::Closed, Some(error)),
        };
        // It may be that of a process that ends.
        let now = if now == Now::Open && stream.is_in_doubt() { Now::Closed } else { now };
        let is_over = error.is_some();
        let (was_open, unseen) = (stream.is_open_once(), stream.unseen().map(str::to_owned));
        progress.send_replace(Progress { now, was_open, unseen, error });
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
