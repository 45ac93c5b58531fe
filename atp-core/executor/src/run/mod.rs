//! A run: work on many targets at once, and exactly one outcome for each.
//!
//! ```text
//! waiting ──admitted──► under way ──work ended──────────────► its completion, or another attempt
//!    │                     │ ├──────work panicked───────────► failed, panicked
//!    │                     │ ├──────deadline + grace passed──► timeout
//!    │                     │ └──────abort──────────────────► cancelled
//!    └──────────the run ends early─────────────────────────► skipped
//! ```
//!
//! There is one outcome for each target by construction: a target is moved out of the queue once, either into the task
//! that carries it out or into its `skipped` outcome, and that task owns it and returns one [`Outcome`]. These tasks keep
//! the deadlines, so that a reader of the events cannot delay them.

mod attempt;
mod scheduler;
mod slots;
mod stop;
mod waiting;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use atp_api::{Outcome, Policy, RunEvent};
use atp_settings::LONGEST;
use futures_util::future::BoxFuture;
use futures_util::stream::Stream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::journal::Recorder;
use crate::target::Target;
use crate::verbs::completion::Completion;

pub use attempt::Attempt;
pub(crate) use attempt::PartialResult;

/// Ends a run early from outside. The default never does.
#[derive(Debug, Clone, Default)]
pub struct RunControl {
    /// Start no more targets. Targets under way continue, waiting ones become `skipped`.
    pub stop: CancellationToken,
    /// Give up at once: as [`stop`](Self::stop), and targets under way become `cancelled`.
    pub abort: CancellationToken,
}

impl RunControl {
    /// Whether it is asked to stop, or to give up.
    pub(crate) fn is_asked(&self) -> bool {
        self.stop.is_cancelled() || self.abort.is_cancelled()
    }

    /// Returns when it is asked to stop, or to give up.
    pub(crate) async fn asked(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.abort.cancelled() => {}
        }
    }
}

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct RunSpec {
    /// The operation's name, for the outcomes.
    pub op: &'static str,
    /// The targets, in order.
    pub targets: Vec<Target>,
    /// Outcomes that are known already. They come right after the start of the run.
    pub settled: Vec<Outcome>,
    /// The number of targets that an earlier run of the same journal has done, for the start of the run.
    pub done_before: usize,
    /// The limits and deadlines. The time for the whole run starts when the run starts.
    pub policy: Policy,
    /// The journal, or another recorder: targets are recorded as started before they start, and as finished before their
    /// event.
    pub journal: Option<Arc<dyn Recorder>>,
}

/// The work of a run, called for each attempt at a target.
type Work = Arc<dyn Fn(Target, Attempt) -> BoxFuture<'static, Completion> + Send + Sync>;

/// A run under way: a stream of its events.
///
/// The run continues between two reads, until several events are unread: then no more targets are started. Dropping it
/// aborts the run.
#[derive(Debug)]
pub struct Run {
    // Dropped first, so that the run is aborted before it finds its channel closed.
    _abort_on_drop: DropGuard,
    events: mpsc::Receiver<RunEvent>,
}

impl Run {
    /// The next event; none after [`RunEvent::Ended`].
    ///
    /// Cancel safe: no event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<RunEvent> {
        self.events.recv().await
    }

    /// Waits for the end and returns all outcomes, by host and VM.
    ///
    /// Not cancel safe: dropping the future aborts the run.
    pub async fn outcomes(mut self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        while let Some(event) = self.next().await {
            if let RunEvent::Finished(outcome) = event {
                outcomes.push(*outcome);
            }
        }
        outcomes.sort_by(Outcome::report_order);
        outcomes
    }
}

impl Stream for Run {
    type Item = RunEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<RunEvent>> {
        self.events.poll_recv(cx)
    }
}

/// Runs `work` on every target of `spec`, as its [`Policy`] allows.
///
/// The work on a target must end by its [`Attempt::deadline`]. If it has not ended [`Policy::grace`] later, it is dropped
/// and the outcome says so. A panic of the work is contained in its outcome. Work that failed without an effect and that a
/// retry may help is called again, at most [`Policy::retries`] times.
///
/// Must be called within a tokio runtime.
pub fn run_targets<W, F>(spec: RunSpec, control: &RunControl, work: W) -> Run
where
    W: Fn(Target, Attempt) -> F + Send + Sync + 'static,
    F: Future<Output = Completion> + Send + 'static,
{
    // Room for the start of as many targets as may be under way, after the start of the run.
    let (sender, events) = mpsc::channel(spec.policy.parallel.clamp(1, Semaphore::MAX_PERMITS - 1) + 1);
    // A longer limit is taken for the longest, so that any is valid: the clock's range is larger.
    let deadline = spec.policy.deadline.map(|budget| Instant::now() + budget.min(LONGEST));
    let stop = stop::Stop::new(control.stop.clone(), control.abort.child_token(), deadline);
    let abort_on_drop = stop.abort().clone().drop_guard();
    let work: Work = Arc::new(move |target, attempt| Box::pin(work(target, attempt)));
    tokio::spawn(scheduler::run(spec, stop, sender, work));
    Run { _abort_on_drop: abort_on_drop, events }
}
